from __future__ import annotations

from dataclasses import replace

import pytest
from fixed_plan import DIVIDED, INFRASTRUCTURE, MATCHING, ON_TABLET, OPERATORS, plan
from printed import printed

from circinus.estimation import ReplicaDemand
from circinus.matching import ShadowPrice, SizedDeployment, match
from circinus.planning import Frontier
from circinus.reporting.plan_table import deployment_table, plan_table
from circinus.reporting.plan_text import part_texts, plan_differences, plan_text, split_text
from circinus.reporting.resource_use import use_table
from circinus.specification import Allocation, Deployment, KnobValues, PlanShare, Query, QueryPlan
from random_matchings import candidate, deployment, infrastructure, reestimate, use

INFRA = infrastructure([("edge", 1, 4.0, 16.0, 1.0), ("far", 1, 4.0, 16.0, 2.0)])


@pytest.mark.parametrize(
    ("cpus", "batch_size", "text"),
    [
        (1.0, 1, "edge: hear beam=5 model=tiny"),
        (2.0, 1, "edge: hear beam=5 model=tiny (2 CPUs)"),
        (1.0, 4, "edge: hear beam=5 model=tiny (1 CPU, batch 4)"),
        (0.5, 8, "edge: hear beam=5 model=tiny (0.5 CPUs, batch 8)"),
    ],
)
def test_a_plan_shows_its_replicas_where_they_are_not_plain(cpus: float, batch_size: int, text: str) -> None:
    knobs = KnobValues.of({"model": "tiny", "beam": 5})
    deployed = Deployment("p", "hear", knobs, "edge", Allocation(cpus, batch_size, 0.5))
    found = candidate("q", [use(deployed, 0.5, INFRA)])
    assert plan_text(found.plan, found.estimate) == text


def test_values_that_look_like_markup_are_printed_as_they_are() -> None:
    deployed = Deployment("p", "hear", KnobValues.of({"stop": "[red]"}), "edge", Allocation(1.0, 1, 0.5))
    found = candidate("q", [use(deployed, 0.5, INFRA)])
    query = Query(name="q", pipeline="p", source="home", rate="1/s")
    matching = match({"q": Frontier(query, (found,), {}, (), (), "")}, INFRA, reestimate)
    assert "[red]" in printed(plan_table(matching, {"q": query}, {"q": "[red]"}))
    assert "p/hear(stop=[red])" in printed(deployment_table(matching.deployments))


def test_deployments_say_how_long_a_further_replica_takes_to_start() -> None:
    allocation = Allocation(1.0, 1, 0.5)
    demand = ReplicaDemand(1.0, 2.0**29, 0.0, 0.0, 0.25)
    measured, unmeasured = (
        SizedDeployment(Deployment("p", name, KnobValues(), "edge", allocation), demand, (0,), 0.5, startup_s)
        for name, startup_s in (("measured", 2.5), ("unmeasured", None))
    )
    rows = {line.split()[0]: line for line in printed(deployment_table((measured, unmeasured))).splitlines()[2:]}
    assert ["2.5 s" in rows[f"p/{name}"] for name in ("measured", "unmeasured")] == [True, False]


def test_equal_replicas_are_written_once() -> None:
    uses = [use(deployment(operator, 0, "edge", cpus=2.0), 0.5, INFRA) for operator in ("a", "b")]
    found = candidate("q", uses)
    assert plan_text(found.plan, found.estimate) == "edge: a k=0, b k=0 (each 2 CPUs)"


def test_differing_utilization_targets_are_shown() -> None:
    base, *others = (
        candidate("q", [use(deployment("a", knob, "edge", target=target), 0.5, INFRA)]).plan
        for knob, target in ((0, 0.5), (1, 0.7), (0, 0.4), (1, 0.5))
    )
    texts = plan_differences([*others, base], base, ["a"])
    assert texts == ["a k=1, target 70%", "a target 40%", "a k=1", ""]


def test_operators_with_the_same_change_are_named_together() -> None:
    base, other = (
        candidate("q", [use(deployment(operator, 0, pool, cpus), 0.5, INFRA) for operator in ("a", "b")])
        for pool, cpus in (("edge", 1.0), ("far", 2.0))
    )
    assert plan_differences([other.plan], base.plan, ["a", "b"]) == ["a, b on far, 2 CPUs"]


def test_parts_of_a_split_plan_are_named_by_what_differs_between_them() -> None:
    divided = DIVIDED.assignments[0].chosen.plan
    texts = ["lookup size=120; rank, join on tablet", "lookup size=400; rank, join on office-server"]
    assert part_texts(divided, OPERATORS) == texts
    assert split_text(divided, OPERATORS) == f"68% {texts[0]} + 32% {texts[1]}"
    assert split_text(divided, OPERATORS, of_first=False) == f"68% + 32% {texts[1]}"
    batched = QueryPlan.split(
        PlanShare(share, plan(ON_TABLET, batch_size=size)) for share, size in ((0.999, 1), (0.001, 8))
    )
    assert split_text(batched, OPERATORS) == "> 99% lookup batch 1 + < 1% lookup batch 8"


def test_changes_of_a_split_plan_are_those_of_its_largest_share() -> None:
    divided, small = DIVIDED.assignments[0].chosen.plan, plan(ON_TABLET)
    assert plan_differences([divided, small], small, OPERATORS) == [
        "68% unchanged + 32% lookup size=400; rank, join on office-server",
        "",
    ]
    others = [divided, small, plan(ON_TABLET, cpus=0.5), QueryPlan.split((PlanShare(0.5, small), *divided.others))]
    assert plan_differences(others, divided, OPERATORS) == [
        "",
        "undivided",
        "undivided; split, lookup, rank, join 0.5 CPUs",
        "61% unchanged + 39% lookup size=400; rank, join on office-server",
    ]


def test_deployments_of_one_operator_are_counted_and_never_without_their_pool() -> None:
    lookup = next(sized for sized in MATCHING.deployments if sized.deployment.operator == "lookup")
    smaller = replace(lookup, deployment=replace(lookup.deployment, knobs=KnobValues.of({"size": 20})))
    text = printed(use_table(replace(MATCHING, deployments=(lookup, smaller), prices=()), INFRASTRUCTURE))
    assert [line.split()[:2] for line in text.splitlines()[2:]] == [["tablet", "$0/h"], ["lookup", "x2"]]


def test_an_elastic_pool_shows_the_use_of_the_nodes_that_run() -> None:
    tablet, office = INFRASTRUCTURE.pools
    elastic = office.model_copy(update={"nodes": 8, "min_nodes": 0})
    infra = INFRASTRUCTURE.model_copy(update={"pools": (tablet, elastic)})
    of_most = ShadowPrice("pool office-server: cpus", "CPU", 32.0, 0.125, 0.0, 0.0)

    def shown(nodes: int) -> str:
        matching = replace(MATCHING, deployments=(), prices=(of_most,), nodes={"tablet": 1, "office-server": nodes})
        return printed(use_table(matching, infra))

    assert "50% of 8 CPUs" in shown(2)
    assert "2 of at most 8 nodes" in shown(2)
    assert "2 x $0.40/h" in shown(2)
    assert "0 of at most 8 nodes" in shown(0)
    assert "%" not in shown(0)
