"""Routes over running deployments, and the journey of one request along one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.engine import Route, RouteStage
from circinus.serving.local.deployment_runtime import DeploymentRuntime
from circinus.serving.pickled_response import PickledResponse
from circinus.serving.replicas.batch_queue import QueuedItem
from circinus.serving.replicas.replica_protocol import ItemResult, Payload
from circinus.serving.route_transfers import INPUT, RESULT, RouteTransfer, route_transfers
from circinus.specification import Deployment, DirectedLink, Network


class Timer(Protocol):
    """Time and calls in the future: an event loop, or a test's clock."""

    def time(self) -> float:
        """Seconds."""
        ...

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call `callback(*args)` at `when`."""
        ...


class LinkEmulator:
    """Delays transfers as the links of their path would.

    Over each link in turn a transfer waits until those before it have left, takes its size over the bandwidth to leave,
    and one one-way delay to arrive. Calls may come late by the resolution of the timer; the times that are computed
    with are the due ones, so lateness does not add up along a path or a queue.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._free_at: dict[str, float] = {}
        """Name of a directed link -> when everything sent over it so far has left."""

    def send(
        self, path: Sequence[DirectedLink], size_bytes: float, due_s: float, arrived: Callable[[float], None]
    ) -> None:
        """Call `arrived` when `size_bytes` have crossed `path`; at once when it is empty.

        Args:
            path: the links, in order.
            size_bytes: what is sent.
            due_s: when it was there to be sent; not in the future.
            arrived: told when the last byte was due to arrive.
        """
        if not path:
            arrived(due_s)
            return
        link, rest = path[0], path[1:]
        begin_s = max(due_s, self._free_at.get(link.name, due_s))
        left_s = begin_s + size_bytes / link.bandwidth_bytes_per_s
        self._free_at[link.name] = left_s
        next_s = left_s + link.one_way_s
        self._timer.call_at(next_s, self.send, rest, size_bytes, next_s, arrived)


@dataclass(frozen=True)
class CompiledRoute:
    """A route with everything looked up that does not depend on the request."""

    route: Route
    stages: Mapping[str, RouteStage]
    deployments: Mapping[str, DeploymentRuntime]
    """By operator."""
    recordings: Mapping[str, int]
    """Operator -> id of the recordings to answer from; empty in the mode `real`."""
    deliveries: Mapping[str, tuple[RouteTransfer, ...]]
    """By producer."""
    prefixes: Mapping[str, str]
    """Operator -> label of its prefix."""
    configuration: str
    """Label of the route's configuration."""

    @classmethod
    def compile(
        cls,
        route: Route,
        network: Network,
        running: Mapping[Deployment, DeploymentRuntime],
        recordings: Mapping[str, int],
    ) -> CompiledRoute:
        """Look up deployments and paths.

        Raises:
            ServingError: there is no way between two sites that the route connects.
        """
        return cls(
            route=route,
            stages={stage.operator: stage for stage in route.stages},
            deployments={stage.operator: running[stage.deployment] for stage in route.stages},
            recordings=recordings,
            deliveries=route_transfers(route, network),
            prefixes={stage.operator: configuration_hash(stage.prefix) for stage in route.stages},
            configuration=configuration_hash(route.configuration),
        )


@dataclass(eq=False)
class RequestExecution:
    """One request under way. Ends with `on_done` or `on_failed`, once."""

    compiled: CompiledRoute
    item_key: str
    links: LinkEmulator
    timer: Timer
    on_done: Callable[[PickledResponse], None]
    on_failed: Callable[[str], None]
    ended: bool = False
    _begin_s: float = 0.0
    _values: dict[str, Payload | None] = field(default_factory=dict)
    _arrived: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """Consumer -> producer -> when its output arrived."""
    _stage_s: dict[str, float] = field(default_factory=dict)
    _busy_s: dict[str, float] = field(default_factory=dict)
    _link_bytes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def start(self, value: Payload | None, input_bytes: float) -> None:
        """Send the input on its way."""
        self._begin_s = self.timer.time()
        for deployment in self.compiled.deployments.values():
            deployment.acquire()
        self._produced(INPUT, value, input_bytes, self._begin_s)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        if not self.ended:
            self.ended = True
            for deployment in self.compiled.deployments.values():
                deployment.release()

    def fail(self, reason: str) -> None:
        """End without an answer."""
        if not self.ended:
            self.cancel()
            self.on_failed(f"query {self.compiled.route.query}: {reason}")

    def _produced(self, producer: str, value: Payload | None, size_bytes: float, due_s: float) -> None:
        self._values[producer] = value
        for delivery in self.compiled.deliveries[producer]:
            for link in delivery.path:
                self._link_bytes[link.name] += size_bytes
            self.links.send(delivery.path, size_bytes, due_s, partial(self._delivered, producer, delivery.consumers))

    def _delivered(self, producer: str, consumers: Sequence[str], due_s: float) -> None:
        for consumer in consumers:
            if self.ended:
                return
            arrived = self._arrived[consumer]
            arrived[producer] = due_s
            if consumer == RESULT:
                if len(arrived) == len(self.compiled.route.sinks):
                    self._finish()
            elif len(arrived) == len(set(self.compiled.stages[consumer].after or (INPUT,))):
                self._enqueue(self.compiled.stages[consumer], max(arrived.values()))

    def _enqueue(self, stage: RouteStage, due_s: float) -> None:
        operator = stage.operator
        inputs = [self._values[producer] for producer in stage.after or (INPUT,)]
        self.compiled.deployments[operator].enqueue(
            QueuedItem(
                item_key=self.item_key,
                inputs=[value for value in inputs if value is not None],
                recording=self.compiled.recordings.get(operator),
                due_s=due_s,
                done=partial(self._processed, operator),
                failed=lambda reason: self.fail(f"operator {operator} failed on item {self.item_key!r}: {reason}"),
                is_cancelled=lambda: self.ended,
                prefix=self.compiled.prefixes[operator],
            )
        )

    def _processed(self, operator: str, result: ItemResult, output: Payload | None, end_s: float) -> None:
        if not self.ended:
            self._stage_s[operator] = result.service_s
            self._busy_s[operator] = result.busy_s
            self._produced(operator, output, result.output_bytes, end_s)

    def _finish(self) -> None:
        self.cancel()
        outputs = {sink: self._values[sink] for sink in self.compiled.route.sinks}
        self.on_done(
            PickledResponse(
                outputs={sink: output if output is not None else b"" for sink, output in outputs.items()},
                latency_s=self.timer.time() - self._begin_s,
                stage_s=self._stage_s,
                busy_s=self._busy_s,
                link_bytes=dict(self._link_bytes),
            )
        )
