"""Execution of requests along routes over running deployments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from circinus.serving.engine import ResponseTimings
from circinus.serving.local.deployment_runtime import DeploymentRuntime
from circinus.serving.pickled_response import PickledResponse
from circinus.serving.replicas.replica_protocol import ItemResult, Payload
from circinus.serving.router.batch_queue import QueuedItem
from circinus.serving.router.compiled_route import INPUT, RESULT, CompiledRoute, CompiledStage
from circinus.specification import DirectedLink


class Timer(Protocol):
    """Clock and timers: an event loop, or a test clock."""

    def time(self) -> float:
        """Return the time in seconds."""
        ...

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call `callback(*args)` at `when`."""
        ...


class LinkEmulator:
    """Emulator of links, which delays transfers by bandwidth, queueing and propagation.

    Over each link of its path in turn, a transfer waits until earlier ones have left, takes its size over the bandwidth
    to leave, and one one-way delay to arrive. Calls may be late by the resolution of the timer, but all times are
    computed from due times, so that lateness does not accumulate along a path or a queue.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._free_at: dict[str, float] = {}
        """Name of a directed link -> time at which all earlier transfers have left."""

    def send(
        self, path: Sequence[DirectedLink], size_bytes: float, due_s: float, arrived: Callable[[float], None]
    ) -> None:
        """Call `arrived` when `size_bytes` have crossed `path`; immediately if the path is empty.

        Args:
            path: the links, in order.
            size_bytes: size of the transfer.
            due_s: time at which the data was available; not in the future.
            arrived: called with the arrival time of the last byte.
        """
        if not path:
            arrived(due_s)
            return
        link, remaining_path = path[0], path[1:]
        start_s = max(due_s, self._free_at.get(link.name, due_s))
        departure_s = start_s + size_bytes / link.bandwidth_bytes_per_s
        self._free_at[link.name] = departure_s
        arrival_s = departure_s + link.one_way_s
        self._timer.call_at(arrival_s, self.send, remaining_path, size_bytes, arrival_s, arrived)


@dataclass(eq=False)
class RequestExecution:
    """Execution of one request. Ends with `on_done` or `on_failed`, once, unless cancelled."""

    route: CompiledRoute
    deployments: Mapping[str, DeploymentRuntime]
    """Deployments by `CompiledStage.application`."""
    item_key: str
    links: LinkEmulator
    timer: Timer
    on_done: Callable[[PickledResponse], None]
    on_failed: Callable[[str], None]
    ended: bool = False
    _start_s: float = 0.0
    _values: dict[str, Payload | None] = field(default_factory=dict)
    _arrived: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """Consumer -> producer -> arrival time of its output."""
    _stage_s: dict[str, float] = field(default_factory=dict)
    _replica_s: dict[str, float] = field(default_factory=dict)
    _link_bytes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def start(self, value: Payload | None, input_bytes: float) -> None:
        """Start the request by sending its input."""
        self._start_s = self.timer.time()
        for deployment in self._used():
            deployment.acquire()
        self._produced(INPUT, value, input_bytes, self._start_s)

    def cancel(self) -> None:
        """Cancel the request without a callback."""
        if not self.ended:
            self.ended = True
            for deployment in self._used():
                deployment.release()

    def _used(self) -> list[DeploymentRuntime]:
        return [self.deployments[stage.application] for stage in self.route.stages.values()]

    def fail(self, reason: str) -> None:
        """Fail the request."""
        if not self.ended:
            self.cancel()
            self.on_failed(reason)

    def _produced(self, producer: str, value: Payload | None, size_bytes: float, due_s: float) -> None:
        self._values[producer] = value
        for transfer in self.route.transfers[producer]:
            for link in transfer.path:
                self._link_bytes[link.name] += size_bytes
            self.links.send(transfer.path, size_bytes, due_s, partial(self._delivered, producer, transfer.consumers))

    def _delivered(self, producer: str, consumers: Sequence[str], due_s: float) -> None:
        for consumer in consumers:
            if self.ended:
                return
            arrived = self._arrived[consumer]
            arrived[producer] = due_s
            if consumer == RESULT:
                if len(arrived) == len(self.route.sinks):
                    self._finish()
            elif len(arrived) == len(set(self.route.stages[consumer].producers)):
                self._enqueue(self.route.stages[consumer], max(arrived.values()))

    def _enqueue(self, stage: CompiledStage, due_s: float) -> None:
        operator = stage.operator
        inputs = [self._values[producer] for producer in stage.producers]
        self.deployments[stage.application].dispatcher.enqueue(
            QueuedItem(
                item_key=self.item_key,
                inputs=[value for value in inputs if value is not None],
                recording=stage.recording,
                due_s=due_s,
                done=partial(self._processed, operator),
                failed=lambda reason: self.fail(f"operator {operator} failed on item {self.item_key!r}: {reason}"),
                is_cancelled=lambda: self.ended,
                prefix=stage.prefix,
            )
        )

    def _processed(self, operator: str, result: ItemResult, output: Payload | None, end_s: float) -> None:
        if not self.ended:
            self._stage_s[operator] = result.service_s
            self._replica_s[operator] = result.busy_s
            self._produced(operator, output, result.output_bytes, end_s)

    def _finish(self) -> None:
        self.cancel()
        outputs = {sink: self._values[sink] for sink in self.route.sinks}
        self.on_done(
            PickledResponse(
                outputs={sink: output if output is not None else b"" for sink, output in outputs.items()},
                timings=ResponseTimings(
                    self.timer.time() - self._start_s, self._stage_s, self._replica_s, dict(self._link_bytes)
                ),
            )
        )
