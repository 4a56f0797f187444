"""Sums that are kept up to date are those that are made anew."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.matching.problem import Problem
from circinus.matching.problem_builder import build_problem
from circinus.matching.solvers.greedy import IncrementalSolution, greedy, is_feasible, local_search
from random_matchings import random_instance

SEEDS = st.integers(0, 10**6)


def _problem(seed: int, queries: int = 6) -> Problem:
    instance = random_instance(seed, queries=queries, cost_slos=0.6)
    return build_problem(instance.queries, instance.candidates, instance.infrastructure)


@given(SEEDS)
def test_after_any_moves_it_is_as_if_begun_there(seed: int) -> None:
    problem, rng = _problem(seed), np.random.default_rng(seed)
    standing = IncrementalSolution(problem, np.full(6, -1, dtype=np.int64))
    for _ in range(40):
        query = int(rng.integers(6))
        options = [-1, *problem.candidates_of(query)]
        before = int(standing.chosen[query])
        assert standing.move(query, int(rng.choice(options))) == before
    fresh, kept = problem.usage_of(standing.chosen), standing.usage
    np.testing.assert_allclose(kept.fractional_load, fresh.fractional_load, atol=1e-12)
    np.testing.assert_array_equal(kept.used, fresh.used)
    np.testing.assert_array_equal(kept.replicas, fresh.replicas)
    np.testing.assert_allclose(kept.traffic_bytes_per_s, fresh.traffic_bytes_per_s, atol=1e-6)
    np.testing.assert_allclose(kept.rows, fresh.rows, rtol=1e-9, atol=1e-3)  # bytes, of 2^30 and more
    assert np.isclose(kept.cost_usd_per_h, fresh.cost_usd_per_h)
    shares = standing.shares_usd_per_h(np.arange(6))
    for query, candidate in problem.served(standing.chosen):
        assert np.isclose(shares[query], problem.cost_share_usd_per_h(candidate, fresh))
    assert (shares[standing.chosen < 0] == 0).all()


@given(SEEDS)
def test_a_query_over_its_cost_objective_is_named(seed: int) -> None:
    problem, rng = _problem(seed), np.random.default_rng(seed)
    options = [[-1, *problem.candidates_of(query)] for query in range(6)]
    chosen = np.array([rng.choice(option) for option in options], dtype=np.int64)
    standing, usage = IncrementalSolution(problem, chosen), problem.usage_of(chosen)
    expected = {
        query
        for query, candidate in problem.served(chosen)
        if problem.cost_share_usd_per_h(candidate, usage) > problem.cost_limit_usd_per_h[query] * (1 + 1e-6) + 1e-12
    }
    found = standing.cost_violations()
    assert {query for _, query in found} == expected
    assert found == sorted(found, reverse=True)


@given(SEEDS)
def test_quick_answers_keep_everything_and_improving_loses_nothing(seed: int) -> None:
    problem = _problem(seed)
    quick = greedy(problem)
    assert is_feasible(problem, quick, ())
    better = local_search(problem, quick)
    assert is_feasible(problem, better, ())
    assert IncrementalSolution(problem, better).key >= IncrementalSolution(problem, quick).key
