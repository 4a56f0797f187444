"""Measurement runner whose actor runs on a node of a hardware class."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from circinus.errors import CircinusError, ServingError
from circinus.operators import Item
from circinus.operators.pickling import pickle_value
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    Measurement,
    MeasurementError,
    NodeLostError,
    OperatorsMeasurement,
)
from circinus.serving.ray.cluster import Cluster, PoolNodes
from circinus.serving.ray.profiling_actor import NodeInfo, ProfilingActor, ProfilingRequest, node_info
from circinus.serving.ray.settings import POOL_LABEL, POOL_RESOURCE, placement_options
from circinus.serving.settings import SERVING
from circinus.specification import Configuration

_POLL_S = 0.5


@dataclass(frozen=True)
class HardwareClassPools:
    """Pools of one hardware class on a cluster."""

    cluster: Cluster
    hardware_class: str
    pools: tuple[str, ...]
    address: str
    """Address of the cluster, for messages."""

    @property
    def location(self) -> str:
        """Location of errors."""
        return f"hardware class {self.hardware_class}"

    def living(self) -> dict[str, PoolNodes]:
        """Return the pools with live nodes.

        Raises:
            NodeLostError: no pool has any.
        """
        nodes = self.cluster.pools()
        living = {pool: nodes[pool] for pool in self.pools if pool in nodes}
        if not living:
            raise self.missing(nodes)
        return living

    def missing(self, nodes: dict[str, PoolNodes]) -> NodeLostError:
        """Return the error for pools without a live node."""
        counts = ", ".join(f"{name} {pool_nodes.count}" for name, pool_nodes in sorted(nodes.items())) or "none"
        pool = self.pools[0]
        return NodeLostError(
            f"the Ray cluster at {self.address} has no live node to measure on (nodes by pool: {counts})",
            code="ray.missing_nodes",
            location=f"{self.location} (pools {', '.join(self.pools)})",
            hint=f"Start a node with the resource {POOL_RESOURCE}{pool} or the label {POOL_LABEL}={pool} and run the "
            "command again, which keeps existing measurements, or use declared speeds (--declared-speeds).",
        )

    def node_info(self) -> NodeInfo:
        """Return the description of a node of the class.

        Raises:
            NodeLostError: the class has no live node.
            ServingError: the node does not respond.
        """
        import ray
        from ray.exceptions import RayError

        pool, nodes = next(iter(self.living().items()))
        call = ray.remote(node_info).options(num_cpus=0, **placement_options(pool, labelled=nodes.labelled)).remote()
        try:
            info: NodeInfo = ray.get(call, timeout=SERVING.profiling_start_timeout_s)
        except RayError as error:
            raise ServingError(
                f"a node of pool {pool} did not respond: {error}", code="ray.node_silent", location=self.location
            ) from error
        return info


class RayRunner:
    """`Runner` and `OperatorRunner` on a node of one hardware class.

    The actor holds a `LocalRunner`: operators load, run and are timed in processes of the node. It reserves as many
    CPUs and GPUs as operators are measured with, so that serving replicas on the node do not disturb it. Items are sent
    once. If the node is lost, measurements continue on another node of the class.
    """

    def __init__(self, pools: HardwareClassPools, request: ProfilingRequest, cpus: float, measured_cpus: float) -> None:
        """Prepare a runner; the actor starts on the first call.

        Args:
            pools: pools whose nodes may be used.
            request: pipeline and code to measure.
            cpus: CPUs to reserve, as far as a node has them.
            measured_cpus: see `cpus`.
        """
        self._pools, self._request = pools, request
        self._requested_cpus, self._cpus = cpus, measured_cpus
        self._requested_gpus = max(operator.gpus for operator in request.pipeline.operators)
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

            with suppress(Exception):  # the actor may be gone with its node
                ray.kill(actor)  # its processes end with it

    @property
    def cpus(self) -> float:
        """See `Runner.cpus`."""
        return self._cpus

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """See `Runner.measure`."""
        measurement: Measurement = self._call("measure", configuration, items)
        return measurement

    def measure_operators(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> OperatorsMeasurement:
        """See `OperatorRunner.measure_operators`."""
        measurement: OperatorsMeasurement = self._call(
            "measure_operators", configuration, items, operators=list(operators)
        )
        return measurement

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        """See `Runner.measure_allocations`."""
        measurement: AllocationMeasurement = self._call(
            "measure_allocations", configuration, items, operator=operator, allocations=list(allocations)
        )
        return measurement

    def _call(self, method: str, configuration: Configuration, items: Sequence[Item], **options: Any) -> Any:
        """Return the response of the actor.

        Raises:
            NodeLostError: no node of the class is left.
            ServingError: the nodes do not respond, or have no free CPUs.
        """
        import ray
        from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

        for _ in range(SERVING.max_replica_losses):
            actor = self._actor or self._start()
            new_items = [item for item in items if item.key not in self._sent]
            try:
                sent = [pickle_value(item) for item in new_items]
                keys = [item.key for item in items]
                response = ray.get(actor.measure.remote(method, configuration, keys, sent, **options))
            except RayTaskError as error:
                raise ServingError(
                    f"the measurement failed on its node: {error}",
                    code="ray.node_failed",
                    location=self._pools.location,
                ) from error
            except (RayActorError, ObjectLostError):
                self.close()
                continue
            self._sent.update(item.key for item in new_items)
            if isinstance(response, CircinusError):
                raise response
            return response
        reason = f"the process that measures on {self._pools.location} ended twice during it"
        raise MeasurementError(reason, self._request.pipeline.name, configuration, None, code="ray.process_lost")

    def _start(self) -> Any:
        """Start an actor that is ready to measure."""
        import ray
        from ray.exceptions import ObjectLostError, RayActorError

        deadline_s = time.monotonic() + SERVING.profiling_start_timeout_s
        while True:
            pool, nodes = next(iter(self._pools.living().items()))
            options = placement_options(pool, labelled=nodes.labelled)
            cpus, gpus = min(self._requested_cpus, nodes.cpus), min(self._requested_gpus, nodes.gpus)
            actor = ray.remote(ProfilingActor).options(num_cpus=cpus, num_gpus=gpus, **options).remote(self._request)
            try:
                opened = self._opened(actor, pool, cpus, deadline_s)
                if opened is not None:
                    self._actor = actor
                    return actor
            except (RayActorError, ObjectLostError):
                if time.monotonic() > deadline_s:
                    raise ServingError(
                        "cannot start a process on its nodes",
                        code="ray.process_not_started",
                        location=self._pools.location,
                    ) from None
                time.sleep(_POLL_S)  # until Ray notices that the node is gone
            finally:
                if self._actor is not actor:
                    with suppress(Exception):
                        ray.kill(actor)

    def _opened(self, actor: Any, pool: str, cpus: float, deadline_s: float) -> NodeInfo | None:
        """Wait until the actor is ready; return None if its pool has lost all nodes."""
        import ray

        call = actor.open.remote()
        while not ray.wait([call], timeout=_POLL_S)[0]:
            if pool not in self._pools.living():
                return None
            if time.monotonic() > deadline_s:
                raise ServingError(
                    f"no node of pool {pool} had {cpus:g} free CPUs within {SERVING.profiling_start_timeout_s:g} s; "
                    "measurements need exclusive CPUs",
                    code="ray.busy_nodes",
                    location=self._pools.location,
                    hint="Profile while the nodes are less busy.",
                )
        response: NodeInfo | CircinusError = ray.get(call)
        if isinstance(response, CircinusError):
            raise response
        return response
