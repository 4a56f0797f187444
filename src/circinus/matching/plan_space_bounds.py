"""Bounds on the weight and cost of every matching of all plans, whether listed as candidates or not.

A solver's bounds hold for the listed candidates. A plan that is not listed may still share a deployment with others and
leave room for one more query. Every plan of a query takes at least as much as some plan of its frontier does if fully
shared, of each resource; so at any prices of resources, no plan is cheaper than the cheapest one of the frontier
(Lagrangian relaxation, see `lagrangian.dual`).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.matching.column_generation import dual_prices, prices_of_units
from circinus.matching.lagrangian.relaxation import RelaxedView, cost_prices
from circinus.matching.match_run import Answer
from circinus.matching.priority_levels import IntegerWeights
from circinus.matching.problem import Problem
from circinus.matching.solvers.viable_candidates import viable_candidates
from circinus.matching.tolerances import CAPACITY_TOLERANCE, COST_GAP_TOLERANCE, WEIGHT_TOLERANCE
from circinus.planning import Frontier
from circinus.planning.plan_arrays import DualPrices

_PRICE_ROUNDING = 1e-5
"""Relative rounding error of a price in single precision."""
_FREE = DualPrices({}, {}, 1.0)


def plan_space_bounds(answer: Answer) -> tuple[float, float]:
    """Return (an upper bound on the weight, a lower bound on the cost at the answer's weight) of every matching.

    Plans count at their utilization targets, within the tolerance of the plan search. A query without such a plan has
    no weight here unless it is served, as sized, although a second look may serve it: if plans counted whose latency
    there is up to three times the limit, 8 instead of 28 of 40 random applications would reach the bound on the weight,
    and none its cost as well.
    Bounds ignore priorities.
    """
    problem, frontiers = replace(answer.problem, incumbent=None), answer.run.frontiers
    pools = [pool for pool in answer.run.infrastructure.pools if not pool.nodes]
    without_nodes = DualPrices({pool.name: (1.0, 1.0, 1.0, 1.0) for pool in pools}, {}, 0.0)
    queries = range(len(problem.queries))
    servable = np.array([_has_plan_at_targets(answer, query, without_nodes) for query in queries], dtype=bool)
    weight = np.where(servable, problem.priority_levels.weight, 0.0)
    served_as_sized = float(problem.priority_levels.weight[~servable & (answer.chosen >= 0)].sum())
    names = [name for name, may_be in zip(problem.queries, servable, strict=True) if may_be]
    satisfied = problem.priority_levels.weight_of(answer.chosen) - served_as_sized
    bound = float(weight.sum())
    if not _is_reached(bound, satisfied):
        bound = min(bound, _weight_bound(answer, problem, weight[servable], [frontiers[name] for name in names]))
    of_servable = [frontiers[name] for name in names]
    cost_bound = _cost_bound(weight[servable], _lowest_prices(of_servable, _FREE), satisfied)
    if cost_bound < answer.solution.usage.cost_usd_per_h * (1.0 - COST_GAP_TOLERANCE):
        cost_bound = max(cost_bound, _cost_bound_at_prices(answer, problem, weight[servable], of_servable, satisfied))
    bound = satisfied if _is_reached(bound, satisfied) else bound
    return bound + served_as_sized, cost_bound


def reaches_bounds(answer: Answer) -> bool:
    """Return whether an answer reaches the bounds of all plans, so that no other matching is better."""
    weight_bound, cost_bound_usd_per_h = plan_space_bounds(answer)
    return are_reached(answer, weight_bound, cost_bound_usd_per_h)


def are_reached(answer: Answer, weight_bound: float, cost_bound_usd_per_h: float) -> bool:
    """Return whether an answer reaches bounds of the weight and of the cost at its weight."""
    cost_usd_per_h, levels = answer.solution.usage.cost_usd_per_h, answer.problem.priority_levels
    is_cheapest = cost_usd_per_h <= cost_bound_usd_per_h + COST_GAP_TOLERANCE * cost_usd_per_h
    is_heaviest = weight_bound <= levels.weight_of(answer.chosen)
    return is_cheapest and is_heaviest and (levels.count == 1 or bool((answer.chosen >= 0).all()))


def _has_plan_at_targets(answer: Answer, query: int, without_nodes: DualPrices) -> bool:
    """Return whether any plan of a query meets its SLOs at utilization targets, on pools that have nodes.

    A running plan may miss its SLOs there.
    """
    candidates, slos = answer.problem.candidates_of(query), answer.run.slos[query]
    frontier = answer.run.frontiers[answer.problem.queries[query]]
    if frontier.candidates and (not without_nodes.pools or frontier.lowest_price(without_nodes) == 0.0):
        return True
    plans = (answer.problem.candidates[candidate] for candidate in candidates)
    return any(without_nodes.of(plan) == 0.0 and not plan.estimate.violations(slos) for plan in plans)


def _is_reached(bound: float, weight: float) -> bool:
    return bound <= weight * (1.0 + WEIGHT_TOLERANCE)


def _weight_bound(answer: Answer, problem: Problem, weight: FloatArray, frontiers: list[Frontier]) -> float:
    prices = dual_prices(problem, answer.run.settings.seed)
    if prices is None:
        return math.inf
    prices = replace(prices, usd_per_h=0.0)
    surplus = np.maximum(weight - _lowest_prices(frontiers, prices), 0.0)
    bound = float(surplus.sum()) + _capacity_price(answer, problem, prices)
    units = IntegerWeights.of(weight)
    return bound if units.rounding else float(math.floor(bound / units.unit + CAPACITY_TOLERANCE) * units.unit)


def _capacity_price(answer: Answer, problem: Problem, prices: DualPrices) -> float:
    """Return the price of all capacities, within their tolerance."""
    payments = 0.0
    for pool in answer.run.infrastructure.pools:
        amounts = np.multiply(pool.amounts, pool.nodes * (1.0 - pool.headroom))
        payments += float(amounts @ np.array(prices.pools.get(pool.name, (0.0,) * len(amounts))))
    capacities = dict(zip(problem.links, problem.link_capacity_bytes_per_s.tolist(), strict=True))
    payments += sum(price * capacities[link] for link, price in prices.links.items())
    return float(payments * (1.0 + CAPACITY_TOLERANCE))


def _cost_bound_at_prices(
    answer: Answer, problem: Problem, weight: FloatArray, frontiers: list[Frontier], satisfied: float
) -> float:
    """Return a lower bound on the cost of satisfying a weight, at prices of scarce capacities and of weight."""
    usable = viable_candidates(problem, ())
    view = RelaxedView.of(problem, problem.priority_levels.weight, usable)
    if not view.queries:
        return 0.0
    of_capacities, _ = cost_prices(view.scaled(np.ones(len(problem.deployments))), satisfied, answer.run.settings.seed)
    prices = prices_of_units(problem, view.by_resource(of_capacities), 1.0)
    surplus = np.maximum(of_capacities.weight * weight - _lowest_prices(frontiers, prices), 0.0)
    paid = _capacity_price(answer, problem, prices) + float(surplus.sum())
    return of_capacities.weight * satisfied * (1.0 - _PRICE_ROUNDING) - paid


def _lowest_prices(frontiers: list[Frontier], prices: DualPrices) -> FloatArray:
    """Return (frontiers,) lower bounds on the price of any plan of each, fully shared."""
    lowest = np.array([frontier.lowest_price(prices) for frontier in frontiers], dtype=np.float64)
    return np.where(np.isfinite(lowest), lowest, 0.0) * (1.0 - _PRICE_ROUNDING)


def _cost_bound(weight: FloatArray, lowest_usd_per_h: FloatArray, satisfied: float) -> float:
    """Return the cost of satisfying a weight if queries were divisible: those of the lowest cost per weight first."""
    order = np.argsort(lowest_usd_per_h / np.where(weight > 0, weight, 1.0), kind="stable")
    needed = np.clip(satisfied - np.concatenate([[0.0], np.cumsum(weight[order])[:-1]]), 0.0, weight[order])
    share = np.divide(needed, weight[order], out=np.zeros_like(needed), where=weight[order] > 0)
    return float(share @ lowest_usd_per_h[order])
