"""Optimal prices by linear programming on few columns, to which others are added while they improve it (sifting).

Bixby, Gregory, Lustig, Marsten and Shanno, "Very large-scale linear programming: a case study in combining interior
point and simplex methods", Operations Research 40, 1992. The first columns and the first basis are the best plans at
the prices of a sample of the classes, with capacities to match, so that few simplex iterations remain.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound, reduced_profits
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.solvers.highs import ColumnLp

_SAMPLED_FROM, _SAMPLE_GROWTH = 400, 5
"""Number of classes from which prices of a sample come first, and number of times that a sample is smaller."""
_MAX_CLASSES = 20_000
"""Maximum number of classes of a linear program; of more, a sample prices all, for up to 1 % of the weight."""
_PLANS = 2
"""Number of each class's plans that enter at once, the best at the prices."""
_MAX_ROUNDS = 40
_GAP = 1e-9
"""Relative improvement by further columns at which they are not needed."""
_SHORTFALL_FACTOR = 1e6
"""Price of a unit of missing weight, relative to the highest cost of a unit: one query may push many to dear plans."""


@dataclass(frozen=True, eq=False)
class LpPrices:
    """Dual and primal optimum of the linear relaxation."""

    prices: Prices
    selected: FloatArray
    """(C, P) queries of each class that choose each plan. At a vertex, hardly more classes than there are exhausted
    resources have fractions."""


def solve_lp_prices(
    problem: RelaxedProblem, objective: DualObjective, *, start: Prices | None = None, seed: int = 0
) -> LpPrices:
    """Solve the linear relaxation.

    Args:
        problem: of any size.
        objective: to be maximized.
        start: prices near the optimal ones, if there are any.
        seed: of samples and of the solver.
    """
    if problem.classes > (_SAMPLED_FROM if start is None else _MAX_CLASSES):
        start = _sample_prices(problem, objective, seed)
    best = Prices.zero(problem) if start is None else start
    profits = _profits(problem, objective, best)
    listed: BoolArray = np.isfinite(problem.cost_usd_per_h)
    selected = np.where(_best(profits, 1) & (profits > 0), problem.multiplicity[:, None], 0.0)
    if problem.classes > _MAX_CLASSES or not listed.any():
        return LpPrices(best, selected)
    lower, upper = _row_bounds(problem, objective)
    program = ColumnLp(lower, upper, seed)
    shortfalls = int(objective.min_weight is not None)
    if shortfalls:
        program.add_columns(*_shortfall(problem, objective))
    in_use = listed if start is None else listed & _best(profits, _PLANS)
    pairs, entering = np.zeros((0, 2), dtype=np.int64), in_use
    bound = dual_bound(problem, objective, best)
    for _ in range(_MAX_ROUNDS):
        program.add_columns(*_columns(problem, objective, entering))
        pairs = np.concatenate([pairs, np.argwhere(entering)])
        if start is not None and entering is in_use:
            is_basic = np.append(np.zeros(shortfalls, dtype=bool), selected[in_use] > 0)
            other_rows = np.ones(len(lower) - problem.classes, dtype=bool)
            program.set_basis(is_basic, np.append(~selected.any(axis=1), other_rows))
        solution = program.solve()
        if solution is None:
            break
        prices = _prices(problem, objective, solution.row_duals)
        profits = _profits(problem, objective, prices)
        new_bound = dual_bound(problem, objective, prices)
        if new_bound <= bound:
            best, bound = prices, new_bound
        reached = np.where(in_use, profits, 0.0).max(axis=1)
        entering = ~in_use & _best(profits, _PLANS) & (profits > np.maximum(reached, 0.0)[:, None])
        improvement = float((profits.max(axis=1) - reached).clip(min=0.0) @ problem.multiplicity)
        if improvement <= _GAP * abs(new_bound) or not entering.any():
            selected = np.zeros(listed.shape)
            selected[pairs[:, 0], pairs[:, 1]] = np.maximum(solution.values[-len(pairs) :], 0.0)
            break
        in_use = in_use | entering
    return LpPrices(best, selected)


def _sample_prices(problem: RelaxedProblem, objective: DualObjective, seed: int) -> Prices:
    """Return the optimal prices of a sample of the classes that has the number of queries of all."""
    size = min(max(problem.classes // _SAMPLE_GROWTH, _SAMPLED_FROM // 2), _MAX_CLASSES)
    drawn = np.sort(np.random.default_rng(seed).choice(problem.classes, size, replace=False))
    sample = problem.part(drawn)
    sample = replace(sample, multiplicity=sample.multiplicity * (problem.queries / sample.queries))
    if objective.min_weight is not None:
        share = objective.min_weight / problem.total_weight
        objective = replace(objective, min_weight=share * sample.total_weight)
    return solve_lp_prices(sample, objective, seed=seed).prices


def _profits(problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> FloatArray:
    """Return (C, P) reduced profits."""
    return np.concatenate([values for _, values in reduced_profits(problem, objective, prices, np.float64)])


def _best(profits: FloatArray, count: int) -> BoolArray:
    """Return (C, P) the plans of each class with the highest profits."""
    mask = np.zeros(profits.shape, dtype=bool)
    np.put_along_axis(mask, np.argsort(-profits, axis=1, kind="stable")[:, :count], True, axis=1)
    return mask


def _row_bounds(problem: RelaxedProblem, objective: DualObjective) -> tuple[FloatArray, FloatArray]:
    """Return bounds of the rows: queries of classes, usage of resources, and the weight if there is a minimum."""
    upper = np.concatenate([problem.multiplicity, np.ones(problem.capacities)])
    lower = np.full(len(upper), -np.inf)
    if objective.min_weight is not None:
        lower, upper = np.append(lower, objective.min_weight), np.append(upper, np.inf)
    return lower, upper


def _shortfall(problem: RelaxedProblem, objective: DualObjective) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    """Return the column of missing weight, as the first plans may not reach the minimum."""
    cost = np.where(np.isfinite(problem.cost_usd_per_h), problem.cost_usd_per_h, 0.0).max(axis=1)
    price = _SHORTFALL_FACTOR * objective.cost * float((cost / problem.weight).max())
    row = np.array([problem.classes + problem.capacities])
    return np.array([price]), np.array([0, 1]), row, np.ones(1)


def _columns(
    problem: RelaxedProblem, objective: DualObjective, plans: BoolArray
) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    """Return the columns of plans: (cost, start of each one's entries, rows, values)."""
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
