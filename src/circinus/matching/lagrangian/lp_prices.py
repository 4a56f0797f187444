"""Optimal prices by linear programming, of problems of any size.

Up to 10,000 classes are solved by one program, from the prices of a sample. More classes are solved in parts:

- On many sites, a sample of whole sites prices what they share. Some sites at a time are solved by themselves at these
  prices, and what all sites use of shared resources corrects the sample.
- On few sites, the program has only the classes that small changes of a sample's prices would move. They are its core
  (Balas and Zemel, "An algorithm for large zero-one knapsack problems", Operations Research 28, 1980). Other classes
  keep their best plans. Prices stay within a range of the given ones (Marsten, Hogan and Blankenship, "The boxstep
  method for large-scale optimization", Operations Research 23, 1975). The next core is chosen
  at the prices found.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.dual import (
    DualObjective,
    Prices,
    dual_bound,
    reduced_profits,
    value_of_capacities,
)
from circinus.matching.lagrangian.primal_rounding import gaps_of_best
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.lagrangian.sifting import LpPrices, Surroundings, solve_by_sifting

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
_SAMPLED_SITES = 2_000
"""Number of classes of the sites that price what all share."""
_MAX_CORRECTIONS, _CORRECTION_GAP = 3, 2e-4
"""Maximum number of times that all sites are solved, and relative change of the dual bound at which it is enough."""
_MIN_CAPACITY = 0.1
"""Minimum capacity of what a sample of sites shares."""
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
    return _solve_by_sites(problem, objective, max_weight, seed)


def _drawn(problem: RelaxedProblem, size: int, seed: int) -> IntArray:
    drawn: IntArray = np.sort(np.random.default_rng(seed).choice(problem.classes, size, replace=False))
    return drawn


def _drawn_sites(problem: RelaxedProblem, seed: int) -> IntArray:
    """Return the classes of random sites."""
    sites, sizes = np.unique(problem.site, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(sites))
    count = int(np.searchsorted(np.cumsum(sizes[order]), _SAMPLED_SITES, side="right"))
    return np.flatnonzero(np.isin(problem.site, sites[order[: max(count, 1)]]))


def _sample_prices(
    problem: RelaxedProblem, objective: DualObjective, classes: IntArray, max_weight: float | None, seed: int
) -> Prices:
    """Return the optimal prices of some classes that stand for all."""
    sample = problem.part(classes)
    sample = replace(sample, multiplicity=sample.multiplicity * (problem.queries / sample.queries))
    objective, most = _sample_objective(problem, sample, objective, max_weight, seed)
    return solve_lp_prices(sample, objective, max_weight=most, seed=seed).prices


def _sample_objective(
    problem: RelaxedProblem, sample: RelaxedProblem, objective: DualObjective, max_weight: float | None, seed: int
) -> tuple[DualObjective, float | None]:
    """Return the objective of a sample, and the maximum weight of its relaxation if that is needed."""
    if objective.min_weight is None:
        return objective, None
    most = None
    if max_weight is not None:
        weight = DualObjective(1.0, 0.0)
        most = dual_bound(sample, weight, solve_lp_prices(sample, weight, seed=seed).prices)
    share = objective.min_weight / (max_weight or problem.total_weight)
    return replace(objective, min_weight=share * (most or sample.total_weight)), most


def _solve_by_sites(problem: RelaxedProblem, objective: DualObjective, max_weight: float | None, seed: int) -> LpPrices:
    """Price what sites share by a sample of them, corrected by what all sites use at its prices."""
    classes = _drawn_sites(problem, seed)
    sites, site = np.unique(problem.site[classes], return_inverse=True)
    sample = problem.part(classes)
    factor = problem.queries / sample.queries
    own, common = np.split(sample.amounts, [problem.local], axis=2)
    capacity = np.ones(problem.shared)
    sample = replace(
        sample,
        multiplicity=sample.multiplicity * factor,
        amounts=np.append(own / factor, common, axis=2),
        site=site,
        sites=len(sites),
    )
    sampled, most = _sample_objective(problem, sample, objective, max_weight, seed)
    start, best, bound = None, LpPrices(Prices.zero(problem), np.zeros(problem.cost_usd_per_h.shape)), np.inf
    for _ in range(_MAX_CORRECTIONS):
        scaled = replace(sample, amounts=np.append(own / factor, common / capacity, axis=2))
        found = solve_lp_prices(scaled, sampled, start=start, max_weight=most, seed=seed)
        start, local = found.prices, best.prices.local
        if np.isinf(bound):
            local = np.tile(start.local.mean(axis=0) / factor, (problem.sites, 1))
        trial = _solve_sites(problem, objective, replace(start, local=local, shared=start.shared / capacity), seed)
        trial_bound = dual_bound(problem, objective, trial.prices)
        is_near = abs(bound - trial_bound) <= _CORRECTION_GAP * abs(trial_bound)
        if trial_bound < bound:
            best, bound = trial, trial_bound
        if is_near:
            break
        usage, weight = _usage_and_weight(sample, found.selected)
        of_all, weight_of_all = _usage_and_weight(problem, trial.selected)
        capacity = np.maximum(1.0 + usage - of_all, _MIN_CAPACITY)
        if objective.min_weight is not None:
            sampled = replace(sampled, min_weight=weight + objective.min_weight - weight_of_all)
    return best


def _usage_and_weight(problem: RelaxedProblem, selected: FloatArray) -> tuple[FloatArray, float]:
    """Return (shared,) the usage of shared resources by fractional queries (C, P), and their weight."""
    classes, plans = np.nonzero(selected)
    queries = selected[classes, plans]
    return queries @ problem.amounts[classes, plans, problem.local :], float(queries @ problem.weight[classes])


def _solve_sites(problem: RelaxedProblem, objective: DualObjective, prices: Prices, seed: int) -> LpPrices:
    """Solve few sites at a time, at the prices of what they share, from the prices of what is their own."""
    ends = np.searchsorted(problem.site, np.arange(problem.sites + 1))
    at_prices = DualObjective(objective.weight + prices.weight, 1.0)
    selected, local = np.zeros(problem.cost_usd_per_h.shape), prices.local.copy()
    firsts = [0]
    while firsts[-1] < problem.sites:
        last = int(np.searchsorted(ends, ends[firsts[-1]] + _SITES, side="right")) - 1
        firsts.append(max(firsts[-1] + 1, last))

    def solve(sites: tuple[int, int]) -> None:
        first, last = sites
        rows = slice(ends[first], ends[last])
        own, common = np.split(problem.amounts[rows], [problem.local], axis=2)
        cost = problem.cost_usd_per_h[rows]
        part = RelaxedProblem(
            multiplicity=problem.multiplicity[rows],
            weight=problem.weight[rows],
            cost_usd_per_h=np.where(np.isfinite(cost), cost * objective.cost + common @ prices.shared, np.inf),
            amounts=own,
            site=problem.site[rows] - first,
            sites=last - first,
            local=problem.local,
        )
        found = solve_by_sifting(part, at_prices, Prices(local[first:last], np.zeros(0)), seed)
        selected[rows], local[first:last] = found.selected, found.prices.local

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # HiGHS runs without the lock of the interpreter
        list(pool.map(solve, pairwise(firsts)))
    return LpPrices(replace(prices, local=local), selected)


def _solve_cores(problem: RelaxedProblem, objective: DualObjective, prices: Prices, seed: int) -> LpPrices:
    """Solve programs of the classes nearest to a change, while the others keep their best plans."""
    plan = np.zeros(0, dtype=np.int64)
    core = plan
    of_core: FloatArray = np.zeros((0, problem.cost_usd_per_h.shape[1]))
    trial: tuple[Prices, IntArray, IntArray, FloatArray] = prices, plan, core, of_core
    best, bound = trial, np.inf
    for _ in range(_MAX_CORES):
        near = _NearestClasses.at(problem, objective, trial[0])
        if abs(bound - near.bound) <= _GAP * abs(near.bound):
            best = trial
            break
        if near.bound < bound:
            best, bound, plan = trial, near.bound, near.plan
            core = np.sort(np.argpartition(near.change, _CORE)[:_CORE])
            price_range = min(_PRICE_RANGE * float(near.change[core].max()), _MAX_PRICE_RANGE)
            outside = plan >= 0
            outside[core] = False
            others = np.flatnonzero(outside)
            used = problem.usage_of_plans(others, plan[others], problem.multiplicity[others])
            rest = objective
            if objective.min_weight is not None:
                weight = float(problem.multiplicity[others] @ problem.weight[others])
                rest = replace(objective, min_weight=objective.min_weight - weight)
        else:
            price_range *= _NARROWER
        found = solve_by_sifting(problem.part(core), rest, best[0], seed, within=Surroundings(used, price_range))
        trial = found.prices, plan, core, found.selected
    prices, plan, core, of_core = best
    if not len(plan):  # the prices given are the best
        plan, core = _NearestClasses.at(problem, objective, prices).plan, core[:0]
    selected = np.zeros(problem.cost_usd_per_h.shape)
    taken = np.flatnonzero(plan >= 0)
    selected[taken, plan[taken]] = problem.multiplicity[taken]
    selected[core] = of_core
    return LpPrices(prices, selected)


@dataclass(frozen=True, eq=False)
class _NearestClasses:
    """Best plan of each class at some prices, and how near it is to another one."""

    plan: IntArray
    """(C,) -1: none."""
    change: FloatArray
    """(C,) least relative change of prices at which another plan is the best."""
    bound: float
    """Dual bound."""

    @classmethod
    def at(cls, problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> _NearestClasses:
        plan, change = np.zeros(problem.classes, dtype=np.int64), np.zeros(problem.classes)
        total = 0.0
        for rows, profits in reduced_profits(problem, objective, prices, np.float64):
            index = np.arange(len(profits))
            options = np.append(np.zeros((len(profits), 1)), profits, axis=1)  # the first option is none
            best, gap, second = gaps_of_best(options)
            at_stake = np.zeros(len(profits))
            for option in (best, second):
                cost = problem.cost_usd_per_h[rows][index, option - 1]
                value = (objective.weight + prices.weight) * problem.weight[rows]
                paid = value - objective.cost * np.where(np.isfinite(cost), cost, 0.0) - options[index, option]
                paid = np.where(option == 0, prices.weight * problem.weight[rows], paid)
                at_stake += np.where(np.isfinite(options[index, option]), paid, 0.0)
            plan[rows], change[rows] = best - 1, gap / np.maximum(at_stake, _LITTLE)
            total += float(options[index, best] @ problem.multiplicity[rows])
        return cls(plan, change, total + value_of_capacities(objective, prices))
