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


@pytest.mark.parametrize(
    ("plan", "amount"),
    [
        (changed(PLAN, busy_replicas=-0.1), "-0.1"),
        (changed(PLAN, busy_replicas=math.nan), "nan"),
        (changed(PLAN, demand=replace(PLAN.deployments[0].demand, memory_bytes=-1.0)), "-1.0"),
        (changed(PLAN, demand=replace(PLAN.deployments[0].demand, cpus=math.inf)), "inf"),
        (replace(PLAN, transfer_cost_usd_per_h=math.nan), "nan"),
    ],
)
def test_amounts_must_be_numbers(plan: PlanCandidate, amount: str) -> None:
    with raises_code(PlanningError, "planning.invalid_number") as caught:
        build_problem([QUERY], {"q": [plan]}, INFRA)
    assert amount in caught.value.message
    assert caught.value.location.startswith("query q")


def test_pools_must_exist() -> None:
    plan = candidate("q", [replace(PLAN.deployments[0], deployment=deployment("a", 0, "moon"))])
    with raises_code(PlanningError, "plan.unknown_pool") as caught:
        build_problem([QUERY], {"q": [plan]}, INFRA)
    assert caught.value.location.startswith("deployment p/a")


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
