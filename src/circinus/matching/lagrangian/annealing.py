"""Simulated annealing of the queries near a change at given prices, of each site by itself.

Many classes on sites are annealed (`solve.py`); benchmarks anneal few queries, too. Only options of small regret are
proposed. A move pays for overload at the price times a pressure. Other resources cost it nearly the price, so that the
queries stay near the capacities. The pressure rises while a site is overloaded and falls while it is not: choices that
just fit are met again and again (strategic oscillation, Glover and Kochenberger, "Critical event tabu search for
multidimensional knapsack problems", 1996).
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem
from circinus.queueing.compiled import compiled

_MAX_REGRET = 0.1
"""Maximum regret of a proposed option, relative to the mean value of a query."""
_HOT, _COLD = 0.036, 0.007
"""First and last temperature, relative to the mean value of a query."""
_IDLE = 0.08, 0.04, 0.15
"""Parts of a price that idle capacity costs, one for each seed in turn: the more, the fewer choices overload."""
_MIN_PRICE = 0.05
"""Minimum price of overload, relative to the mean price of a site's capacities."""
_PERIOD, _STEP = 200, 1.15
"""Number of moves between changes of the pressure, and their factor."""
_MIN_PRESSURE, _MAX_PRESSURE = 0.1, 50.0
_LITTLE = 1e-30


def anneal_sites(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    *,
    moves: int,
    seed: int = 0,
    min_weight: FloatArray | None = None,
) -> IntArray:
    """Return (N,) a choice in which each site fits its own resources, and pays for those that sites share.

    Nothing is served at a site for which no choice is found.

    Args:
        problem: the queries; with one site, all resources are its own.
        objective: to be maximized.
        prices: near the optimal ones.
        moves: number of moves proposed for each query.
        seed: of the proposals.
        min_weight: (sites,) positive weight that each site must serve, in benchmarks only; None: any.
    """
    reduced = ReducedProfits.at(problem, objective, prices).reduced
    scale = max((objective.weight + prices.weight) * float(problem.weight.mean()), _LITTLE)
    regret = reduced.max(axis=1, keepdims=True) - reduced
    query, option = np.nonzero((regret <= _MAX_REGRET * scale)[problem.class_of])
    classes, served = problem.class_of[query], option < reduced.shape[1] - 1
    weight, cost = problem.weight[classes] * served, np.zeros(len(query))
    amounts = np.zeros((len(query), problem.amounts.shape[2]))
    cost[served] = problem.cost_usd_per_h[classes[served], option[served]]
    amounts[served] = problem.amounts[classes[served], option[served]]
    value = objective.weight * weight - objective.cost * cost
    if problem.sites > 1:
        value -= amounts[:, problem.local :] @ prices.shared
        amounts = amounts[:, : problem.local]
    own_prices = prices.by_resource[None, :] if problem.sites == 1 else prices.local
    own_prices = np.maximum(own_prices, _MIN_PRICE * np.maximum(own_prices.mean(axis=1, keepdims=True), scale))
    free = own_prices.copy()
    if min_weight is not None:  # missing weight counts as overload
        amounts = np.append(amounts, -weight[:, None], axis=1)
        own_prices = np.append(own_prices, np.full((problem.sites, 1), max(prices.weight, _LITTLE)), axis=1)
        free = np.append(free, -own_prices[:, -1:] * min_weight[:, None], axis=1)
    amounts = amounts * own_prices[problem.site[classes]]
    energy = value - (1.0 - _IDLE[seed % len(_IDLE)]) * amounts.sum(axis=1)
    if amounts.shape[1] % 2:
        amounts, free = np.pad(amounts, ((0, 0), (0, 1))), np.pad(free, ((0, 0), (0, 1)))
    by_regret = np.lexsort((regret[classes, option], query))
    current = by_regret[np.searchsorted(query, np.arange(len(problem.class_of)))]
    first = np.searchsorted(query, problem.site_starts)
    found = np.full(len(problem.class_of), -1, dtype=np.int64)

    def run(sites: tuple[int, int]) -> None:
        _anneal(
            value, energy, amounts, query, first, problem.site_starts, -free, current, found, *sites, moves,
            _HOT * scale, _COLD * scale, seed,
        )  # fmt: skip

    threads = min(os.cpu_count() or 1, problem.sites)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, pairwise(np.linspace(0, problem.sites, threads + 1).astype(int).tolist())))
    return np.where((found >= 0) & served[found], option[found], NOT_SERVED)


@compiled
def _anneal(
    value: FloatArray,
    energy: FloatArray,
    amounts: FloatArray,
    query: IntArray,
    first: IntArray,
    starts: IntArray,
    overload: FloatArray,
    current: IntArray,
    found: IntArray,
    first_site: int,
    last_site: int,
    moves_each: int,
    hot: float,
    cold: float,
    seed: int,
) -> None:
    """Anneal some sites: `found` becomes the best option of each query, `current` is where they begin.

    Amounts and overloads are at their prices. Two sums at once take half as long as one.
    """
    slots = amounts.shape[1]
    for site in range(first_site, last_site):
        begin, end, proposals = starts[site], starts[site + 1], first[site + 1] - first[site]
        if proposals == 0:
            continue
        total, best, excess = 0.0, -math.inf, 0.0
        for member in range(begin, end):
            total += value[current[member]]
            for slot in range(slots):
                overload[site, slot] += amounts[current[member], slot]
        for slot in range(slots):
            excess += max(overload[site, slot], 0.0)
        if excess <= 0.0:
            best = total
            for member in range(begin, end):
                found[member] = current[member]
        state = np.uint64(88172645463325252) + np.uint64(2654435761) * np.uint64(1 + seed * 1_000_003 + site)
        moves = moves_each * (end - begin)
        temperature, pressure, cooling = hot, 1.0, (cold / hot) ** (_PERIOD / max(moves, 1))
        for move in range(moves):
            if move % _PERIOD == 0:
                temperature *= cooling
                pressure = pressure * _STEP if excess > 0.0 else pressure / _STEP
                pressure = min(max(pressure, _MIN_PRESSURE), _MAX_PRESSURE)
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            option = first[site] + np.int64(((state >> np.uint64(32)) * np.uint64(proposals)) >> np.uint64(32))
            old = current[query[option]]
            if option == old:
                continue
            even, odd = 0.0, 0.0
            for slot in range(0, slots, 2):
                even += max(overload[site, slot] + (amounts[option, slot] - amounts[old, slot]), 0.0)
                odd += max(overload[site, slot + 1] + (amounts[option, slot + 1] - amounts[old, slot + 1]), 0.0)
            gain = energy[option] - energy[old] - pressure * (even + odd - excess)
            if gain < 0.0:
                if gain < -12.0 * temperature:
                    continue
                chance = np.float64((state >> np.uint64(11)) & np.uint64(1048575)) / 1048576.0
                if chance > math.exp(gain / temperature):
                    continue
            total += value[option] - value[old]
            for slot in range(slots):
                overload[site, slot] += amounts[option, slot] - amounts[old, slot]
            current[query[option]], excess = option, even + odd
            if excess <= 0.0 and total > best + 1e-9 * hot:
                best = total
                for member in range(begin, end):
                    found[member] = current[member]
