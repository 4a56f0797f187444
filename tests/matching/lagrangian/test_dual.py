"""The dual against enumeration, its derivatives against differences, and its minimum against a linear programme."""

from __future__ import annotations

from dataclasses import replace

import highspy
import numpy as np
import pytest
from benchmarks.workloads.random.small_matchings import best_of_all, small
from hypothesis import given
from hypothesis import strategies as st

from budget import seeds
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound, smoothed_dual
from circinus.matching.lagrangian.dual_ascent import DualSolver
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from random_fluid import crowd, on_one_site

SEEDS = st.integers(0, 10**6)


def _prices(rng: np.random.Generator, problem: RelaxedProblem, scale: float = 1.0) -> Prices:
    return Prices(
        rng.uniform(0, scale, (problem.sites, problem.local)), rng.uniform(0, scale, problem.shared), rng.uniform(0, 2)
    )


@given(SEEDS)
def test_no_choice_is_worth_more_than_the_bound_at_any_prices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = small(rng)
    weight, cost = best_of_all(problem)
    prices = _prices(rng, problem, 3.0)
    assert dual_bound(problem, DualObjective(1.0, 0.0), replace(prices, weight=0.0)) >= weight - 1e-9
    assert -dual_bound(problem, DualObjective(0.0, 1.0, weight), prices) <= cost + 1e-9


@given(SEEDS)
def test_smoothing_raises_the_bound_by_no_more_than_the_logarithm_of_the_options(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = small(rng)
    objective, prices, temperature = DualObjective(1.0, 0.3), replace(_prices(rng, problem), weight=0.0), 0.2
    exact, smooth = dual_bound(problem, objective, prices), smoothed_dual(problem, objective, prices, temperature).value
    most = temperature * np.log(problem.cost_usd_per_h.shape[1] + 1) * problem.queries
    assert exact * (1 - 2e-6) - 1e-5 <= smooth <= exact + most + 1e-9


@given(SEEDS, st.booleans())
def test_derivatives_are_those_of_the_value(seed: int, weighing: bool) -> None:
    rng = np.random.default_rng(seed)
    problem = small(rng)
    objective = DualObjective(1.0, 0.3, 2.0 if weighing else None)
    prices = _prices(rng, problem)
    prices = prices if weighing else replace(prices, weight=0.0)
    here = smoothed_dual(problem, objective, prices, 0.5)
    step = 1e-5

    def moved(kind: str, index: tuple[int, ...], by: float) -> Prices:
        if kind == "weight":
            return replace(prices, weight=prices.weight + by)
        values = getattr(prices, kind).copy()
        values[index] += by
        return replace(prices, **{kind: values})

    places = [("local", index) for index in np.ndindex(prices.local.shape)]
    places += [("shared", (resource,)) for resource in range(problem.shared)]
    places += [("weight", ())] * weighing
    common = list(range(problem.shared)) + [problem.shared] * weighing
    for kind, index in places:
        up, down = (smoothed_dual(problem, objective, moved(kind, index, by), 0.5) for by in (step, -step))
        slope = (up.value - down.value) / (2 * step)
        second = (up.common_slope - down.common_slope) / (2 * step)
        if kind == "local":
            site, slot = index
            assert here.local_slope[site, slot] == pytest.approx(slope, abs=1e-5)
            own = (up.local_slope - down.local_slope)[site] / (2 * step)
            np.testing.assert_allclose(here.local_curvature[site, slot], own, atol=1e-4)
            np.testing.assert_allclose(here.mixed_curvature[site, slot], second, atol=1e-4)
        else:
            place = common[-1] if kind == "weight" else index[0]
            assert here.common_slope[place] == pytest.approx(slope, abs=1e-5)
            np.testing.assert_allclose(here.common_curvature[place], second, atol=1e-4)


@given(SEEDS)
def test_sites_are_nothing_but_a_shorter_way_to_write_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = crowd(rng, 40, local=2, shared=1, sites=5)
    prices = replace(_prices(rng, problem), weight=0.0)
    flat = Prices(np.zeros((1, 0)), np.concatenate([prices.local.reshape(-1), prices.shared]))
    objective = DualObjective(1.0, 0.1)
    assert dual_bound(problem, objective, prices) == pytest.approx(dual_bound(on_one_site(problem), objective, flat))
    here = smoothed_dual(problem, objective, prices, 0.3)
    there = smoothed_dual(on_one_site(problem), objective, flat, 0.3)
    assert here.value == pytest.approx(there.value)
    np.testing.assert_allclose(np.append(here.local_slope.reshape(-1), here.common_slope), there.common_slope)


@pytest.mark.parametrize("seed", seeds(6))
@pytest.mark.parametrize(("sites", "local"), [(1, 0), (4, 2)])
@pytest.mark.parametrize("load", [0.3, 3.0])
def test_prices_reach_the_optimum_of_the_linear_programme(seed: int, sites: int, local: int, load: float) -> None:
    rng = np.random.default_rng(seed)
    problem = crowd(rng, 120, sites=sites, local=local, shared=3, load=load)
    search = DualSolver(problem, rng)
    most = _linear(problem, np.repeat(problem.weight[:, None], problem.amounts.shape[1], axis=1))
    objective = DualObjective(1.0, 1e-6)
    found = dual_bound(problem, DualObjective(1.0, 0.0), search.polish(objective, search.maximize_weight(objective)))
    assert most * (1 - 1e-9) <= found <= most * 1.002

    weight = 0.98 * most
    least = -_linear(problem, -problem.cost_usd_per_h, weight)
    objective = DualObjective(0.0, 1.0, weight)
    found = -dual_bound(problem, objective, search.polish(objective, search.minimize_cost(weight, most)))
    assert least * 0.99 <= found <= least * (1 + 1e-9)


def test_samples_lead_to_the_same_prices() -> None:
    rng = np.random.default_rng(0)
    problem = crowd(rng, 12_000, load=3.0)
    objective = DualObjective(1.0, 1e-6)
    sampled = DualSolver(problem, rng)
    assert sampled._samples
    found = sampled.maximize_weight(objective)
    alone = DualSolver(problem, rng)
    alone._samples = ()
    expected = alone.maximize_weight(objective)
    assert dual_bound(problem, objective, found) == pytest.approx(dual_bound(problem, objective, expected), rel=1e-5)
    np.testing.assert_allclose(found.shared, expected.shared, rtol=0.02)


def _linear(problem: RelaxedProblem, worth: np.ndarray, min_weight: float | None = None) -> float:
    """The greatest worth (C, P) of a choice that may divide queries, by HiGHS."""
    flat = on_one_site(problem)
    count, plans, resources = flat.amounts.shape
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", 1)
    x = [[solver.addVariable(0, float(flat.multiplicity[c])) for _ in range(plans)] for c in range(count)]
    for c in range(count):
        solver.addConstr(sum(x[c][1:], start=x[c][0]) <= float(flat.multiplicity[c]))
    pairs = [(c, p) for c in range(count) for p in range(plans)]
    for resource in range(resources):
        terms = [float(flat.amounts[c, p, resource]) * x[c][p] for c, p in pairs if flat.amounts[c, p, resource] > 0]
        if terms:
            solver.addConstr(sum(terms[1:], start=terms[0]) <= 1.0)
    if min_weight is not None:
        terms = [float(flat.weight[c]) * x[c][p] for c, p in pairs]
        solver.addConstr(sum(terms[1:], start=terms[0]) >= min_weight)
    terms = [float(worth[c, p]) * x[c][p] for c, p in pairs]
    solver.maximize(sum(terms[1:], start=terms[0]))
    return float(solver.getInfo().objective_function_value)
