"""Measurement backends on a Ray cluster for the hardware classes of an infrastructure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from circinus.profiling import HardwareClassBackend, LocalBackend, Machine
from circinus.profiling.measurement.runner import NodeLostError, OperatorRunner, Runner
from circinus.profiling.store.measurement_keys import LOCAL, MeasurementKeys
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.profiling_actor import ProfilingRequest
from circinus.serving.ray.profiling_runner import HardwareClassPools, RayRunner
from circinus.specification import Infrastructure


@dataclass(frozen=True, eq=False)
class ProfilingTargets:
    """Measurement backends by hardware class."""

    reference: LocalBackend
    """Backend of full measurements: a node of the class `local` if pools have it, else this machine."""
    classes: Mapping[str, HardwareClassBackend | None]
    """Backends of the other classes; None: the class has no live node, and its declared speed is used."""


class RayBackend(LocalBackend):
    """Backend with operators on a node of a hardware class; data set and metric run in this process."""

    def __init__(self, pools: HardwareClassPools, module_paths: Sequence[Path]) -> None:
        """Find a node.

        Raises:
            NodeLostError: the class has no live node.
            ServingError: the node does not respond.
        """
        super().__init__(module_paths)
        self._pools, self._info = pools, pools.node_info()

    @property
    def machine(self) -> Machine:
        """See `MeasurementBackend.machine`."""
        return self._info.machine

    def runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        """See `MeasurementBackend.runner`."""
        return self._runner(keys, timeout_s, cpus=max(max(operator.cpus) for operator in keys.pipeline.operators))

    def operator_runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[OperatorRunner]:
        """See `HardwareClassBackend.operator_runner`."""
        return self._runner(keys, timeout_s, cpus=max(min(operator.cpus) for operator in keys.pipeline.operators))

    def _runner(self, keys: MeasurementKeys, timeout_s: float, cpus: float) -> RayRunner:
        """Return a runner with `cpus` reserved CPUs."""
        paths = tuple(path.resolve() for path in self._module_paths)
        request = ProfilingRequest(keys.pipeline, keys.code, self._pools.hardware_class, self.machine, paths, timeout_s)
        return RayRunner(self._pools, request, cpus, self._info.cpus)


def find_profiling_targets(
    cluster: Cluster,
    address: str,
    infrastructure: Infrastructure,
    module_paths: Sequence[Path],
    *,
    declared_speeds: bool,
) -> ProfilingTargets:
    """Find a node of every hardware class.

    Args:
        cluster: the connected cluster.
        address: address of the cluster, for messages.
        infrastructure: the pools.
        module_paths: paths of the operators' modules, on this machine and on every node.
        declared_speeds: whether to use the declared speeds of classes without a live node.

    Raises:
        ServingError: a node does not respond.
        NodeLostError: a class has no live node.
    """
    pools: dict[str, list[str]] = {}
    for pool in infrastructure.pools:
        if pool.nodes:
            pools.setdefault(pool.hardware.name, []).append(pool.name)
    backends: dict[str, RayBackend | None] = {}
    missing = []
    for name, names in pools.items():
        try:
            backends[name] = RayBackend(HardwareClassPools(cluster, name, tuple(names), address), module_paths)
        except NodeLostError as error:
            backends[name] = None
            missing.append(str(error))
    if missing and not declared_speeds:
        raise NodeLostError("\n".join(missing), code="ray.missing_nodes")
    return ProfilingTargets(backends.pop(LOCAL, None) or LocalBackend(module_paths), backends)
