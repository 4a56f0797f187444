from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from budget import seeds
from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate
from circinus.matching.problem_builder import build_problem
from circinus.specification import CostSlo, LatencySlo, Network, Query, Slos
from raised import raises_code
from random_matchings import GIB, candidate, crossing, deployment, infrastructure, packs, random_instance, use

INFRA = infrastructure([("edge", 2, 4.0, 8.0, 1.0), ("cloud", 3, 8.0, 16.0, 4.0)])
QUERY = Query(name="q", pipeline="p", source="home", rate_per_s=1.0, slos=Slos(latency=LatencySlo(limit_s=0.7)))
PLAN = candidate("q", [use(deployment("a", 0, "edge", cpus=3.0), 0.5, INFRA)])


def changed(plan: PlanCandidate, **changes: object) -> PlanCandidate:
    """The plan with its one deployment's use changed."""
    return replace(plan, deployments=(replace(plan.deployments[0], **changes),))


def test_arrays_say_what_was_given() -> None:
    link = next(link for link in Network(INFRA).links if link.name == "home->edge")
    plan = candidate(
        "q",
        [use(deployment("a", 0, "edge"), 0.5, INFRA), use(deployment("b", 0, "cloud"), 1.5, INFRA)],
        [crossing(link, 1e4), crossing(link, 2e4)],
    )
    problem = build_problem([QUERY], {"q": [plan]}, INFRA)
    assert [d.operator for d in problem.deployments] == ["a", "b"]
    assert problem.fractional_load.row(0)[1].tolist() == [0.5, 1.5]
    (at,), (volume,) = problem.traffic.row(0)
    assert problem.links[at] == "home->edge"
    assert volume == pytest.approx(3e4)
    assert problem.link_capacity_bytes_per_s[at] == pytest.approx(0.7e6)
    usage = problem.usage_of(np.array([0]))
    assert usage.replicas.tolist() == [1, 2]
    assert usage.cost_usd_per_h == pytest.approx(1 * 0.25 + 2 * 0.5)
    assert problem.max_replicas.tolist() == [8, 24]


def test_a_replica_takes_the_most_that_any_of_its_queries_expects() -> None:
    larger = changed(PLAN, demand=replace(PLAN.deployments[0].demand, memory_bytes=5 * GIB, cost_usd_per_h=2.0))
    other = replace(larger, query="r")
    queries = [QUERY, QUERY.model_copy(update={"name": "r"})]
    problem = build_problem(queries, {"q": [PLAN], "r": [other]}, INFRA)
    assert problem.demand.tolist() == [[3.0, 5 * GIB, 0.0, 0.0]]
    assert problem.price_usd_per_h.tolist() == [2.0]
    alone = build_problem(
        [QUERY], {"q": [PLAN]}, INFRA, shared_demands={u.deployment: u.demand for u in larger.deployments}
    )
    assert alone.demand.tolist() == problem.demand.tolist()


def test_capacity_rows_know_that_replicas_are_not_divided() -> None:
    """On 2 nodes of 4 CPUs at most 2 replicas of 3 CPUs go, though 8 / 3 is more."""
    problem = build_problem([QUERY], {"q": [PLAN]}, INFRA)
    most = min(
        problem.rows.limit[row] / problem.rows.coefficients[row, 0]
        for row in range(len(problem.rows.limit))
        if problem.rows.coefficients[row, 0] > 0
    )
    assert most == pytest.approx(2.0)


@pytest.mark.parametrize("seed", seeds(30))
def test_no_capacity_row_forbids_what_packs(seed: int) -> None:
    instance = random_instance(seed, queries=4)
    problem = build_problem(instance.queries, instance.candidates, instance.infrastructure)
    if not problem.deployments:
        return
    rng = np.random.default_rng(seed)
    for _ in range(20):
        replicas = rng.integers(0, 3, size=len(problem.deployments))
        if all(
            packs(
                [
                    tuple(problem.demand[d][:2] / problem.node_capacity[pool][:2])
                    for d in np.flatnonzero(problem.pool_of == pool)
                    for _ in range(replicas[d])
                ],
                int(problem.nodes[pool]),
            )
            for pool in range(len(problem.pools))
        ):
            assert np.all(problem.rows.coefficients @ replicas <= problem.rows.limit * (1 + 1e-9))


NUMBER = "planning.invalid_number"


@pytest.mark.parametrize(
    ("plan", "code", "values"),
    [
        (changed(PLAN, busy_replicas=-0.1), NUMBER, ("busy replicas", "-0.1")),
        (changed(PLAN, busy_replicas=math.nan), NUMBER, ("busy replicas", "nan")),
        (
            changed(PLAN, demand=replace(PLAN.deployments[0].demand, memory_bytes=-1.0)),
            "planning.invalid_number",
            ("memory", "-1.0"),
        ),
        (
            changed(PLAN, demand=replace(PLAN.deployments[0].demand, cpus=math.inf)),
            "planning.invalid_number",
            ("cpus", "inf"),
        ),
        (
            changed(PLAN, demand=replace(PLAN.deployments[0].demand, cost_usd_per_h=-2.0)),
            "planning.invalid_number",
            ("price", "-2.0"),
        ),
        (replace(PLAN, transfer_cost_usd_per_h=math.nan), NUMBER, ("transfer cost", "nan")),
        (replace(PLAN, deployments=PLAN.deployments * 2), "plan.duplicate_deployment", ()),
        (replace(PLAN, query="other"), "plan.wrong_query", ("other",)),
        (
            candidate("q", [use(deployment("a", 0, "edge"), 0.5, INFRA)], latency_s=0.9),
            "plan.infeasible_candidate",
            ("latency",),
        ),
        (
            candidate("q", [replace(PLAN.deployments[0], deployment=deployment("a", 0, "moon"))]),
            "plan.unknown_pool",
            ("moon", "edge, cloud"),
        ),
    ],
)
def test_candidates_without_meaning_are_refused(plan: PlanCandidate, code: str, values: tuple[str, ...]) -> None:
    with raises_code(PlanningError, code) as caught:
        build_problem([QUERY], {"q": [plan]}, INFRA)
    assert all(value in caught.value.message for value in values)
    assert caught.value.location.startswith(("query q", "deployment p/a"))


def test_names_must_be_distinct_and_known() -> None:
    with raises_code(PlanningError, "query.duplicate_name"):
        build_problem([QUERY, QUERY], {}, INFRA)
    with raises_code(PlanningError, "plan.unknown_query") as caught:
        build_problem([QUERY], {"stranger": [PLAN]}, INFRA)
    assert caught.value.location == "query stranger"


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_weights_must_be_positive_numbers(weight: float) -> None:
    with raises_code(PlanningError, "query.invalid_weight"):
        build_problem([QUERY.model_copy(update={"weight": weight})], {}, INFRA)


def test_pools_must_have_something_to_give() -> None:
    pools = (INFRA.pools[0].model_copy(update={"cpus": 0.0}), INFRA.pools[1])
    with raises_code(PlanningError, "pool.empty_node") as caught:
        build_problem([QUERY], {"q": [PLAN]}, INFRA.model_copy(update={"pools": pools}))
    assert caught.value.location == "pool edge"
    assert "cpus" in caught.value.message
    with raises_code(PlanningError, "link.invalid_usable_share"):
        build_problem([QUERY], {"q": [PLAN]}, INFRA, usable_link_share=1.5)


def test_links_must_exist() -> None:
    elsewhere = infrastructure([("moon", 1, 4.0, 8.0, 1.0)])
    plan = replace(PLAN, links=(crossing(Network(elsewhere).links[0], 1e3),))
    with raises_code(PlanningError, "plan.unknown_link") as caught:
        build_problem([QUERY], {"q": [plan]}, INFRA)
    assert "home->moon" in caught.value.message


def test_a_cost_objective_is_known_to_the_problem() -> None:
    slos = Slos(cost=CostSlo(limit_usd_per_h=3.0))
    problem = build_problem([QUERY, QUERY.model_copy(update={"name": "r", "slos": slos})], {}, INFRA)
    assert problem.cost_limit_usd_per_h.tolist() == [math.inf, 3.0]
