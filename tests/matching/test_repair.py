"""Repairs of choices that are infeasible at the final sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circinus.estimation import MergedLoad, PlanCandidate
from circinus.matching.feasibility import repair
from circinus.matching.problem_builder import build_problem
from circinus.specification import LatencySlo, Query, Slos
from circinus.statistics.interval import Interval
from random_matchings import candidate, deployment, infrastructure, use

SLOS = Slos(latency=LatencySlo(limit_s=0.7))


@pytest.mark.parametrize("weights", [(10.0, 1.0), (1.0, 10.0)])
def test_of_queries_that_are_late_on_a_shared_deployment_the_lightest_is_dropped(weights: tuple[float, float]) -> None:
    machines, shared = infrastructure([("near", 2, 4.0, 8.0, 1.0)]), deployment("a", 0, "near")
    queries = [
        Query(name=f"q{n}", pipeline="p", source="home", rate_per_s=1.0, weight=weight, slos=SLOS)
        for n, weight in enumerate(weights)
    ]
    plans = {query.name: (candidate(query.name, [use(shared, 0.5, machines)]),) for query in queries}

    def slower(plan: PlanCandidate, conditions: MergedLoad) -> PlanCandidate:
        latency_s = Interval.exact(0.5 * conditions.deployments[shared].traffic.rate_per_s)
        return replace(plan, estimate=replace(plan.estimate, latency_s=latency_s))

    repaired = repair(build_problem(queries, plans, machines), np.array([0, 1]), [SLOS, SLOS], slower)
    assert [query for query, chosen in enumerate(repaired.chosen) if chosen >= 0] == [int(np.argmax(weights))]
