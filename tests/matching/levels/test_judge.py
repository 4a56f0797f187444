"""Verdicts are those of estimates, costs and packings of the matching at the same replicas."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from circinus.errors import PlanningError
from circinus.estimation import QueryEstimators, merge_loads
from circinus.matching.feasibility import capacity_violation
from circinus.matching.levels.judge import PlanJudge
from circinus.matching.pool_packing import pack_pools
from circinus.matching.problem import meets_cost_slo
from circinus.matching.problem_builder import build_problem
from circinus.specification import Network
from circinus.testing.random_instances import random_specification
from planning_instances import Instance, all_plans


@pytest.mark.parametrize("seed", range(12))
def test_a_verdict_is_that_of_the_matching(seed: int) -> None:
    specification, profiles = random_specification(seed, queries=1, operators=2)
    (query,), (pipeline,), (profile,) = specification.queries, specification.pipelines.values(), profiles.values()
    infrastructure = specification.required_infrastructure
    network = Network(infrastructure)
    measured = {c.configuration: c for c in profile.configurations}
    estimators, judged = QueryEstimators(query, pipeline, network), 0
    for plan in islice(all_plans(Instance(query, pipeline, profile, network)), 0, 400, 7):
        try:
            candidate = estimators.candidate(plan, measured.__getitem__)
        except PlanningError:
            continue  # no path, or links that must not carry it
        compiled = estimators.of(measured[plan.configuration]).compiled(plan)
        problem = build_problem([query], {query.name: [candidate]}, infrastructure)
        usage = problem.usage_of(np.array([0]))
        replicas = dict(zip(problem.deployments, usage.replicas.tolist(), strict=True))
        estimate = estimators.candidate(plan, measured.__getitem__, merge_loads((candidate,), replicas)).estimate
        bound_s, judged = estimate.latency_s.upper, judged + 1
        for factor in (0.98, 1.02):
            latency = query.slos.latency.model_copy(update={"limit_s": bound_s * factor})
            limited = query.model_copy(update={"slos": query.slos.model_copy(update={"latency": latency})})
            verdict = PlanJudge([limited], infrastructure).verdict({query.name: compiled}, replicas)
            assert verdict.late == ({query.name: pytest.approx(1 / factor)} if factor < 1 else {})
            assert verdict.cost_usd_per_h == pytest.approx(usage.cost_usd_per_h)
            cost, share = query.slos.cost, problem.cost_share_usd_per_h(0, usage)
            assert (not verdict.dear) == (cost is None or bool(meets_cost_slo(share, cost.limit_usd_per_h)))
            fits = np.all(usage.rows <= problem.rows.limit * (1 + 1e-9)) and np.all(
                usage.replicas <= problem.max_replicas
            )
            if capacity_violation(problem, usage) is None or not fits:
                assert (not verdict.unpacked) == (bool(fits) and not pack_pools(problem, usage)[1])
    assert judged
