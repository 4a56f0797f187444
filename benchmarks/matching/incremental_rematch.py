"""Incremental rematching: queries arrive, change or leave, capacities change, and few plans do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.local_search import swap_search
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.primal_rounding import ReducedProfits, greedy_fill, repair_overload
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem
from circinus.matching.lagrangian.solve import (
    RelaxedSolution,
    cost_tiebreak_weight,
    max_cost_usd_per_h,
    solve_relaxed,
    tighten_weight_bound,
)
from circinus.matching.tolerances import CAPACITY_TOLERANCE

_MAX_GAP_INCREASE = 0.002
"""Increase of the optimality gap, as a share of the bound, at which prices are recomputed."""
_ROUNDINGS = 32
"""Number of rounded operations in a reduced value."""


@dataclass(frozen=True, eq=False)
class Rematched:
    """The result of a rematch."""

    answer: RelaxedSolution
    changed: IntArray
    """Running queries whose plan changes or stops."""
    stale: bool
    """True if prices were recomputed, as the previous ones proved too little."""


def rematch(
    previous: RelaxedSolution, problem: RelaxedProblem, previous_index: IntArray, *, seed: int = 0
) -> Rematched:
    """Return an answer to a changed problem that changes few of the running plans.

    Queries keep their plans unless these are gone or do not fit any more, or another plan gains. Only
    sites with changes are considered; queries that were not served may enter anywhere.

    Args:
        previous: the previous answer.
        problem: with the same resources; plans of a staying query have the same indexes, with infinite costs if gone.
        previous_index: (N,) index of each query in the previous answer; -1 if it is new.
        seed: of samples, if prices are recomputed.
    """
    if not len(problem.class_of):
        return Rematched(solve_relaxed(problem), np.zeros(0, dtype=np.int64), stale=False)
    ran = np.full(len(previous_index), NOT_SERVED)
    ran[previous_index >= 0] = previous.chosen[previous_index[previous_index >= 0]]
    chosen, served = ran.copy(), np.flatnonzero(ran >= 0)
    is_gone = ~np.isfinite(problem.cost_usd_per_h[problem.class_of[served], ran[served]])
    chosen[served[is_gone]] = NOT_SERVED
    sites = np.flatnonzero(_affected_sites(previous, problem, previous_index, chosen, served[is_gone]))
    objective = DualObjective(1.0, cost_tiebreak_weight(problem))

    def completed(prices: Prices) -> tuple[IntArray, float]:
        reduced_profits = ReducedProfits.at(problem, objective, prices)
        filled = greedy_fill(problem, reduced_profits, repair_overload(problem, reduced_profits, chosen))
        improved = swap_search(problem, reduced_profits, filled, objective, sites=sites)
        return improved, tighten_weight_bound(
            problem, profit_bound(problem, reduced_profits, prices) + objective.cost * max_cost_usd_per_h(problem)
        )

    prices = previous.prices
    matched, limit = completed(prices)
    stale = problem.weight_of(matched) < (1.0 - previous.weight_gap - _MAX_GAP_INCREASE) * limit
    if stale:
        prices = solve_lp_prices(problem, objective, start=prices, seed=seed).prices
        matched, tighter = completed(prices)
        limit = min(limit, tighter)
    weight, cost = problem.weight_of(matched), problem.cost_usd_per_h_of(matched)
    cost_bound = -dual_bound(problem, DualObjective(0.0, 1.0, weight), previous.cost_prices)
    answer = RelaxedSolution(
        problem=problem,
        chosen=matched,
        weight=weight,
        weight_bound=max(limit, weight),
        cost_usd_per_h=cost,
        cost_bound_usd_per_h=min(max(cost_bound, 0.0), cost),
        prices=prices,
        cost_prices=previous.cost_prices,
        cost_counts=objective.cost,
    )
    return Rematched(answer, served[matched[served] != ran[served]], stale)


def _affected_sites(
    previous: RelaxedSolution, problem: RelaxedProblem, previous_index: IntArray, chosen: IntArray, dropped: IntArray
) -> BoolArray:
    """Return (sites,) whether queries came, left or lost their plans, or their amounts changed or do not fit."""
    problem, previous_problem, affected = (
        problem,
        previous.problem,
        np.zeros(problem.sites, dtype=bool),
    )
    site = problem.site[problem.class_of]
    affected[site[previous_index < 0]] = True
    affected[site[dropped]] = True
    stayed = np.zeros(len(previous.chosen), dtype=bool)
    stayed[previous_index[previous_index >= 0]] = True
    affected[previous_problem.site[previous.problem.class_of[~stayed]]] = True
    # Amounts are shares of capacities: if a capacity grew, others may fit.
    staying = np.flatnonzero((chosen >= 0) & (previous_index >= 0))
    previous_classes = previous.problem.class_of[previous_index[staying]]
    change = (
        problem.amounts[problem.class_of[staying], chosen[staying]]
        != previous_problem.amounts[previous_classes, chosen[staying]]
    )
    affected[site[staying[change[:, : problem.local].any(axis=1)]]] = True
    affected |= bool(change[:, problem.local :].any())
    own = problem.usage_of(chosen)[: problem.sites * problem.local].reshape(problem.sites, problem.local)
    affected[(own > 1.0).any(axis=1)] = True
    return affected


def profit_bound(problem: RelaxedProblem, reduced_profits: ReducedProfits, prices: Prices) -> float:
    """Return the dual as `dual_bound` without a minimum weight, allowing for the precision of the values."""
    best = reduced_profits.reduced.max(axis=1).astype(np.float64)
    rounding = float(np.finfo(reduced_profits.reduced.dtype).eps) * _ROUNDINGS * float(np.abs(best).max(initial=0.0))
    resources = (prices.local.sum() + prices.shared.sum()) * (1.0 + CAPACITY_TOLERANCE)
    return float((best + rounding) @ problem.multiplicity + resources)
