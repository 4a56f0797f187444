"""The dual against enumeration, and its minimum against a linear programme."""

from __future__ import annotations

from dataclasses import replace

import highspy
import numpy as np
import pytest
from benchmarks.workloads.random.small_matchings import best_of_all, small
from hypothesis import given
from hypothesis import strategies as st

from budget import half_share_of, seeds
from circinus.matching.lagrangian import lp_prices
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
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
def test_sites_are_nothing_but_a_shorter_way_to_write_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = crowd(rng, 40, local=2, shared=1, sites=5)
    prices = replace(_prices(rng, problem), weight=0.0)
    flat = Prices(np.zeros((1, 0)), np.concatenate([prices.local.reshape(-1), prices.shared]))
    objective = DualObjective(1.0, 0.1)
    assert dual_bound(problem, objective, prices) == pytest.approx(dual_bound(on_one_site(problem), objective, flat))


@pytest.mark.parametrize("seed", range(half_share_of(6)))
@pytest.mark.parametrize(("sites", "local"), [(1, 0), (4, 2)])
@pytest.mark.parametrize("load", [0.3, 3.0])
def test_prices_reach_the_optimum_of_the_linear_programme(seed: int, sites: int, local: int, load: float) -> None:
    rng = np.random.default_rng(seed)
    problem = crowd(rng, 120, sites=sites, local=local, shared=3, load=load)
    most = _linear(problem, np.repeat(problem.weight[:, None], problem.amounts.shape[1], axis=1))
    objective = DualObjective(1.0, 0.0)
    found = dual_bound(problem, objective, solve_lp_prices(problem, objective).prices)
    assert found == pytest.approx(most, rel=1e-5)

    weight = 0.98 * most
    least = -_linear(problem, -problem.cost_usd_per_h, weight)
    objective = DualObjective(0.0, 1.0, weight)
    found = -dual_bound(problem, objective, solve_lp_prices(problem, objective).prices)
    assert least * (1 - 1e-4) <= found <= least * (1 + 1e-9)


@pytest.mark.parametrize("min_weight_share", [None, 0.95])
@pytest.mark.parametrize(("sites", "local"), [(1, 0), (4, 2)])
def test_samples_and_few_columns_lead_to_the_optimum(
    min_weight_share: float | None, sites: int, local: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = crowd(np.random.default_rng(0), 1_500, sites=sites, local=local, load=3.0)
    objective = DualObjective(1.0, 1e-6)
    if min_weight_share is not None:
        most = dual_bound(problem, objective, solve_lp_prices(problem, objective).prices)
        objective = DualObjective(0.0, 1.0, min_weight_share * most)
    sampled = solve_lp_prices(problem, objective)
    monkeypatch.setattr(lp_prices, "_SAMPLED_FROM", problem.classes)
    alone = solve_lp_prices(problem, objective)
    bounds = [dual_bound(problem, objective, found.prices) for found in (sampled, alone)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-6)
    for found in (sampled, alone):
        assert (found.selected.sum(axis=1) <= problem.multiplicity + 1e-6).all()
        assert np.einsum("cp,cps->s", found.selected, on_one_site(problem).amounts).max() <= 1 + 1e-6
    restarted = solve_lp_prices(problem, objective, start=sampled.prices)
    assert dual_bound(problem, objective, restarted.prices) == pytest.approx(bounds[1], rel=1e-6)


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


@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.parametrize(
    ("sites", "local", "tolerance", "cost_tolerance"), [(1, 0, 1e-5, 1e-3), (2, 2, 1e-5, 1e-3), (40, 2, 0.01, 0.05)]
)
def test_parts_of_a_large_problem_lead_near_its_optimum(
    seed: int, sites: int, local: int, tolerance: float, cost_tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = crowd(np.random.default_rng(seed), 3_000, sites=sites, local=local, shared=2, load=3.0)
    problem = replace(problem, sites=sites + 1)  # the last has no queries
    weight = DualObjective(1.0, 1e-6)
    whole = solve_lp_prices(problem, weight)
    most = dual_bound(problem, weight, whole.prices)
    cost = DualObjective(0.0, 1.0, 0.999 * most)
    least = -dual_bound(problem, cost, solve_lp_prices(problem, cost).prices)
    for name, value in (("_MAX_CLASSES", 600), ("_LARGE_SAMPLE", 600), ("_CORE", 300), ("_SITES", 100),
                        ("_SAMPLED_SITES", 300)):  # fmt: skip
        monkeypatch.setattr(lp_prices, name, value)
    found = solve_lp_prices(problem, weight)
    assert dual_bound(problem, weight, found.prices) == pytest.approx(most, rel=tolerance)
    assert float(found.selected.sum(axis=1) @ problem.weight) == pytest.approx(most, rel=5 * tolerance)
    assert (found.selected.sum(axis=1) <= problem.multiplicity + 1e-6).all()
    found = solve_lp_prices(problem, cost, max_weight=most)
    assert -dual_bound(problem, cost, found.prices) == pytest.approx(least, rel=cost_tolerance)


def test_one_heavy_query_may_push_many_to_dear_plans() -> None:
    """Each of 300 queries has a free plan with a share of a resource and one for $1/h; one more needs all of it."""
    count = 300
    amounts = np.zeros((count + 1, 2, 1), dtype=np.float32)
    amounts[:count, 0], amounts[count, 0] = 1.0 / count, 1.0
    cost = np.zeros((count + 1, 2))
    cost[:count, 1], cost[count, 1] = 1.0, np.inf
    problem = RelaxedProblem(
        multiplicity=np.ones(count + 1),
        weight=np.ones(count + 1),
        cost_usd_per_h=cost,
        amounts=amounts,
        site=np.zeros(count + 1, dtype=np.int64),
        sites=1,
        local=0,
    )
    objective = DualObjective(0.0, 1.0, float(count + 1))
    assert -dual_bound(problem, objective, solve_lp_prices(problem, objective).prices) >= 0.999 * count
