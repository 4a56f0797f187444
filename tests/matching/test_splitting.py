"""Division of requests among plans, against a mixed-integer program of the whole problem."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.possible.workers import UNFITTED, Workers

from budget import HANG_LIMIT_S, seeds
from circinus.matching import Incumbent, MatchSettings, plan_all_queries
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
    patient = MatchSettings(time_limit_s=HANG_LIMIT_S)
    before, _ = plan_all_queries(specification, profiles, settings=patient)
    running = {assignment.query: assignment.chosen.plan for assignment in before.assignments}
    assert any(plan.is_split for plan in running.values())
    for max_changes in (None, 0):
        incumbent = Incumbent(running, max_changes=max_changes)
        after, _ = plan_all_queries(specification, profiles, settings=patient, incumbent=incumbent)
        assert {assignment.query: assignment.chosen.plan for assignment in after.assignments} == running
