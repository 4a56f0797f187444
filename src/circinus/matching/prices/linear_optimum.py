"""Small problems as the linear programme itself, by HiGHS: prices that are exact where single queries make kinks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.matching.highs import solve_lp
from circinus.matching.linear import LpModel
from circinus.matching.prices.dual import DualObjective, Prices
from circinus.matching.prices.fluid import FloatArray, RelaxedProblem


@dataclass(frozen=True, eq=False)
class LpPrices:
    """The best that queries may do that are divided over plans."""

    prices: Prices
    taken: FloatArray
    """(C, P) queries of each class that take each plan. At a corner of what is possible hardly more classes than there
    are resources without room have fractions."""


def solve_lp_prices(problem: RelaxedProblem, objective: DualObjective, *, time_limit_s: float = 1.0) -> LpPrices | None:
    """The optimum; None where the solver does not find it in time."""
    row, plan = np.nonzero(np.isfinite(problem.cost_usd_per_h))
    if not len(row):
        return LpPrices(Prices.zero(problem), np.zeros(problem.cost_usd_per_h.shape))
    programme = LpModel(upper=[np.inf] * len(row))
    for one in np.unique(row):
        columns = np.flatnonzero(row == one)
        programme.add_row(columns, np.ones(len(columns)), -np.inf, float(problem.multiplicity[one]))
    own = problem.site[:, None] * problem.local + np.arange(problem.local)
    shared = np.broadcast_to(
        problem.sites * problem.local + np.arange(problem.shared), (problem.classes, problem.shared)
    )
    resources = np.concatenate([own, shared], axis=1)[row]
    amounts = problem.amounts[row, plan].astype(np.float64)
    first = len(programme.row_lower)
    for resource in range(problem.sites * problem.local + problem.shared):
        column, slot = np.nonzero((resources == resource) & (amounts > 0))
        programme.add_row(column, amounts[column, slot], -np.inf, 1.0)
    if objective.least_weight is not None:
        programme.add_row(np.arange(len(row)), problem.weight[row], objective.least_weight, np.inf)
    worth = objective.weight * problem.weight[row] - objective.cost * problem.cost_usd_per_h[row, plan]
    found = solve_lp(programme, -worth, time_limit_s=time_limit_s)
    if found is None:
        return None
    values, duals = found
    prices = np.maximum(-duals[first : first + problem.sites * problem.local + problem.shared], 0.0)
    local = prices[: problem.sites * problem.local].reshape(problem.sites, problem.local)
    weight = 0.0 if objective.least_weight is None else max(float(duals[-1]), 0.0)
    taken = np.zeros(problem.cost_usd_per_h.shape)
    taken[row, plan] = np.maximum(values, 0.0)
    return LpPrices(Prices(local, prices[problem.sites * problem.local :], weight), taken)
