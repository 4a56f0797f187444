"""Specification with a matching for it, and a fake engine with a configurable service time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from circinus.estimation import Estimate, PlanCandidate, ReplicaDemand
from circinus.matching import Assignment, Matching, Rejection, SizedDeployment
from circinus.operators import Item
from circinus.serving import Request
from circinus.specification import (
    Allocation,
    Configuration,
    DatasetSpec,
    HardwareClass,
    Infrastructure,
    KnobValues,
    Link,
    MetricSpec,
    OperatorSpec,
    Pipeline,
    PlanShare,
    Pool,
    Query,
    QueryPlan,
    Site,
    Slos,
    Specification,
)
from circinus.statistics.interval import Interval
from circinus.testing.fake_engine import FakeEngine

MODULE = "circinus.testing.operators"
ITEMS = [Item(f"number-{value}", float(value), float(value + 1)) for value in range(10)]


def pipeline(name: str = "p") -> Pipeline:
    """Return a pipeline of one operator, scored 1 for the right answer."""
    return Pipeline(
        name=name,
        operators=(OperatorSpec(name="add", uses=f"{MODULE}:add", cpus=(0.1,)),),
        metric=MetricSpec(name="equal", uses=f"{MODULE}:exact_match"),
        dataset=DatasetSpec(uses=f"{MODULE}:numbers"),
    )


def query(name: str, rate_per_s: float = 10.0, weight: float = 1.0, slos: Slos | None = None) -> Query:
    return Query(name=name, pipeline="p", source="home", rate_per_s=rate_per_s, weight=weight, slos=slos or Slos())


def infrastructure() -> Infrastructure:
    return Infrastructure(
        name="i",
        sites=(Site(name="home"), Site(name="center")),
        pools=(
            Pool(
                name="far",
                site="center",
                tier="cloud",
                cpus=1.0,
                memory_bytes=2.0**30,
                hardware=HardwareClass(name="slow", relative_speed=0.5),
            ),
        ),
        links=(
            Link(source="home", target="center", bandwidth_bytes_per_s=1e6, round_trip_s=0.0, price_usd_per_gb=2.0),
        ),
    )


PLAN = QueryPlan(
    pipeline="p",
    configuration=Configuration.of({"add": KnobValues()}),
    placement=(("add", "far"),),
    allocations=(("add", Allocation(0.1, 1, 0.5)),),
)


def estimate() -> Estimate:
    return Estimate(95.0, Interval(0.1, 0.05, 0.2), Interval(1.0, 0.9, 1.0), Interval(0.5, 0.1, 1.0), (), 0.0)


def matching(served: list[str], rejected: list[str] | None = None) -> Matching:
    """Return a matching whose served queries share one deployment of three replicas at $0.2 an hour each."""
    sized = SizedDeployment(PLAN.deployment_of("add"), ReplicaDemand(0.1, 2.0**20, 0, 0, 0.2), (0, 0, 0), 0.3)
    return Matching(
        assignments=tuple(
            Assignment(name, PlanCandidate(name, PLAN, estimate(), (), (), 0.0), reason="test") for name in served
        ),
        rejections=tuple(Rejection(name, "no room", ("pool far: cpus",), None) for name in rejected or []),
        deployments=(sized,),
        satisfied_weight=float(len(served)),
        total_weight=float(len(served) + len(rejected or [])),
        cost_usd_per_h=0.6,
        weight_bound=float(len(served)),
        optimal=True,
        cost_bound_usd_per_h=0.6,
    )


OTHER_PLAN = replace(
    PLAN,
    configuration=Configuration.of({"add": KnobValues.of({"amount": 2})}),
    allocations=(("add", Allocation(0.2, 1, 0.5)),),
)


def split_matching(served: list[str]) -> Matching:
    """Return a matching that splits every query: a quarter of the requests takes a deployment of $1.2 an hour."""
    given = matching(served)
    plan = QueryPlan.split([PlanShare(0.75, PLAN), PlanShare(0.25, OTHER_PLAN)])
    other = SizedDeployment(OTHER_PLAN.deployment_of("add"), ReplicaDemand(0.2, 2.0**20, 0, 0, 1.2), (0,), 0.3)
    assignments = []
    for assignment in given.assignments:
        parts = tuple(replace(assignment.chosen, plan=part.plan) for part in plan.parts)
        assignments.append(replace(assignment, chosen=replace(assignment.chosen, plan=plan, parts=parts)))
    return replace(given, assignments=tuple(assignments), deployments=(*given.deployments, other))


def part_in_turns(request: Request) -> int:
    """Return the index of a part: every fourth item takes the second one."""
    return int(int(request.item_key.rpartition("-")[2]) % 4 == 3)


def specification(*queries: Query) -> Specification:
    return Specification(pipelines={"p": pipeline()}, infrastructure=infrastructure(), queries=queries)


@dataclass
class ObedientEngine(FakeEngine):
    """Engine that adds 1, as the operator `add` of the pipeline does."""

    answer: Callable[[Request], float] = lambda request: request.value + 1.0
    stage: str = "add"
