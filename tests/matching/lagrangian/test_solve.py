"""Whole answers against enumeration; what they promise against what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.matching.restricted_milp import choose_best_plans
from benchmarks.workloads.random.small_matchings import best_of_all, small
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import half_share_of, seeds
from circinus.matching.lagrangian import RelaxedProblem, RelaxedSolution, solve_relaxed
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.local_search import swap_search
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.primal_rounding import (
    ReducedProfits,
    greedy_fill,
    repair_overload,
    round_fractional,
)
from circinus.matching.lagrangian.solve import tighten_weight_bound
from random_fluid import crowd

SEEDS = st.integers(0, 10**6)


def _fits(answer: RelaxedSolution) -> bool:
    problem = answer.problem
    served = np.flatnonzero(answer.chosen >= 0)
    listed = np.isfinite(problem.cost_usd_per_h[problem.class_of[served], answer.chosen[served]])
    return bool(listed.all()) and problem.usage_of(answer.chosen).max(initial=0.0) <= 1.0 + 1e-6


@given(SEEDS, st.booleans())
def test_without_an_exact_model_it_fits_and_the_bounds_hold(seed: int, single: bool) -> None:
    problem = small(np.random.default_rng(seed))
    problem = replace(problem, amounts=problem.amounts.astype(np.float32)) if single else problem
    answer = solve_relaxed(problem)
    weight, cost = best_of_all(problem)
    assert _fits(answer)
    assert answer.weight <= weight + 1e-9
    assert answer.weight_bound >= weight - 1e-6
    if answer.weight == pytest.approx(weight):
        assert answer.cost_bound_usd_per_h <= cost + 1e-6


@settings(max_examples=half_share_of(36))
@given(SEEDS, st.sampled_from([0.3, 1.0, 3.0, 8.0]), st.sampled_from([(1, 0), (6, 2)]))
def test_a_crowd_is_served_nearly_as_well_as_could_be(seed: int, load: float, where: tuple[int, int]) -> None:
    problem = crowd(np.random.default_rng(seed), 3000, load=load, sites=where[0], local=where[1])
    answer = solve_relaxed(problem)
    assert _fits(answer)
    assert 0 <= answer.weight_gap < (0.002 if where[0] == 1 else 0.01)
    assert answer.cost_bound_usd_per_h <= answer.cost_usd_per_h
    if load == 0.3:  # capacities hardly bind: everybody is served for the least
        assert answer.weight == answer.weight_bound == problem.total_weight
        assert answer.cost_gap < 0.01


@settings(max_examples=half_share_of(64))
@given(SEEDS)
def test_a_class_is_its_queries(seed: int) -> None:
    """Dual prices of classes are those of their single queries, and so is what is served, about."""
    rng = np.random.default_rng(seed)
    single = crowd(rng, 30, load=1.0)
    classes = replace(single, multiplicity=np.full(30, 10.0), amounts=single.amounts / 10)
    rows = np.repeat(np.arange(30), 10)
    written_out = replace(classes.part(rows), multiplicity=np.ones(300))
    of_classes, of_queries = (solve_relaxed(found) for found in (classes, written_out))
    assert len(of_classes.chosen) == len(of_queries.chosen) == 300
    assert of_classes.weight_bound == pytest.approx(of_queries.weight_bound, rel=0.01)
    assert of_classes.weight >= 0.95 * of_queries.weight


@given(SEEDS)
def test_every_step_keeps_what_fits_and_loses_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = crowd(rng, 200, load=4.0, sites=3, local=1)
    objective, problem = DualObjective(1.0, 1e-4), problem
    regrets = ReducedProfits.at(problem, objective, solve_lp_prices(problem, objective).prices)
    eased = repair_overload(problem, regrets, choose_best_plans(problem, regrets))
    assert problem.usage_of(eased).max() <= 1.0 + 1e-6
    filled = greedy_fill(problem, regrets, eased)
    assert problem.usage_of(filled).max() <= 1.0 + 1e-6
    assert problem.weight_of(filled) >= problem.weight_of(eased)
    exchanged = swap_search(problem, regrets, filled, objective)
    assert problem.usage_of(exchanged).max() <= 1.0 + 1e-6
    filled_value, value = (
        problem.weight_of(chosen) - objective.cost * problem.cost_usd_per_h_of(chosen) for chosen in (filled, exchanged)
    )
    assert value >= filled_value


def test_an_exchange_finds_what_single_moves_do_not() -> None:
    """The light query holds the place; it leaves, or goes where nobody else can."""
    amounts = np.array([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    for costs, expected in (([1.0, 1.0], [1, 0]), ([1.0, np.inf], [-1, 0])):
        problem = RelaxedProblem(
            np.ones(2), np.array([1.0, 2.0]), np.array([costs, [1.0, 1.0]]), amounts, np.zeros(2, dtype=int), 1, 0
        )
        objective = DualObjective(1.0, 1e-3)
        regrets = ReducedProfits.at(problem, objective, solve_lp_prices(problem, objective).prices)
        found = swap_search(problem, regrets, np.array([0, -1]), objective)
        assert found.tolist() == expected


def _alike(seed: int) -> RelaxedProblem:
    """Fifty queries of each of sixty kinds, on three sites; half of the resources are taken as others are."""
    rng = np.random.default_rng(seed)
    drawn = crowd(rng, 60, plans=12, local=3, shared=6, sites=3, load=12.0)
    amounts = drawn.amounts / 50
    amounts[:, :, 6:] = amounts[:, :, 3:6] * rng.uniform(0.9, 1.0, 3)
    return replace(drawn, amounts=amounts, multiplicity=rng.integers(20, 80, 60).astype(float))


@pytest.mark.parametrize("seed", seeds(8))
def test_queries_that_are_alike_are_divided_over_plans(seed: int) -> None:
    answer = solve_relaxed(_alike(seed))
    assert _fits(answer)
    assert answer.weight < _alike(seed).total_weight
    assert answer.weight_gap <= 0.005


def test_shares_of_a_class_become_whole_queries() -> None:
    problem = replace(crowd(np.random.default_rng(0), 3, plans=2), multiplicity=np.array([4.0, 1.0, 5.0]))
    taken = np.array([[1.5, 1.5], [0.3, 0.4], [0.0, 5.0]])
    assert round_fractional(problem, taken).tolist() == [0, 0, 1, -1, 1, 1, 1, 1, 1, 1]


def test_prices_are_what_binds() -> None:
    rng = np.random.default_rng(0)
    problem = crowd(rng, 500, shared=3, load=15.0)
    amounts = problem.amounts.copy()
    amounts[:, :, 1] *= 0.01
    answer = solve_relaxed(replace(problem, amounts=amounts))
    assert answer.prices.shared[1] == pytest.approx(0.0, abs=1e-6)
    assert answer.prices.shared[[0, 2]].min() > 0.01


def test_nothing_to_serve() -> None:
    empty = small(np.random.default_rng(0)).part(np.array([], dtype=np.int64))
    answer = solve_relaxed(empty)
    assert (answer.weight, answer.weight_bound, len(answer.chosen)) == (0.0, 0.0, 0)
    none = replace(empty, multiplicity=np.ones(1), weight=np.ones(1), cost_usd_per_h=np.full((1, 2), np.inf),
                   amounts=np.zeros((1, 2, 1)), site=np.zeros(1, dtype=np.int64), local=0, sites=1)  # fmt: skip
    answer = solve_relaxed(none)
    assert (answer.weight, answer.weight_bound, answer.chosen.tolist()) == (0.0, 0.0, [-1])


def test_a_light_query_is_served_beside_a_heavy_one() -> None:
    problem = RelaxedProblem(
        np.ones(2), np.array([1e6, 1.0]), np.ones((2, 1)), np.full((2, 1, 1), 0.1), np.zeros(2, dtype=int), 1, 0
    )
    assert solve_relaxed(problem).chosen.tolist() == [0, 0]


def test_a_resource_that_is_full_to_rounding_keeps_nobody_from_others() -> None:
    amounts = np.zeros((12, 1, 2))
    amounts[:10, 0, 0], amounts[10:, 0, 1] = 0.10000001, 0.4
    problem = RelaxedProblem(np.ones(12), np.ones(12), np.ones((12, 1)), amounts, np.zeros(12, dtype=int), 1, 0)
    assert (solve_relaxed(problem).chosen == 0).all()


def test_bounds_of_single_precision_hold_where_everybody_fits() -> None:
    for seed in seeds(20):
        rng = np.random.default_rng(seed)
        amounts = rng.uniform(0.5, 1.0, (100, 1, 3)).astype(np.float32)
        amounts /= amounts.sum(axis=0) * np.float32(1.0000001)
        problem = RelaxedProblem(np.ones(100), np.ones(100), np.ones((100, 1)), amounts, np.zeros(100, dtype=int), 1, 0)
        for price in (0.0, 20.0, 70.0):
            assert (
                tighten_weight_bound(
                    problem, dual_bound(problem, DualObjective(1.0, 0.0), Prices(np.zeros((1, 0)), np.full(3, price)))
                )
                == 100
            )
