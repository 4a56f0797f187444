"""Routes over running deployments, and the journey of one request along one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from circinus.serving.deliveries import INPUT, RESULT, Delivery, deliveries_of
from circinus.serving.engine import Route, RouteStage
from circinus.serving.labels import label_of
from circinus.serving.local.deployment import RunningDeployment
from circinus.serving.local.links import LinkEmulator, Timer
from circinus.serving.packed_response import PackedResponse
from circinus.serving.replicas.messages import Payload, WorkResult
from circinus.serving.replicas.work import Work
from circinus.spec import Deployment, Network


@dataclass(frozen=True)
class CompiledRoute:
    """A route with everything looked up that does not depend on the request."""

    route: Route
    stages: Mapping[str, RouteStage]
    deployments: Mapping[str, RunningDeployment]
    """By operator."""
    recordings: Mapping[str, int]
    """Operator -> id of the recordings to answer from; empty in the mode `real`."""
    deliveries: Mapping[str, tuple[Delivery, ...]]
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
        running: Mapping[Deployment, RunningDeployment],
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
            deliveries=deliveries_of(route, network),
            prefixes={stage.operator: label_of(stage.prefix) for stage in route.stages},
            configuration=label_of(route.configuration),
        )


@dataclass(eq=False)
class Journey:
    """One request under way. Ends with `on_done` or `on_failed`, once."""

    compiled: CompiledRoute
    item_key: str
    links: LinkEmulator
    timer: Timer
    on_done: Callable[[PackedResponse], None]
    on_failed: Callable[[str], None]
    ended: bool = False
    _begin_s: float = 0.0
    _values: dict[str, Payload | None] = field(default_factory=dict)
    _arrived: defaultdict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    """Consumer -> producer -> when its output arrived."""
    _stage_s: dict[str, float] = field(default_factory=dict)
    _busy_s: dict[str, float] = field(default_factory=dict)
    _link_bytes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def begin(self, value: Payload | None, input_bytes: float) -> None:
        """Send the input on its way."""
        self._begin_s = self.timer.time()
        for deployment in self.compiled.deployments.values():
            deployment.enter()
        self._produced(INPUT, value, input_bytes, self._begin_s)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        if not self.ended:
            self.ended = True
            for deployment in self.compiled.deployments.values():
                deployment.exit()

    def fail(self, reason: str) -> None:
        """End without an answer."""
        if not self.ended:
            self.abandon()
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
            Work(
                item_key=self.item_key,
                inputs=[value for value in inputs if value is not None],
                recording=self.compiled.recordings.get(operator),
                due_s=due_s,
                done=partial(self._processed, operator),
                failed=lambda reason: self.fail(f"operator {operator} failed on item {self.item_key!r}: {reason}"),
                abandoned=lambda: self.ended,
                prefix=self.compiled.prefixes[operator],
            )
        )

    def _processed(self, operator: str, result: WorkResult, output: Payload | None, end_s: float) -> None:
        if not self.ended:
            self._stage_s[operator] = result.service_s
            self._busy_s[operator] = result.busy_s
            self._produced(operator, output, result.output_bytes, end_s)

    def _finish(self) -> None:
        self.abandon()
        outputs = {sink: self._values[sink] for sink in self.compiled.route.sinks}
        self.on_done(
            PackedResponse(
                outputs={sink: output if output is not None else b"" for sink, output in outputs.items()},
                latency_s=self.timer.time() - self._begin_s,
                stage_s=self._stage_s,
                busy_s=self._busy_s,
                link_bytes=dict(self._link_bytes),
            )
        )
