"""Changes touch what they concern, and what runs stays unless enough is gained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.matching.incremental_rematch import rematch
from benchmarks.matching.refined_search import solve_refined
from benchmarks.workloads.random.small_matchings import best_of_all, small
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import HANG_LIMIT_S, examples, seeds
from circinus.matching.lagrangian import RelaxedProblem, solve_relaxed
from circinus.matching.solvers.highs import solve_milp
from random_fluid import crowd

SEEDS = st.integers(0, 10**6)
EVERYTHING = {"sites": 8, "local": 2, "shared": 2}


def _without_plans(problem: RelaxedProblem, gone: np.ndarray) -> RelaxedProblem:
    """(C, P) plans that are not there any more."""
    return replace(
        problem,
        cost_usd_per_h=np.where(gone, np.inf, problem.cost_usd_per_h),
        amounts=np.where(gone[:, :, None], 0.0, problem.amounts),
    )


@pytest.mark.slow
@settings(max_examples=examples(32))
@given(SEEDS)
def test_where_nothing_changes_nothing_changes(seed: int) -> None:
    problem = crowd(np.random.default_rng(seed), 400, load=3.0, **EVERYTHING)
    answer = solve_relaxed(problem)
    found = rematch(answer, problem, np.arange(400))
    assert not len(found.changed)
    assert found.answer.weight >= answer.weight
    assert found.answer.weight_bound >= found.answer.weight


@pytest.mark.slow
@settings(max_examples=examples(32))
@given(SEEDS)
def test_a_lost_site_concerns_its_own_queries_alone(seed: int) -> None:
    problem = crowd(np.random.default_rng(seed), 400, load=3.0, **EVERYTHING)
    answer = solve_relaxed(problem)
    lost = (problem.site == 3)[:, None] & (problem.amounts[:, :, :2] > 0).any(axis=2)
    found = rematch(answer, _without_plans(problem, lost), np.arange(400)).answer
    assert found.problem.usage_of(found.chosen).max() <= 1.0 + 1e-6
    assert set(problem.site[np.flatnonzero((found.chosen != answer.chosen) & (answer.chosen >= 0))]) <= {3}


@settings(max_examples=examples(32))
@given(SEEDS)
def test_queries_that_come_bring_no_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = crowd(rng, 300, load=3.0)
    ran = np.sort(rng.choice(300, 250, replace=False))
    answer = solve_relaxed(problem.part(ran))
    came_from = np.full(300, -1)
    came_from[ran] = np.arange(250)
    found = rematch(answer, problem, came_from)
    assert found.answer.problem.usage_of(found.answer.chosen).max() <= 1.0 + 1e-6
    assert found.answer.weight - answer.weight >= -1e-6


@settings(max_examples=examples(64))
@given(SEEDS)
def test_queries_that_leave_make_room_for_others(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = crowd(rng, 200, load=4.0)
    answer = solve_relaxed(problem)
    stay = np.flatnonzero(rng.random(200) < 0.5)
    found = rematch(answer, problem.part(stay), stay)
    kept = answer.chosen[stay]
    assert found.answer.weight >= problem.weight[stay][kept >= 0].sum() - 1e-9
    assert found.answer.weight_gap < 0.05


@pytest.mark.parametrize("seed", seeds(200))
def test_its_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = small(rng)
    answer = solve_refined(problem, minimise=solve_milp, time_limit_s=HANG_LIMIT_S)
    changed = replace(problem, amounts=problem.amounts * rng.choice([0.7, 1.0, 1.5], problem.amounts.shape[2]))
    found = rematch(answer, changed, np.arange(len(answer.chosen))).answer
    weight, cost = best_of_all(changed)
    assert found.problem.usage_of(found.chosen).max(initial=0.0) <= 1.0 + 1e-6
    assert found.weight <= weight + 1e-9 <= found.weight_bound + 2e-9
    if found.weight == pytest.approx(weight):
        assert found.cost_bound_usd_per_h <= cost + 1e-6


def test_from_nothing_and_to_nothing() -> None:
    problem = crowd(np.random.default_rng(0), 10, shared=3)
    nothing = solve_relaxed(problem.part(np.zeros(0, dtype=np.int64)))
    begun = rematch(nothing, problem, np.full(10, -1))
    assert begun.answer.weight > 0
    ended = rematch(begun.answer, problem.part(np.zeros(0, dtype=np.int64)), np.zeros(0, dtype=np.int64))
    assert (ended.answer.weight, ended.answer.weight_bound, len(ended.changed)) == (0.0, 0.0, 0)


def test_a_wider_site_lets_others_in() -> None:
    amounts = np.array([[[0.6]], [[1.2]]])
    before = RelaxedProblem(np.ones(2), np.array([1.0, 3.0]), np.ones((2, 1)), amounts, np.zeros(2, dtype=int), 1, 1)
    answer = solve_relaxed(before)
    assert answer.chosen.tolist() == [0, -1]
    found = rematch(answer, replace(before, amounts=amounts * 0.75), np.arange(2))
    assert found.answer.chosen.tolist() == [-1, 0]
