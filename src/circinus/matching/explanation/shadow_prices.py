"""Shadow prices of resources, from the relaxed matching."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, dual_bound
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.relaxation import RelaxedView, cost_prices, level_prices
from circinus.matching.lagrangian.solve import tighten_weight_bound
from circinus.matching.plan_set import ShadowPrice
from circinus.matching.problem import RESOURCES, Problem
from circinus.matching.solvers.viable_candidates import viable_candidates

_UNITS = {"cpus": ("CPU", 1.0), "memory": ("GiB", 2.0**30), "gpus": ("GPU", 1.0), "gpu memory": ("GiB", 2.0**30)}
_LINK_UNIT = ("MB/s", 1e6)
_HIGHER_LEVEL_FACTOR = 1e3
"""Factor on the weight of higher levels when a lower one is priced."""
_NEGLIGIBLE = 1e-3
"""Share of the satisfied weight, or of the cost, below which the value of a whole capacity counts as 0."""


@dataclass(frozen=True)
class RelaxationBounds:
    """Shadow prices and bounds of the relaxed matching, valid for every choice of the same candidates."""

    prices: tuple[ShadowPrice, ...]
    """Prices of every resource that any plan may use, in the order of pools and links."""
    weight_bound: float
    """Bound on user weight summed over levels, each for choices that serve as much of the higher levels."""
    cost_bound_usd_per_h: float
    """Lower bound on the cost of choices that satisfy as much weight."""


def shadow_prices(problem: Problem, chosen: IntArray, seed: int) -> RelaxationBounds:
    """Return prices of resources and bounds on other choices; costs exclude churn.

    Args:
        problem: the matching problem.
        chosen: (Q,) candidate of each query, -1 for none.
        seed: of samples.
    """
    problem = replace(problem, incumbent=None)
    usable, levels = viable_candidates(problem, ()), problem.priority_levels
    view = RelaxedView.of(problem, levels.weight, usable)
    if not view.queries:
        return RelaxationBounds((), 0.0, 0.0)
    by_weight, weight_bound = _weight_prices(problem, chosen, usable, seed)
    if levels.count > 1:  # the bound without levels holds, too
        weight_bound = min(weight_bound, max(_weight_bound_without_levels(view, seed), levels.weight_of(chosen)))
    by_cost: FloatArray = np.zeros(len(by_weight))
    cost_bound, usage = 0.0, problem.usage_of(chosen)
    weight = levels.weight_of(chosen)
    if weight > 0:
        relaxed = view.scaled(np.ones(len(problem.deployments)))
        dual_prices, bound = cost_prices(relaxed, weight, seed)
        bound = max(bound, 0.0) + problem.fixed_usd_per_h
        by_cost, cost_bound = view.by_resource(dual_prices), min(bound, usage.cost_usd_per_h)
    by_cost[by_cost < _NEGLIGIBLE * usage.cost_usd_per_h] = 0.0
    pools = _pool_prices(problem, usage.rows, by_weight, by_cost)
    links = _link_prices(problem, usage.traffic_bytes_per_s, by_weight, by_cost)
    return RelaxationBounds((*pools, *links), weight_bound, cost_bound)


def _weight_prices(problem: Problem, chosen: IntArray, usable: BoolArray, seed: int) -> tuple[FloatArray, float]:
    """Return prices of whole capacities for the highest level that is not fully served, and a weight bound.

    Higher levels are fully served; their factor keeps them so at the prices. Lower levels have no weight.
    """
    levels = problem.priority_levels
    servable = np.isin(np.arange(len(problem.queries)), problem.query_of[usable])
    short = [bool((servable[queries] & (chosen[queries] < 0)).any()) for queries in levels.descending]
    binding = short.index(True) if any(short) else levels.count - 1
    by_weight, total = np.zeros(0), 0.0
    for position, queries in enumerate(levels.descending):
        satisfied = float(levels.weight[queries[chosen[queries] >= 0]].sum())
        if not short[position] and position != binding:
            total += satisfied
            continue
        prices, limit = _level_prices(problem, usable, position, seed)
        higher = np.flatnonzero((levels.rank > levels.count - 1 - position) & (chosen >= 0))
        level_bound = max(limit - _HIGHER_LEVEL_FACTOR * float(levels.weight[higher].sum()), satisfied)
        total += min(level_bound, float(levels.weight[queries].sum()))
        if position == binding:
            by_weight = np.where(prices < (_NEGLIGIBLE * level_bound if short[position] else np.inf), 0.0, prices)
    return by_weight, total


def _weight_bound_without_levels(view: RelaxedView, seed: int) -> float:
    """Return a bound on the weight if all queries had the same priority."""
    relaxed = view.scaled(np.ones(len(view.problem.deployments)))
    objective = DualObjective(1.0, 0.0)
    prices = solve_lp_prices(relaxed, objective, seed=seed).prices
    return tighten_weight_bound(relaxed, dual_bound(relaxed, objective, prices))


def _level_prices(problem: Problem, usable: BoolArray, position: int, seed: int) -> tuple[FloatArray, float]:
    """Return (resources,) prices of whole capacities for one level next to the higher ones, and their weight bound."""
    priced = level_prices(problem, usable, position, _HIGHER_LEVEL_FACTOR, seed)
    if priced is None:
        return np.zeros(len(problem.rows.limit) + len(problem.links)), 0.0
    relaxed, _, prices, by_resource = priced
    return by_resource, tighten_weight_bound(relaxed, dual_bound(relaxed, DualObjective(1.0, 0.0), prices))


def _pool_prices(problem: Problem, used: FloatArray, by_weight: FloatArray, by_cost: FloatArray) -> list[ShadowPrice]:
    rows, prices = problem.rows, []
    for row in np.flatnonzero(rows.plain).tolist():
        pool, resource = int(rows.pool[row]), RESOURCES[rows.resource[row]]
        unit, size = _UNITS[resource]
        capacity = float(rows.limit[row]) / size
        # Include rows that count replicas on nodes: a node's worth of units relaxes each of them as much as this one.
        resource_rows = np.flatnonzero((rows.pool == pool) & (rows.resource == rows.resource[row]))
        prices.append(
            ShadowPrice(
                resource=f"pool {problem.pools[pool]}: {resource}",
                unit=unit,
                capacity=capacity,
                used=float(used[row] / rows.limit[row]),
                weight=float(by_weight[resource_rows].sum()) / capacity,
                saving_usd_per_h=float(by_cost[resource_rows].sum()) / capacity,
            )
        )
    return prices


def _link_prices(problem: Problem, used: FloatArray, by_weight: FloatArray, by_cost: FloatArray) -> list[ShadowPrice]:
    unit, size = _LINK_UNIT
    crossed = np.unique(problem.traffic.column)
    rows = len(problem.rows.limit)
    return [
        ShadowPrice(
            resource=f"link {problem.links[link]}",
            unit=unit,
            capacity=(capacity := float(problem.link_capacity_bytes_per_s[link]) / size),
            used=float(used[link]) / size / capacity,
            weight=float(by_weight[rows + link]) / capacity,
            saving_usd_per_h=float(by_cost[rows + link]) / capacity,
        )
        for link in crossed.tolist()
    ]
