from __future__ import annotations

import pytest
from printed import printed

from circinus.estimation import ReplicaDemand
from circinus.matching import SizedDeployment, match
from circinus.planning import Frontier
from circinus.reporting.plan_table import deployment_table, distinct_plan_texts, plan_table, plan_text
from circinus.specification import Allocation, Deployment, KnobValues, Query
from random_matchings import candidate, deployment, infrastructure, reestimate, use

INFRA = infrastructure([("edge", 1, 4.0, 16.0, 1.0)])


@pytest.mark.parametrize(
    ("cpus", "batch_size", "text"),
    [
        (1.0, 1, "edge: hear 5 tiny"),
        (2.0, 1, "edge: hear 5 tiny (2 CPUs)"),
        (1.0, 4, "edge: hear 5 tiny (batch 4)"),
        (0.5, 8, "edge: hear 5 tiny (0.5 CPUs, batch 8)"),
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


def test_more_than_two_knobs_are_shown_with_their_names() -> None:
    knobs = KnobValues.of({"model": "tiny", "beam": 5, "filter": False})
    found = candidate("q", [use(Deployment("p", "hear", knobs, "edge", Allocation(1.0, 1, 0.5)), 0.5, INFRA)])
    assert plan_text(found.plan, found.estimate) == "edge: hear beam=5 filter=False model=tiny"


def test_plans_that_differ_in_utilization_only_show_it() -> None:
    busy, idle, other = (
        candidate("q", [use(deployment(operator, 0, "edge", target=target), 0.5, INFRA)])
        for operator, target in (("a", 0.7), ("a", 0.4), ("b", 0.7))
    )
    texts = distinct_plan_texts([(plan.plan, plan.estimate) for plan in (busy, idle, other)])
    assert len(set(texts)) == 3
    assert ["70%" in texts[0], "40%" in texts[1]] == [True, True]
    assert texts[2] == plan_text(other.plan, other.estimate)
