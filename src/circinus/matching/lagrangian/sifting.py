"""A linear program solved by few columns, to which others are added while they improve it (sifting).

Bixby, Gregory, Lustig, Marsten and Shanno, "Very large-scale linear programming: a case study in combining interior
point and simplex methods", Operations Research 40, 1992. The first columns and the first basis are the best plans at
given prices, so that few simplex iterations remain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound, reduced_profits
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.solvers.highs import ColumnLp

_PLANS = 2
"""Number of each class's plans that enter at once, the best at the prices."""
_MAX_ROUNDS = 40
_GAP = 1e-9
"""Relative improvement by further columns at which they are not needed."""
_SHORTFALL_FACTOR = 1e6
"""Price of a unit of missing weight, relative to the highest cost of a unit: one query may push many to dear plans."""
_UNPRICED = 0.1
"""Range of a price of 0, relative to that of the mean price."""


@dataclass(frozen=True, eq=False)
class LpPrices:
    """Dual and primal optimum of the linear relaxation."""

    prices: Prices
    selected: FloatArray
    """(C, P) queries of each class that choose each plan. At a vertex, hardly more classes than there are exhausted
    resources have fractions."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Restrictions of a program by the larger one that it is a part of."""

    used: FloatArray
    """(capacities,) shares that others use."""
    price_range: float
    """Relative range in which prices may leave the given ones."""


def solve_by_sifting(
    problem: RelaxedProblem,
    objective: DualObjective,
    start: Prices | None,
    seed: int,
    *,
    within: Surroundings | None = None,
) -> LpPrices:
    """Solve the linear relaxation.

    Args:
        problem: of at most some 20,000 classes.
        objective: to be maximized.
        start: prices near the optimal ones, if there are any.
        seed: of the solver.
        within: the surroundings of a part; they need prices to start with.
    """
    best = Prices.zero(problem) if start is None else start
    profits = plan_profits(problem, objective, best)
    listed: BoolArray = np.isfinite(problem.cost_usd_per_h)
    selected = np.where(best_plans(profits, 1) & (profits > 0), problem.multiplicity[:, None], 0.0)
    if not listed.any():
        return LpPrices(Prices.zero(problem), selected)
    used = np.zeros(problem.capacities) if within is None else within.used
    lower, upper = _row_bounds(problem, objective, used)
    program = ColumnLp(lower, upper, seed)
    others = _shortfall(problem, objective) if within is None else _price_limits(problem, objective, best, within)
    program.add_columns(*others)
    in_use = listed if start is None else listed & best_plans(profits, _PLANS)
    pairs, entering = np.zeros((0, 2), dtype=np.int64), in_use
    bound = dual_bound(problem, objective, best) - best.by_resource @ used
    for _ in range(_MAX_ROUNDS):
        program.add_columns(*_columns(problem, objective, entering))
        pairs = np.concatenate([pairs, np.argwhere(entering)])
        if start is not None and entering is in_use:
            is_basic = np.append(np.zeros(len(others[0]), dtype=bool), selected[in_use] > 0)
            other_rows = np.ones(len(lower) - problem.classes, dtype=bool)
            program.set_basis(is_basic, np.append(~selected.any(axis=1), other_rows))
        solution = program.solve()
        if solution is None:
            break
        prices = _prices(problem, objective, solution.row_duals)
        profits = plan_profits(problem, objective, prices)
        new_bound = dual_bound(problem, objective, prices) - prices.by_resource @ used
        if new_bound <= bound:
            best, bound = prices, new_bound
        reached = np.where(in_use, profits, 0.0).max(axis=1)
        entering = ~in_use & best_plans(profits, _PLANS) & (profits > np.maximum(reached, 0.0)[:, None])
        improvement = float((profits.max(axis=1) - reached).clip(min=0.0) @ problem.multiplicity)
        if improvement <= _GAP * abs(new_bound) or not entering.any():
            selected = np.zeros(listed.shape)
            selected[pairs[:, 0], pairs[:, 1]] = np.maximum(solution.values[-len(pairs) :], 0.0)
            break
        in_use = in_use | entering
    return LpPrices(best, selected)


def plan_profits(problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> FloatArray:
    """Return (C, P) reduced profits."""
    return np.concatenate([values for _, values in reduced_profits(problem, objective, prices, np.float64)])


def best_plans(profits: FloatArray, count: int) -> BoolArray:
    """Return (C, P) the plans of each class with the highest profits."""
    mask, rows, rest = np.zeros(profits.shape, dtype=bool), np.arange(len(profits)), profits.copy()
    for _ in range(min(count, profits.shape[1])):
        best = rest.argmax(axis=1)
        mask[rows, best], rest[rows, best] = True, -np.inf
    return mask


def _row_bounds(problem: RelaxedProblem, objective: DualObjective, used: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return bounds of the rows: queries of classes, usage of resources, and the weight if there is a minimum."""
    upper = np.concatenate([problem.multiplicity, 1.0 - used])
    lower = np.full(len(upper), -np.inf)
    if objective.min_weight is not None:
        lower, upper = np.append(lower, objective.min_weight), np.append(upper, np.inf)
    return lower, upper


_Columns = tuple[FloatArray, IntArray, IntArray, FloatArray]
"""Cost of each column, start of each one's entries, and the entries' rows and values."""


def _shortfall(problem: RelaxedProblem, objective: DualObjective) -> _Columns:
    """Return the column of missing weight if there is a minimum, as the first plans may not reach it."""
    if objective.min_weight is None:
        return np.zeros(0), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    cost = np.where(np.isfinite(problem.cost_usd_per_h), problem.cost_usd_per_h, 0.0).max(axis=1)
    price = _SHORTFALL_FACTOR * objective.cost * float((cost / problem.weight).max())
    row = np.array([problem.classes + problem.capacities])
    return np.array([price]), np.array([0, 1]), row, np.ones(1)


def _price_limits(problem: RelaxedProblem, objective: DualObjective, prices: Prices, within: Surroundings) -> _Columns:
    """Return columns by which capacities and weight are bought at the highest and sold at the lowest price."""
    values, sign = prices.by_resource, np.ones(problem.capacities)
    unpriced = _UNPRICED * within.price_range * values.mean()
    if objective.min_weight is not None:
        values, sign = np.append(values, prices.weight), np.append(sign, -1.0)
    rows = problem.classes + np.arange(len(values))
    highest, lowest = values * (1.0 + within.price_range) + unpriced, values / (1.0 + within.price_range)
    start = np.arange(2 * len(values) + 1)
    return np.append(highest, -lowest), start, np.append(rows, rows), np.append(-sign, sign)


def _columns(problem: RelaxedProblem, objective: DualObjective, plans: BoolArray) -> _Columns:
    query_class, plan = np.nonzero(plans)
    weight = problem.weight[query_class]
    rows = [query_class[:, None], problem.classes + problem.resources[query_class]]
    values: list[FloatArray] = [np.ones((len(plan), 1)), problem.amounts[query_class, plan].astype(np.float64)]
    if objective.min_weight is not None:
        rows.append(np.full((len(plan), 1), problem.classes + problem.capacities))
        values.append(weight[:, None])
    row, value = np.concatenate(rows, axis=1), np.concatenate(values, axis=1)
    start = np.concatenate([[0], np.cumsum((value > 0).sum(axis=1))])
    cost = objective.cost * problem.cost_usd_per_h[query_class, plan] - objective.weight * weight
    return cost, start, row[value > 0], value[value > 0]


def _prices(problem: RelaxedProblem, objective: DualObjective, row_duals: FloatArray) -> Prices:
    resources = np.maximum(-row_duals[problem.classes :][: problem.capacities], 0.0)
    local, shared = np.split(resources, [problem.sites * problem.local])
    weight = 0.0 if objective.min_weight is None else max(float(row_duals[-1]), 0.0)
    return Prices(local.reshape(problem.sites, problem.local), shared, weight)
