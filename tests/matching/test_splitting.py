"""Division of requests among plans, against a mixed-integer program of the whole problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.possible.workers import UNFITTED, Workers

from budget import HANG_LIMIT_S, seeds
from circinus.matching import Incumbent, plan_all_queries
from circinus.specification import Query, Tenant
from circinus.testing.random_instances import random_specification

PATIENT = replace(UNFITTED, time_limit_s=HANG_LIMIT_S)


@pytest.mark.parametrize("seed", seeds(16))
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
