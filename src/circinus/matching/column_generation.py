"""Column generation: plans beyond the frontiers' candidates, by dual prices and on deployments of an answer.

A frontier offers a limited number of plans to the matching. Its unlisted plans are priced together
(`Frontier.unlisted`); those with a lower reduced cost than the listed ones become candidates and prices are recomputed,
until there are none, or time is over (Dantzig and Wolfe, "Decomposition principle for linear programs", Operations
Research 8, 1960). `plan_space_bounds` bounds what the others are worth. Further plans share deployments with an answer;
running plans are a third source (`Incumbent`). Up to 40 queries, all plans are tried at last, if few enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import Candidates
from circinus.matching.lagrangian.relaxation import level_prices
from circinus.matching.problem import RESOURCES, Problem
from circinus.matching.solvers.viable_candidates import viable_candidates
from circinus.planning import Frontier
from circinus.planning.plan_arrays import DualPrices
from circinus.specification import Query, QueryPlan

Promise = Callable[[Query, QueryPlan], PlanCandidate | None]
"""Estimator of a query's plan; returns None if the plan violates the query's SLOs."""

_PLANS_PER_ROUND = 2
"""Maximum number of plans that enter for a query in a round."""
_MIN_SAVING = 0.02
"""Minimum saving of a new plan, as a share of the reduced cost of a query's best listed plan."""
_HIGHER_LEVEL_FACTOR = 30.0
"""Factor on the weight of higher priority levels."""


def add_columns(candidates: Candidates, columns: Candidates) -> Candidates:
    """Return the candidates with further plans that are not listed yet."""
    extended = dict(candidates)
    for name, plans in columns.items():
        listed = {candidate.plan for candidate in candidates[name]}
        added = {candidate.plan: candidate for candidate in plans if candidate.plan not in listed}
        extended[name] = (*candidates[name], *added.values())
    return extended


def generate_columns(
    candidates: Candidates,
    frontiers: Mapping[str, Frontier],
    promise: Promise,
    compile_candidates: Callable[[Candidates], Problem],
    *,
    should_stop: Callable[[], bool],
    seed: int,
) -> Candidates:
    """Return the candidates, extended by plans with a lower reduced cost at the dual prices of the matching.

    Args:
        candidates: by query name.
        frontiers: with their unlisted plans.
        promise: estimates a plan of a query.
        compile_candidates: builds the problem of some candidates.
        should_stop: whether to stop.
        seed: of samples.
    """
    pools = {
        name: frontier.unlisted
        for name, frontier in frontiers.items()
        if frontier.unlisted is not None and candidates[name]
    }
    count = -1
    while pools and count < (count := sum(map(len, candidates.values()))) and not should_stop():
        prices = dual_prices(compile_candidates(candidates), seed)
        if prices is None:
            break
        columns: dict[str, list[PlanCandidate]] = {}
        for name, pool in pools.items():
            plans = pool.lowest_reduced_cost(prices, _PLANS_PER_ROUND, better_by=_MIN_SAVING)
            priced = (promise(frontiers[name].query, plan) for plan in plans)
            columns[name] = [candidate for candidate in priced if candidate is not None]
        candidates = add_columns(candidates, columns)
    return candidates


def dual_prices(problem: Problem, seed: int) -> DualPrices | None:
    """Return the prices of resources in the relaxed matching, or None if no resource is scarce."""
    lowest = problem.priority_levels.count - 1
    priced = level_prices(problem, viable_candidates(problem, ()), lowest, _HIGHER_LEVEL_FACTOR, seed)
    if priced is None or not priced[-1].any():
        return None
    _, objective, _, by_resource = priced
    return prices_of_units(problem, by_resource, objective.cost)


def prices_of_units(problem: Problem, by_resource: FloatArray, usd_per_h: float) -> DualPrices:
    """Return the prices of single units for prices of whole capacities (resources,) and a price of costs."""
    rows, count = problem.rows, len(problem.rows.limit)
    unit_prices = np.zeros((len(problem.pools), len(RESOURCES)))
    # Rows that count replicas on nodes stand for their resource, as in `shadow_prices`.
    np.add.at(unit_prices, (rows.pool, rows.resource), by_resource[:count])
    capacities = _capacities(problem)
    unit_prices = np.divide(unit_prices, capacities, out=np.zeros_like(unit_prices), where=capacities > 0)
    links = by_resource[count:] / problem.link_capacity_bytes_per_s
    return DualPrices(
        pools={
            name: (float(a[0]), float(a[1]), float(a[2]), float(a[3]))
            for name, a in zip(problem.pools, unit_prices, strict=True)
            if a.any()
        },
        links={name: float(price) for name, price in zip(problem.links, links, strict=True) if price > 0},
        usd_per_h=usd_per_h,
    )


def _capacities(problem: Problem) -> FloatArray:
    """Return (K, 4) capacities of whole pools."""
    return np.asarray(problem.nodes[:, None] * problem.node_capacity, dtype=np.float64)
