"""The exact model over the queries in doubt, by itself: what it finds, and what it proves."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.matching.restricted_milp import solve_restricted, value_of
from benchmarks.workloads.random.small_matchings import best_of_all, small

from budget import HANG_LIMIT_S, seeds
from circinus.matching.lagrangian import DualObjective, Prices, RelaxedProblem
from circinus.matching.lagrangian.dual import dual_bound
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.primal_rounding import ReducedProfits, greedy_fill, repair_overload
from circinus.matching.solvers.highs import solve_milp

WEIGHT = DualObjective(1.0, 0.0)


def _at(problem: RelaxedProblem, price: float) -> tuple[RelaxedProblem, ReducedProfits]:
    prices = Prices(np.zeros((problem.sites, problem.local)), np.full(problem.shared, price))
    return problem, ReducedProfits.at(problem, WEIGHT, prices)


def _one_plan_each(amounts: list[float], weights: list[float]) -> RelaxedProblem:
    count = len(amounts)
    return RelaxedProblem(
        np.ones(count), np.array(weights), np.ones((count, 1)), np.array(amounts)[:, None, None],
        np.zeros(count, dtype=np.int64), 1, 0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", seeds(300))
def test_from_any_choice_it_proves_the_best_of_all(seed: int) -> None:
    """Bounds here are those of the model, before anything raises them to what was found."""
    rng = np.random.default_rng(seed)
    problem = small(rng)
    prices = solve_lp_prices(problem, WEIGHT).prices
    regrets = ReducedProfits.at(problem, WEIGHT, prices)
    options = np.isfinite(problem.cost_usd_per_h)
    anything = np.array([rng.choice([-1, *np.flatnonzero(options[row])]) for row in problem.class_of], dtype=np.int64)
    begun = repair_overload(problem, regrets, anything)
    distance = dual_bound(problem, WEIGHT, prices) - value_of(problem, begun, WEIGHT) + 1e-9
    found = solve_restricted(
        problem, regrets, begun, WEIGHT, distance, solve_milp, max_undecided=1000, time_limit_s=HANG_LIMIT_S
    )
    weight, _ = best_of_all(problem)
    assert problem.usage_of(found.chosen).max(initial=0.0) <= 1.0 + 1e-6
    assert problem.weight_of(found.chosen) == pytest.approx(weight)
    assert found.bound == pytest.approx(weight, abs=1e-6)


def test_queries_that_are_not_in_doubt_may_not_have_their_best_yet() -> None:
    """The first has the place of the second, which at this price is the only good choice of both."""
    problem = _one_plan_each([0.5, 0.5, 0.5], [1.0, 3.0, 1.0])
    problem, regrets = _at(problem, 2.0)
    begun = np.array([0, -1, 0])
    distance = 2.0 + 3 * 0.0 + 2.0 - 2.0  # the bound of 2 (price) + 2 (regret of the second), less what is served
    found = solve_restricted(
        problem, regrets, begun, WEIGHT, distance, solve_milp, max_undecided=10, time_limit_s=HANG_LIMIT_S, unit=1.0
    )
    assert problem.weight_of(found.chosen) == 4.0
    assert found.bound == pytest.approx(4.0)


@pytest.mark.parametrize(("amount", "expected", "proved"), [(1.0, [0], 1.0), (1.5, [-1], 0.0)])
def test_where_nobody_is_in_doubt_the_best_of_all_is_taken_if_it_fits(
    amount: float, expected: list[int], proved: float
) -> None:
    problem, regrets = _at(_one_plan_each([amount], [1.0]), 0.3)
    found = solve_restricted(
        problem, regrets, np.array([-1]), WEIGHT, 0.0, solve_milp, max_undecided=10, time_limit_s=HANG_LIMIT_S, unit=1.0
    )
    assert found.chosen.tolist() == expected
    assert found.bound == proved


def test_what_is_left_out_is_not_proved() -> None:
    rng = np.random.default_rng(0)
    problem = _one_plan_each(rng.uniform(0.1, 0.4, 30).tolist(), [1.0] * 30)
    regrets = ReducedProfits.at(problem, WEIGHT, solve_lp_prices(problem, WEIGHT).prices)
    begun = greedy_fill(problem, regrets, np.full(30, -1, dtype=np.int64))
    found = solve_restricted(
        problem, regrets, begun, WEIGHT, 5.0, solve_milp, max_undecided=4, time_limit_s=HANG_LIMIT_S
    )
    assert problem.weight_of(found.chosen) >= problem.weight_of(begun)
    assert found.bound == np.inf


def test_a_weight_that_must_be_kept_is_kept() -> None:
    problem = _one_plan_each([0.4, 0.4, 0.4], [1.0, 1.0, 1.0])
    problem, regrets = _at(problem, 0.0)
    cheaply = DualObjective(0.0, 1.0)
    begun = np.array([0, 0, -1])
    for least, served in ((2.0, 2), (1.0, 1), (None, 0)):
        found = solve_restricted(
            problem,
            regrets,
            begun,
            cheaply,
            100.0,
            solve_milp,
            max_undecided=10,
            time_limit_s=HANG_LIMIT_S,
            min_weight=least,
        )
        assert (found.chosen >= 0).sum() == served
