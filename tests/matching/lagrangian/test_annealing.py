"""Annealing at prices against enumeration, and on sites that share resources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from benchmarks.workloads.random.small_matchings import best_of_all, small

from budget import seeds
from circinus.matching.lagrangian import DualObjective
from circinus.matching.lagrangian.annealing import anneal_sites
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from random_fluid import crowd, on_one_site

WEIGHT = DualObjective(1.0, 0.0)


def test_small_choices_fit_and_most_are_the_best_of_all() -> None:
    best, count = 0, 0
    for seed in seeds(100):
        problem = on_one_site(small(np.random.default_rng(seed)))
        weight, cost = best_of_all(problem)
        chosen = anneal_sites(problem, WEIGHT, solve_lp_prices(problem, WEIGHT).prices, moves=200, seed=seed)
        assert problem.usage_of(chosen).max(initial=0.0) <= 1.0 + 1e-6, seed
        assert problem.weight_of(chosen) <= weight + 1e-9, seed
        best, count = best + (problem.weight_of(chosen) >= weight - 1e-9), count + 1
        if weight > 0:
            prices = solve_lp_prices(problem, DualObjective(0.0, 1.0, weight)).prices
            least = np.array([weight])
            chosen = anneal_sites(problem, DualObjective(0.0, 1.0), prices, moves=200, seed=seed, min_weight=least)
            if (chosen >= 0).any():
                assert problem.usage_of(chosen).max() <= 1.0 + 1e-6, seed
                assert problem.weight_of(chosen) >= weight - 1e-6, seed
                assert problem.cost_usd_per_h_of(chosen) >= cost - 1e-9, seed
    assert best >= 0.85 * count


def test_sites_fit_their_own_resources_and_pay_for_what_they_share() -> None:
    problem = crowd(np.random.default_rng(0), 300, local=2, shared=1, sites=6, load=20.0)
    problem = replace(problem, sites=7)  # the last has no queries
    prices = solve_lp_prices(problem, WEIGHT).prices
    usage, dear = dict[float, float](), 3.0
    for factor in (1.0, dear):
        chosen = anneal_sites(problem, WEIGHT, replace(prices, shared=factor * prices.shared), moves=300)
        used = problem.usage_of(chosen)
        assert used[:-1].max() <= 1.0 + 1e-6
        usage[factor] = used[-1]
    assert 0.7 < usage[1.0] < 1.3
    assert usage[dear] < 0.7
