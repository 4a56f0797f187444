"""Plans and utilization targets that are fitted to the load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.possible.fitted_plans import lone_queries
from benchmarks.possible.sizes import instance
from rich.console import Console

from budget import HANG_LIMIT_S, share_of
from circinus.matching import Incumbent, MatchSettings, plan_all_queries
from circinus.testing.random_instances import random_specification

PATIENT = MatchSettings(time_limit_s=HANG_LIMIT_S)


def test_lone_queries_get_their_cheapest_plan() -> None:
    """Some cost several times as much on plans at utilization targets."""
    figures, _ = lone_queries(6, Console(quiet=True))
    value = {figure.name: figure.value for figure in figures}
    assert value["lone queries served"] == 1.0
    assert value["lone queries: cost over the optimum, worst"] == pytest.approx(1.0)
    assert value["lone queries at targets only, worst"] > 2.0


@pytest.mark.parametrize("seed", [3, 15][: share_of(4)])
def test_fitted_plans_cost_no_more_and_keep_all_promises(seed: int) -> None:
    specification, profiles = random_specification(seed, queries=6)
    unfitted, fitted = (
        plan_all_queries(specification, profiles, settings=settings, explain_rejections=())[0]
        for settings in (replace(PATIENT, fits_targets=False), PATIENT)
    )
    key = fitted.satisfied_weight, -fitted.cost_usd_per_h
    assert key >= (unfitted.satisfied_weight, -unfitted.cost_usd_per_h - 1e-9)
    slos = {query.name: query.slos for query in specification.queries}
    limit = specification.required_infrastructure.utilization_limit
    for assignment in fitted.assignments:
        assert not assignment.chosen.estimate.violations(slos[assignment.query], sized=True)
    assert all(sized.utilization <= limit + 1e-9 for sized in fitted.deployments)
    dear = Incumbent.of(fitted, change_usd_per_h=1e6)
    again, _ = plan_all_queries(specification, profiles, settings=PATIENT, explain_rejections=(), incumbent=dear)
    assert {a.query: a.chosen.plan for a in again.assignments} == {a.query: a.chosen.plan for a in fitted.assignments}


def test_plans_that_are_built_up_stay_within_the_utilization_limit() -> None:
    specification, profiles = instance(5)
    infrastructure = specification.required_infrastructure.model_copy(
        update={"utilization_targets": (0.5,), "max_utilization": 0.5}
    )
    limited = replace(specification, infrastructure=infrastructure)
    matching, _ = plan_all_queries(limited, profiles, settings=PATIENT, explain_rejections=())
    assert matching.assignments
    plans = [assignment.chosen.plan for assignment in matching.assignments]
    assert all(d.allocation.utilization_target <= 0.5 for plan in plans for d in plan.deployments)
