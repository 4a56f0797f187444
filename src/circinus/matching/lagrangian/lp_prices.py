"""Optimal prices by linear programming, of problems of any size.

One program solves up to 10,000 classes, from the prices of a sample. Of more classes

- with many sites, a sample of whole sites prices what they share, and then some sites at a time are solved by
  themselves at these prices;
- with few, only the classes are in the program that small changes of a sample's prices would move (its core, as Balas
  and Zemel, "An algorithm for large zero-one knapsack problems", Operations Research 28, 1980, call it); the others
  keep their best plans. Prices stay within a range of the given ones (Marsten, Hogan and Blankenship, "The boxstep
  method for large-scale optimization", Operations Research 23, 1975), and the next core is chosen at the prices found.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.lagrangian.sifting import LpPrices, Surroundings, best_plans, plan_profits, solve_by_sifting

_SAMPLED_FROM, _SAMPLE_GROWTH = 400, 5
"""Number of classes from which prices of a sample come first, and number of times that a sample is smaller."""
_MAX_CLASSES = 10_000
"""Maximum number of classes of one program."""
_LARGE_SAMPLE, _LARGE_SAMPLE_GROWTH = 10_000, 10
"""Minimum number of classes of a sample of more than one program takes, and number of times that it is smaller."""
_CORE = 5_000
"""Number of classes of a core."""
_SITES = 1_000
"""Number of classes of the sites that are solved together, and mean number of a site up to which they are."""
_MAX_CORES = 10
_PRICE_RANGE = 20.0
"""Range of prices of a core, relative to the change that would move a class outside of it: few of them would move."""
_MAX_PRICE_RANGE = 1.0
_LITTLE = 1e-30
"""Payment that counts as none."""
_NARROWER = 0.25
"""Factor on the range after prices that were worse."""
_GAP = 1e-6
"""Relative improvement of the dual bound at which no further core is solved."""


def solve_lp_prices(
    problem: RelaxedProblem,
    objective: DualObjective,
    *,
    start: Prices | None = None,
    max_weight: float | None = None,
    seed: int = 0,
) -> LpPrices:
    """Solve the linear relaxation, of more than 10,000 classes approximately.

    Args:
        problem: of any size.
        objective: to be maximized.
        start: prices near the optimal ones, if there are any; not used for more than 10,000 classes.
        max_weight: the maximum weight of the relaxation, if it is known; needed for a sample with a minimum weight
            near the maximum.
        seed: of samples and of the solver.
    """
    if problem.classes <= _MAX_CLASSES:
        if start is None and problem.classes > _SAMPLED_FROM:
            size = max(problem.classes // _SAMPLE_GROWTH, _SAMPLED_FROM // 2)
            start = _sample_prices(problem, objective, _drawn(problem, size, seed), None, seed)
        return solve_by_sifting(problem, objective, start, seed)
    if problem.classes > len(np.unique(problem.site)) * _SITES:
        size = max(problem.classes // _LARGE_SAMPLE_GROWTH, _LARGE_SAMPLE)
        prices = _sample_prices(problem, objective, _drawn(problem, size, seed), max_weight, seed)
        return _solve_cores(problem, objective, prices, seed)
    prices = _sample_prices(problem, objective, _drawn_sites(problem, seed), max_weight, seed, whole_sites=True)
    return _solve_sites(problem, objective, prices, seed)


def _drawn(problem: RelaxedProblem, size: int, seed: int) -> IntArray:
    drawn: IntArray = np.sort(np.random.default_rng(seed).choice(problem.classes, size, replace=False))
    return drawn


def _drawn_sites(problem: RelaxedProblem, seed: int) -> IntArray:
    """Return the classes of random sites."""
    sites, sizes = np.unique(problem.site, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sites))
    count = int(np.searchsorted(np.cumsum(sizes[order]), _LARGE_SAMPLE, side="right"))
    return np.flatnonzero(np.isin(problem.site, sites[order[: max(count, 1)]]))


def _sample_prices(
    problem: RelaxedProblem,
    objective: DualObjective,
    classes: IntArray,
    max_weight: float | None,
    seed: int,
    *,
    whole_sites: bool = False,
) -> Prices:
    """Return the optimal prices of some classes that stand for all, or of whole sites for what they share."""
    sample = problem.part(classes)
    factor = problem.queries / sample.queries
    amounts = sample.amounts
    if whole_sites:
        amounts = np.concatenate([amounts[:, :, : problem.local] / factor, amounts[:, :, problem.local :]], axis=2)
    sample = replace(sample, multiplicity=sample.multiplicity * factor, amounts=amounts)
    most = None
    if objective.min_weight is not None:
        if max_weight is not None:
            weight = DualObjective(1.0, 0.0)
            most = dual_bound(sample, weight, solve_lp_prices(sample, weight, seed=seed).prices)
        share = objective.min_weight / (max_weight or problem.total_weight)
        objective = replace(objective, min_weight=share * (most or sample.total_weight))
    return solve_lp_prices(sample, objective, max_weight=most, seed=seed).prices


def _solve_sites(problem: RelaxedProblem, objective: DualObjective, prices: Prices, seed: int) -> LpPrices:
    """Solve few sites at a time, at the prices of what they share."""
    ends = np.searchsorted(problem.site, np.arange(problem.sites + 1))
    cost = np.where(np.isfinite(problem.cost_usd_per_h), problem.cost_usd_per_h * objective.cost, np.inf)
    at_prices = DualObjective(objective.weight + prices.weight, 1.0)
    selected, local, first = np.zeros(cost.shape), np.zeros((problem.sites, problem.local)), 0
    while first < problem.sites:
        last = max(first + 1, int(np.searchsorted(ends, ends[first] + _SITES, side="right")) - 1)
        rows = slice(ends[first], ends[last])
        own, common = np.split(problem.amounts[rows], [problem.local], axis=2)
        part = RelaxedProblem(
            multiplicity=problem.multiplicity[rows],
            weight=problem.weight[rows],
            cost_usd_per_h=cost[rows] + common @ prices.shared,
            amounts=own,
            site=problem.site[rows] - first,
            sites=last - first,
            local=problem.local,
        )
        found = solve_lp_prices(part, at_prices, seed=seed)
        selected[rows], local[first:last] = found.selected, found.prices.local
        first = last
    return LpPrices(replace(prices, local=local), selected)


def _solve_cores(problem: RelaxedProblem, objective: DualObjective, prices: Prices, seed: int) -> LpPrices:
    """Solve programs of the classes nearest to a change, while the others keep their best plans."""
    start = trial = best = LpPrices(prices, np.zeros(problem.cost_usd_per_h.shape))
    bound = np.inf
    for _ in range(_MAX_CORES):
        trial_bound = dual_bound(problem, objective, trial.prices)
        if abs(bound - trial_bound) <= _GAP * abs(trial_bound):
            return trial
        if trial_bound < bound:
            chosen, change = _best_plans_and_changes(problem, objective, trial.prices)
            best, bound = LpPrices(trial.prices, chosen) if trial is start else trial, trial_bound
            core = np.sort(np.argpartition(change, _CORE)[:_CORE])
            price_range = min(_PRICE_RANGE * float(change[core].max()), _MAX_PRICE_RANGE)
            used, weight = _usage_of_others(problem, chosen, core)
            rest = objective
            if objective.min_weight is not None:
                rest = replace(objective, min_weight=objective.min_weight - weight)
        else:
            price_range *= _NARROWER
        found = solve_by_sifting(problem.part(core), rest, best.prices, seed, within=Surroundings(used, price_range))
        selected = chosen.copy()
        selected[core] = found.selected
        trial = LpPrices(found.prices, selected)
    return best


def _usage_of_others(problem: RelaxedProblem, chosen: FloatArray, core: IntArray) -> tuple[FloatArray, float]:
    """Return (capacities,) what classes outside of the core use, and their weight."""
    outside = np.ones(problem.classes, dtype=bool)
    outside[core] = False
    classes, plans = np.nonzero(chosen * outside[:, None])
    queries = chosen[classes, plans]
    amounts = problem.amounts[classes, plans] * queries[:, None]
    used: FloatArray = np.bincount(
        problem.resources[classes].reshape(-1), weights=amounts.reshape(-1), minlength=problem.capacities
    ).astype(np.float64)
    return used, float(queries @ problem.weight[classes])


def _best_plans_and_changes(
    problem: RelaxedProblem, objective: DualObjective, prices: Prices
) -> tuple[FloatArray, FloatArray]:
    """Return (C, P) queries of each class's best plan, and (C,) the least relative change of prices for another one."""
    profits = plan_profits(problem, objective, prices)
    chosen = np.where(best_plans(profits, 1) & (profits > 0), problem.multiplicity[:, None], 0.0)
    profits = np.append(profits, np.zeros((problem.classes, 1)), axis=1)  # the last plan is none
    best_two = np.argpartition(-profits, 1, axis=1)[:, :2]
    profits = np.take_along_axis(profits, best_two, axis=1)
    none = best_two == problem.cost_usd_per_h.shape[1]
    cost = np.take_along_axis(problem.cost_usd_per_h, np.where(none, 0, best_two), axis=1)
    cost = np.where(np.isfinite(cost), cost, 0.0)
    value = (objective.weight + prices.weight) * problem.weight[:, None]
    at_stake = np.where(none, prices.weight * problem.weight[:, None], value - objective.cost * cost - profits)
    at_stake = np.where(np.isfinite(profits), at_stake, 0.0).sum(axis=1)
    return chosen, np.abs(np.subtract(*profits.T)) / np.maximum(at_stake, _LITTLE)
