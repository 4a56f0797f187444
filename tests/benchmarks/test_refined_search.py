"""The search by prices with an exact model, against enumeration."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.matching.refined_search import solve_refined
from benchmarks.workloads.random.small_matchings import best_of_all, small

from budget import HANG_LIMIT_S, share_of
from circinus.matching.solvers.highs import solve_milp


@pytest.mark.parametrize("block", range(10))
def test_small_answers_are_the_best_of_all(block: int) -> None:
    """Most weight, and the least cost of that; thousands of them at night."""
    for seed in range(200 * block, 200 * block + share_of(200)):
        problem = small(np.random.default_rng(seed))
        answer = solve_refined(problem, minimise=solve_milp, time_limit_s=HANG_LIMIT_S)
        weight, cost = best_of_all(problem)
        assert answer.problem.usage_of(answer.chosen).max(initial=0.0) <= 1.0 + 1e-6, seed
        assert answer.weight == pytest.approx(weight), seed
        assert answer.cost_usd_per_h == pytest.approx(cost), seed
        assert answer.weight_bound >= weight - 1e-9, seed
        assert answer.cost_bound_usd_per_h <= cost + 1e-9, seed
