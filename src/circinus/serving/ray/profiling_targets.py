"""Where every hardware class of an infrastructure is measured on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from circinus.profiling import HardwareClassBackend, LocalBackend, Machine
from circinus.profiling.measurement.runner import NodeLostError, OperatorRunner, Runner
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.profiling_actor import NodeInfo, ProfilingRequest
from circinus.serving.ray.profiling_runner import HardwareClassPools, RayRunner, query_node_info
from circinus.specification import Infrastructure


@dataclass(frozen=True, eq=False)
class ProfilingTargets:
    """Where to measure."""

    reference: LocalBackend
    """In full: on a node of the class `local` where pools have it, else on this machine."""
    classes: Mapping[str, HardwareClassBackend | None]
    """Every other class of the pools; None: no node of it lives, and that is allowed."""


class RayHardwareClassBackend:
    """`ClassSource` on the nodes of one class."""

    def __init__(
        self, cluster: Cluster, where: HardwareClassPools, facts: NodeInfo, module_paths: Sequence[Path]
    ) -> None:
        self._cluster, self._where, self._facts, self._module_paths = cluster, where, facts, tuple(module_paths)

    @property
    def machine(self) -> Machine:
        """See `ClassSource.machine`."""
        return self._facts.machine

    def operator_runner(self, there: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[OperatorRunner]:
        """See `ClassSource.operator_runner`."""
        return self.runner(there, timeout_s=timeout_s, cpus=max(min(o.cpus) for o in there.pipeline.operators))

    def runner(self, there: MeasurementKeys, *, timeout_s: float, cpus: float) -> RayRunner:
        """What measures there, with so many CPUs set aside."""
        paths = tuple(path.resolve() for path in self._module_paths)
        order = ProfilingRequest(there.pipeline, there.code, self._where.hardware_class, self.machine, paths, timeout_s)
        return RayRunner(self._cluster, self._where, order, cpus, self._facts.cpus)


class RayBackend(LocalBackend):
    """`Source` whose operators run on a node of the class `local`; data set and metric are this process's."""

    def __init__(self, there: RayHardwareClassBackend, module_paths: Sequence[Path]) -> None:
        super().__init__(module_paths)
        self._there = there

    @property
    def machine(self) -> Machine:
        """See `Source.machine`."""
        return self._there.machine

    def runner(self, addresses: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        """See `Source.runner`."""
        cpus = max(max(operator.cpus) for operator in addresses.pipeline.operators)
        return self._there.runner(addresses, timeout_s=timeout_s, cpus=cpus)


def find_profiling_targets(
    cluster: Cluster,
    address: str,
    infrastructure: Infrastructure,
    module_paths: Sequence[Path],
    *,
    declared_speeds: bool,
) -> ProfilingTargets:
    """Find a node of every class.

    Args:
        cluster: connected.
        address: of the cluster, for messages.
        infrastructure: the pools.
        module_paths: where operators are found, here and on every node.
        declared_speeds: whether to go on with the declared speeds of classes without a living node.

    Raises:
        ServingError: a node does not answer.
        NodeLostError: a class has no living node.
    """
    pools: dict[str, list[str]] = {}
    for pool in infrastructure.pools:
        if pool.nodes:
            pools.setdefault(pool.hardware.name, []).append(pool.name)
    found: dict[str, RayHardwareClassBackend | None] = {}
    missing = []
    for name, of_class in pools.items():
        where = HardwareClassPools(name, tuple(of_class), address)
        try:
            found[name] = RayHardwareClassBackend(cluster, where, query_node_info(cluster, where), module_paths)
        except NodeLostError as error:
            found[name] = None
            missing.append(str(error))
    if missing and not declared_speeds:
        raise NodeLostError("\n".join(missing), code="ray.missing_nodes")
    local = found.pop(LOCAL, None)
    reference = LocalBackend(module_paths) if local is None else RayBackend(local, module_paths)
    return ProfilingTargets(reference, found)
