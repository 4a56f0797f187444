"""Small desired states for `circinus.testing.engine_conformance`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circinus.operators.protocol import Emission
from circinus.profiling import Recordings, record_for_replay
from circinus.serving.engine import DesiredDeployment, DesiredState, Mode
from circinus.serving.routes import Route, RouteShare, RouteStage
from circinus.specification import (
    Allocation,
    Configuration,
    DatasetSpec,
    Deployment,
    HardwareClass,
    Infrastructure,
    Knob,
    KnobValues,
    LatePolicy,
    Link,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    Pool,
    Site,
    Specification,
)
from circinus.specification.base_model import Scalar
from circinus.specification.dataflow import FlowNode, edges_of

PIPELINE = "conformance"
_MODULE = "circinus.testing.operators"
_MIB = 2.0**20


def infrastructure() -> Infrastructure:
    """Return two sites with a fast link, and pools small enough for any machine."""
    pools = [
        Pool(
            name=name,
            site=site,
            tier=tier,
            cpus=0.5,
            memory_bytes=64 * _MIB,
            hardware=HardwareClass(name="local"),
            private=False,
        )
        for name, site, tier in (("near", "home", "edge"), ("far", "center", "cloud"))
    ]
    link = Link(source="home", target="center", bandwidth_bytes_per_s=1e9, round_trip_s=0.0)
    return Infrastructure(
        name="conformance", sites=(Site(name="home"), Site(name="center")), pools=tuple(pools), links=(link,)
    )


@dataclass(frozen=True)
class StageSpec:
    """Stage of a route: operator of `circinus.testing.operators`, inputs, knobs, pool and size."""

    operator: str
    uses: str
    after: tuple[Any, ...] = ()
    """As in `OperatorSpec.after`, and so are the fields of lists and branches."""
    knobs: tuple[tuple[str, Scalar], ...] = ()
    pool: str = "near"
    replicas: int = 1
    batch_size: int = 1
    batch_wait_s: float = 0.0
    utilization_target: float = 0.5
    emits_many: bool = False
    at_most: int = 10
    gather: bool = False
    branches: tuple[str, ...] = ()

    @property
    def flow(self) -> FlowNode:
        """Inputs and outputs of the operator."""
        inputs = tuple(edges_of(entry) for entry in self.after)
        return FlowNode(self.operator, inputs, self.emits_many, self.gather, self.branches)

    @property
    def deployment(self) -> Deployment:
        """Deployment of the stage."""
        return Deployment(
            pipeline=PIPELINE,
            operator=self.operator,
            knobs=KnobValues(self.knobs),
            pool=self.pool,
            allocation=Allocation(0.1, self.batch_size, self.utilization_target),
        )

    @property
    def desired(self) -> DesiredDeployment:
        """Deployment of the stage with its size."""
        return DesiredDeployment(
            deployment=self.deployment,
            uses=f"{_MODULE}:{self.uses}",
            replicas=self.replicas,
            cpus=0.1,
            memory_bytes=_MIB,
            relative_speed=1.0,
            batch_wait_s=self.batch_wait_s,
            emission=Emission(self.at_most if self.emits_many else None, self.branches),
        )

    @property
    def specification(self) -> OperatorSpec:
        """Operator of a pipeline with the stage as its only choice."""
        return OperatorSpec(
            name=self.operator,
            uses=self.desired.uses,
            after=self.after,
            emits="many" if self.emits_many else "one",
            at_most=self.at_most if self.emits_many else None,
            gather=self.gather,
            branches=self.branches,
            knobs=tuple(Knob(name=name, choices=(value,)) for name, value in self.knobs),
            cpus=(self.deployment.allocation.cpus,),
            batch_sizes=(self.batch_size,),
        )


def route(query: str, *steps: StageSpec) -> Route:
    """Return a route from and to the site `home`."""
    consumed = {producer for step in steps for producer in step.flow.parents}
    has_fan_outs = any(step.emits_many or step.branches for step in steps)
    knobs = {step.operator: KnobValues(step.knobs) for step in steps}
    return Route(
        query=query,
        pipeline=PIPELINE,
        source="home",
        stages=tuple(
            RouteStage(
                step.operator,
                step.flow.parents,
                step.deployment,
                _prefix(step, steps, knobs),
                flow=step.flow if has_fan_outs else None,
            )
            for step in steps
        ),
        sinks=tuple(step.operator for step in steps if step.operator not in consumed),
    )


def split_route(query: str, *parts: tuple[float, Sequence[StageSpec]]) -> Route:
    """Return a route with the share and the stages of each part, whose sinks are equal."""
    routes = [route(query, *steps) for _, steps in parts]
    _, *others = (RouteShare(share, part.stages) for (share, _), part in zip(parts, routes, strict=True))
    return replace(routes[0], others=tuple(others))


def limited(given: Route, latest_start_s: float | None, *, drops: bool = False) -> Route:
    """Return a route with one latest start for all stages."""
    stages = tuple(replace(stage, latest_start_s=latest_start_s) for stage in given.stages)
    return replace(given, stages=stages, late=LatePolicy.DROP if drops else LatePolicy.ANSWER)


def state(routes: Sequence[Route], steps: Sequence[StageSpec], mode: Mode = Mode.REAL) -> DesiredState:
    """Return a desired state with the deployments of `steps` and with `routes`."""
    return DesiredState(
        mode=mode,
        infrastructure=infrastructure(),
        deployments=tuple(step.desired for step in steps),
        routes=tuple(routes),
        module_paths=(),
    )


def chain(query: str, *steps: StageSpec) -> DesiredState:
    """Return a desired state with one query over all `steps`."""
    return state([route(query, *steps)], steps)


def recorded(store: Path) -> tuple[DesiredState, Recordings]:
    """Record a pipeline of two operators into `store`, and return a state that replays it as query `q`.

    The route is split: the first operator runs in both pools.
    """
    steps = (
        StageSpec("first", "add", knobs=(("amount", 1),), pool="far", batch_size=4),
        StageSpec("second", "process_id", after=("first",), replicas=2),
    )
    recordings = _record(store, steps, DatasetSpec(uses=f"{_MODULE}:number_items", held_out=0.5), items_count=4)
    first, second = steps
    near = replace(first, pool="near")
    replayed = split_route("q", (0.5, steps), (0.5, (near, second)))
    return replace(state([replayed], [first, near, second], Mode.REPLAY), recordings=store), recordings


def recorded_fan_out(store: Path, *steps: StageSpec) -> tuple[DesiredState, Recordings]:
    """Record a pipeline that takes lists into `store`, and return a state that replays it as query `q`."""
    recordings = _record(store, steps, DatasetSpec(uses=f"{_MODULE}:list_items", held_out=0.5))
    return replace(state([route("q", *steps)], steps, Mode.REPLAY), recordings=store), recordings


def _record(
    store: Path, steps: Sequence[StageSpec], dataset: DatasetSpec, items_count: int | None = None
) -> Recordings:
    pipeline = Pipeline(
        name=PIPELINE,
        operators=tuple(step.specification for step in steps),
        metric=MetricSpec(name="exact match", uses=f"{_MODULE}:exact_match"),
        dataset=dataset,
    )
    specification = Specification(pipelines={PIPELINE: pipeline}, infrastructure=infrastructure(), queries=())
    configuration = Configuration.of({step.operator: KnobValues(step.knobs) for step in steps})
    return record_for_replay(specification, PIPELINE, store, configurations=[configuration], items_count=items_count)


def _prefix(step: StageSpec, steps: Sequence[StageSpec], knobs: dict[str, KnobValues]) -> Configuration:
    by_name = {stage.operator: stage for stage in steps}
    lineage: dict[str, KnobValues] = {}
    pending = [step.operator]
    while pending:
        operator = pending.pop()
        lineage[operator] = knobs[operator]
        pending.extend(by_name[operator].flow.parents)
    return Configuration.of(lineage)
