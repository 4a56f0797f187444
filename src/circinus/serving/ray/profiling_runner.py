"""Measuring on a node of a hardware class: a runner whose work is done by an actor there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from circinus.errors import ServingError
from circinus.operators import Item
from circinus.profiling.measurement.pickling import pickle_value
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    Measurement,
    MeasurementError,
    NodeLostError,
    OperatorsMeasurement,
)
from circinus.serving.ray.cluster import Cluster, PoolNodes
from circinus.serving.ray.profiling_actor import NodeInfo, ProfilingActor, ProfilingRequest, RemoteError, node_info
from circinus.serving.ray.settings import POOL_LABEL, POOL_RESOURCE, placement_options
from circinus.specification import Configuration

_START_S = 60.0
"""How long a node may take to give an actor its CPUs and to import what it needs."""
_LOOK_S = 0.5
_MOST_LOSSES = 2
"""Actors that a measurement may take with it before it is the measurement's own fault."""


@dataclass(frozen=True)
class HardwareClassPools:
    """The pools of one hardware class on a cluster."""

    hardware_class: str
    pools: tuple[str, ...]
    address: str
    """Of the cluster, for messages."""

    def living(self, cluster: Cluster) -> dict[str, PoolNodes]:
        """Those with nodes that live.

        Raises:
            NodeLostError: there is none.
        """
        nodes = cluster.pools()
        found = {pool: nodes[pool] for pool in self.pools if pool in nodes}
        if not found:
            raise self.missing(nodes)
        return found

    def missing(self, nodes: dict[str, PoolNodes]) -> NodeLostError:
        """Return the error for pools without a living node."""
        counts = ", ".join(f"{name} {known.count}" for name, known in sorted(nodes.items())) or "none"
        pool = self.pools[0]
        return NodeLostError(
            f"there is no living node to measure on at the Ray cluster at {self.address} (nodes by pool: {counts})",
            code="ray.missing_nodes",
            location=f"hardware class {self.hardware_class} (pools {', '.join(self.pools)})",
            hint=f"Start a node with the resource {POOL_RESOURCE}{pool} or the label {POOL_LABEL}={pool} and run the "
            "command again, which keeps what is measured, or use the declared speed (--declared-speeds).",
        )


class RayRunner:
    """`Runner` and `OperatorRunner` on a node of one hardware class.

    The actor there holds a `LocalRunner`: operators load, run and are timed in processes of the node. It is given as
    many CPUs and GPUs as operators are measured with, so that replicas that serve beside it do not disturb it. Items
    are sent once. Where its node is lost, another node of the class goes on.
    """

    def __init__(
        self, cluster: Cluster, where: HardwareClassPools, order: ProfilingRequest, cpus: float, measured_cpus: float
    ) -> None:
        """Start nothing yet.

        Args:
            cluster: connected.
            where: the pools to look for nodes in.
            order: what is to be measured.
            cpus: to set aside, as far as a node has them.
            measured_cpus: see `cpus`.
        """
        self._cluster, self._where, self._order = cluster, where, order
        self._wanted_cpus, self._cpus = cpus, measured_cpus
        self._wanted_gpus = max(operator.gpus for operator in order.pipeline.operators)
        self._actor: Any = None
        self._sent: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the actor and all processes that it started."""
        actor, self._actor = self._actor, None
        self._sent.clear()
        if actor is not None:
            import ray

            with suppress(Exception):  # it may be gone with its node
                ray.kill(actor)  # what it started ends with it

    @property
    def cpus(self) -> float:
        """See `Runner.cpus`."""
        return self._cpus

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """See `Runner.measure`."""
        found: Measurement = self._call("measure", configuration, items)
        return found

    def measure_operators(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> OperatorsMeasurement:
        """See `OperatorRunner.measure_operators`."""
        found: OperatorsMeasurement = self._call("measure_operators", configuration, items, list(operators))
        return found

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        """See `Runner.measure_allocations`."""
        found: AllocationMeasurement = self._call(
            "measure_allocations", configuration, items, operator, list(allocations)
        )
        return found

    def _call(self, method: str, configuration: Configuration, items: Sequence[Item], *more: Any) -> Any:
        """What the actor answers.

        Raises:
            NodeLostError: no node of the class is left.
            ServingError: the nodes that there are do not answer, or give no CPUs.
        """
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

        for _ in range(_MOST_LOSSES):
            actor = self._actor or self._start()
            new = [item for item in items if item.key not in self._sent]
            try:
                sent = [pickle_value(item) for item in new]
                answer = ray.get(getattr(actor, method).remote(configuration, [i.key for i in items], sent, *more))
            except RayTaskError as error:
                raise ServingError(
                    f"the node failed to measure: {error}", code="ray.node_failed", location=self._name()
                ) from error
            except (RayActorError, ObjectLostError):
                self.close()
                continue
            self._sent.update(item.key for item in new)
            if isinstance(answer, RemoteError):
                raise answer.error()
            return answer
        reason = f"it took the process that measures on hardware class {self._order.hardware_class} with it, twice"
        where = f"pipeline {self._order.pipeline.name}, configuration {configuration}"
        raise MeasurementError(reason, configuration, None, reason, code="ray.process_lost", location=where)

    def _start(self) -> Any:
        """An actor that is ready to measure."""
        import ray
        from ray.exceptions import ObjectLostError, RayActorError

        until_s = time.monotonic() + _START_S
        while True:
            pool, nodes = next(iter(self._where.living(self._cluster).items()))
            options = placement_options(pool, labelled=nodes.labelled)
            cpus, gpus = min(self._wanted_cpus, nodes.cpus), min(self._wanted_gpus, nodes.gpus)
            actor = ray.remote(ProfilingActor).options(num_cpus=cpus, num_gpus=gpus, **options).remote(self._order)
            try:
                opened = self._opened(actor, pool, cpus, until_s)
                if opened is not None:
                    self._actor = actor
                    return actor
            except (RayActorError, ObjectLostError):
                if time.monotonic() > until_s:
                    raise ServingError(
                        "no process can be started on its nodes", code="ray.process_not_started", location=self._name()
                    ) from None
                time.sleep(_LOOK_S)  # until the cluster has noticed that the node is gone
            finally:
                if self._actor is not actor:
                    with suppress(Exception):
                        ray.kill(actor)

    def _opened(self, actor: Any, pool: str, cpus: float, until_s: float) -> NodeInfo | None:
        """What the actor says when it is ready; None: the nodes of its pool have gone meanwhile."""
        import ray

        asked = actor.open.remote()
        while not ray.wait([asked], timeout=_LOOK_S)[0]:
            if pool not in self._where.living(self._cluster):
                return None
            if time.monotonic() > until_s:
                raise ServingError(
                    f"no node of pool {pool} gave {cpus:g} CPUs within {_START_S:g} s, "
                    "expected free ones so that nothing disturbs the measurement",
                    code="ray.busy_nodes",
                    location=self._name(),
                    hint="Measure while less runs there.",
                )
        answer: NodeInfo | RemoteError = ray.get(asked)
        if isinstance(answer, RemoteError):
            raise answer.error()
        return answer

    def _name(self) -> str:
        return f"hardware class {self._order.hardware_class}"


def query_node_info(cluster: Cluster, where: HardwareClassPools) -> NodeInfo:
    """What a node of a class says of itself.

    Raises:
        NodeLostError: there is none.
        ServingError: it does not answer.
    """
    import ray
    from ray.exceptions import RayError

    pool, nodes = next(iter(where.living(cluster).items()))
    asked = ray.remote(node_info).options(num_cpus=0, **placement_options(pool, labelled=nodes.labelled)).remote()
    try:
        found: NodeInfo = ray.get(asked, timeout=_START_S)
    except RayError as error:
        raise ServingError(
            f"a node of pool {pool} does not answer: {error}",
            code="ray.node_silent",
            location=f"hardware class {where.hardware_class}",
        ) from error
    return found
