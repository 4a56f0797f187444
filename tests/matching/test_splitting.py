"""Division of requests among plans, against a mixed-integer program of the whole problem."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.possible.workers import UNFITTED, Workers

from budget import HANG_LIMIT_S, half_share_of, share_of
from circinus.matching import Incumbent, match, plan_all_queries, splitting
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers.split_milp import Divisibility, _rounded
from circinus.matching.solvers.split_solver import SplitSolution, solve_split
from circinus.planning import plan_queries
from circinus.specification import Query, QueryPlan, Tenant
from circinus.testing.random_instances import random_specification
from random_matchings import candidate, deployment, infrastructure, use

PATIENT = replace(UNFITTED, time_limit_s=HANG_LIMIT_S)


@pytest.mark.parametrize("seed", (0, 3, 1, 2, *range(4, 16))[: half_share_of(16)])
def test_divided_requests_are_as_good_as_possible(seed: int) -> None:
    workers = Workers.random(seed, operators=1 + seed % 2, fixed=seed % 4 == 3)
    weight, cost_usd_per_h = workers.optimum()
    matching = workers.plan(PATIENT)
    assert matching.satisfied_weight == weight
    assert matching.cost_usd_per_h == pytest.approx(cost_usd_per_h, rel=1e-6)
    assert matching.optimal
    assert matching.cost_bound_usd_per_h == pytest.approx(cost_usd_per_h, rel=1e-5)
    for assignment in matching.assignments:
        slo = {query.name: query for query in workers.queries}[assignment.query].slos.accuracy
        assert slo is not None
        assert slo.is_met_by(assignment.chosen.estimate.accuracy.lower)
        if workers.fixed:
            assert len({part.plan.deployment_of("first") for part in assignment.chosen.plan.parts}) == 1


@pytest.mark.parametrize("queries", [3, 1][: share_of(2)])
def test_a_mixture_fills_replicas_and_meets_its_accuracy_slo_exactly(queries: int) -> None:
    """Shares of 0.4, 0.44 and 0.16 fill five replicas, with a mean accuracy of 0.68; a margin takes another replica."""
    matching = Workers.published(80.0, 0.68, queries).plan(PATIENT)
    assert matching.cost_usd_per_h == pytest.approx(0.67)
    assert matching.optimal
    for assignment in matching.assignments:
        assert assignment.chosen.estimate.accuracy.lower >= 0.68 - 1e-12


@pytest.mark.parametrize("margin", [(-2e-10, -1e-10), (-0.03, 1e-9), (-0.2, 0.1)])
@pytest.mark.parametrize("share", [0.5, 2e-7])
def test_rounded_shares_are_shares(margin: tuple[float, float], share: float) -> None:
    """Also where a margin below 0 is within the solver's tolerance of that of the shares."""
    shares = _rounded(np.array([share, 1.0 - share]), np.array(margin))
    assert (shares >= 0.0).all()
    assert shares.sum() == pytest.approx(1.0, abs=1e-15)


def test_divided_requests_pack_on_nodes() -> None:
    """Their capacities would hold all six."""
    infra = infrastructure([("edge", 2, 10.0, 16.0, 1.0)])
    plans = {
        f"q{number}": [candidate(f"q{number}", [use(deployment("a", number, "edge", cpus), 0.5, infra)])]
        for number, cpus in enumerate((6.0, 3.0, 3.0, 3.0, 3.0, 2.0))
    }
    queries = [Query(name=name, pipeline="p", source="home", rate_per_s=1.0) for name in plans]
    problem = build_problem(queries, plans, infra)
    assert problem.fits(problem.usage_of(np.arange(6)))
    any_plan, no_margin = np.ones(6, dtype=bool), np.zeros(6)
    divisibility = Divisibility(any_plan, no_margin, any_plan, any_plan)
    found = solve_split(problem, divisibility, {}, limit_s=HANG_LIMIT_S, seed=0, clock=time.monotonic, proves=True)
    assert len(found.shares) == 5
    assert found.bounds.weights == (5.0,)


@pytest.mark.parametrize(("step_s", "most"), [(0.0, 20), (100.0, 1)])
def test_no_division_is_tried_after_its_time(monkeypatch: pytest.MonkeyPatch, step_s: float, most: int) -> None:
    """Each is better and refused, and the clock stands still but for the searches."""
    specification, profiles = Workers.random(0).specification()
    now_s, tried = [0.0], []

    class Refusing(PlanEstimates):
        def sized_candidate(self, query: Query, plan: QueryPlan) -> None:
            return None

    def solved(*args: Any, **options: Any) -> SplitSolution:
        tried.append(options["limit_s"])
        now_s[0] += step_s
        return solve_split(*args, **options | {"clock": time.monotonic, "limit_s": HANG_LIMIT_S})

    monkeypatch.setattr(splitting, "solve_split", solved)
    plans, clock = Refusing(specification, profiles), lambda: now_s[0]
    frontiers, infra = plan_queries(specification, profiles), specification.required_infrastructure
    match(frontiers, infra, plans.reestimate, source=plans, settings=UNFITTED, clock=clock)
    assert 1 <= len(tried) <= most
    assert (len(tried) > 1) == (step_s == 0.0)
    assert PlanEstimates(specification, profiles).parts(specification.queries, [], lambda: True) == ({}, False)


def test_a_split_plan_that_runs_stays() -> None:
    specification, profiles = random_specification(22, queries=5)
    before, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=())
    running = {assignment.query: assignment.chosen.plan for assignment in before.assignments}
    assert any(plan.is_split for plan in running.values())
    incumbent = Incumbent(running, max_changes=0)
    after, _ = plan_all_queries(specification, profiles, settings=PATIENT, incumbent=incumbent, explain_rejections=())
    assert {assignment.query: assignment.chosen.plan for assignment in after.assignments} == running


def test_a_guaranteed_share_of_a_tenant_outlasts_the_division_of_requests() -> None:
    """Undivided, only one of the two fits; divided, the heavier one of the other tenant would weigh more."""
    queries = tuple(
        Query(
            name=name, pipeline="p", source="here", rate_per_s=13.0, slos="accuracy >= 0.7", weight=weight, tenant=name
        )
        for name, weight in (("guaranteed", 1.0), ("other", 4.0))
    )
    workers = Workers(np.array([[[10.0], [5.0]]]), (0.6, 0.8), (1.0,), (4,), queries)
    specification, profiles = workers.specification()
    tenants = (Tenant(name="guaranteed", at_least=0.5), Tenant(name="other", at_least=0.0))
    infrastructure = specification.required_infrastructure.model_copy(update={"tenants": tenants})
    specification = replace(specification, infrastructure=infrastructure)
    matching, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=())
    assert matching.served == {"guaranteed"}
