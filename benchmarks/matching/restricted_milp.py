"""An exact model over the queries that prices leave undecided; all others keep their plans."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem
from circinus.matching.solvers.highs import LpModel, SolveMilp
from circinus.matching.tolerances import CAPACITY_TOLERANCE

_ROUNDING = 1e-9
"""Relative rounding tolerance of sums of weights."""


def choose_best_plans(problem: RelaxedProblem, reduced_profits: ReducedProfits) -> IntArray:
    """Return (N,) the plan with the highest reduced profit of each query; may exceed capacities."""
    plans = reduced_profits.reduced.shape[1] - 1
    chosen = reduced_profits.reduced.argmax(axis=1)[problem.class_of]
    return np.where(chosen == plans, NOT_SERVED, chosen).astype(np.int64)


@dataclass(frozen=True, eq=False)
class RestrictedSolution:
    """The result of the exact model."""

    chosen: IntArray
    """(N,) a choice at least as good as before."""
    bound: float
    """Upper bound on the value of choices without larger regrets; infinite if undecided queries were omitted."""


def solve_restricted(
    problem: RelaxedProblem,
    reduced_profits: ReducedProfits,
    chosen: IntArray,
    objective: DualObjective,
    gap: float,
    minimise: SolveMilp,
    *,
    max_undecided: int,
    time_limit_s: float,
    seed: int = 0,
    min_weight: float | None = None,
    unit: float = 0.0,
) -> RestrictedSolution:
    """Choose again for the undecided queries.

    A choice falls short of the dual bound by the regrets of its plans and by the value of unused priced resources. A
    better choice than the current one therefore has no plan whose regret exceeds the current optimality gap at the
    prices: such plans are excluded, and a query with a single remaining option is decided.

    Args:
        problem: the queries.
        reduced_profits: at some prices.
        chosen: (N,) a feasible choice.
        objective: to be maximized.
        gap: maximum regret.
        minimise: the solver.
        max_undecided: maximum number of undecided queries; those with the smallest gap to their second option first.
        time_limit_s: of the solver.
        seed: of the solver.
        min_weight: that must be satisfied; the current choice satisfies it.
        unit: minimum difference between values, if they differ.
    """
    current_value = value_of(problem, chosen, objective)
    queries = np.flatnonzero(reduced_profits.second[problem.class_of] <= gap)
    is_complete = len(queries) <= max_undecided
    queries = reduced_profits.nearest(problem, queries, max_undecided)
    if not len(queries):  # only the best option of every query can be better
        best = choose_best_plans(problem, reduced_profits)
        improved = (
            best
            if _is_feasible(problem, best, min_weight) and value_of(problem, best, objective) > current_value
            else chosen
        )
        return RestrictedSolution(improved, value_of(problem, improved, objective))
    model = _Model.of(problem, reduced_profits, chosen, objective, queries, gap, min_weight, is_complete=is_complete)
    values, min_objective = minimise(
        model.programme,
        model.objective,
        model.start,
        time_limit_s=time_limit_s,
        gap=max(unit * (1 - _ROUNDING) - _ROUNDING, _ROUNDING * max(abs(current_value), 1.0)),
        seed=seed,
    )
    improved = chosen if values is None else model.choice(values)
    if value_of(problem, improved, objective) < current_value or not _is_feasible(problem, improved, min_weight):
        improved = chosen
    limit = np.inf
    if is_complete and np.isfinite(min_objective):
        limit = max(model.fixed_value - min_objective, current_value)
    return RestrictedSolution(improved, float(limit))


def value_of(problem: RelaxedProblem, chosen: IntArray, objective: DualObjective) -> float:
    """Return the value of a choice by an objective."""
    return objective.weight * problem.weight_of(chosen) - objective.cost * problem.cost_usd_per_h_of(chosen)


def _is_feasible(problem: RelaxedProblem, chosen: IntArray, min_weight: float | None) -> bool:
    """Return whether a choice fits, and satisfies the minimum weight."""
    weight_met = min_weight is None or problem.weight_of(chosen) >= min_weight * (1 - _ROUNDING)
    return weight_met and problem.usage_of(chosen).max(initial=0.0) <= 1.0 + CAPACITY_TOLERANCE


@dataclass(frozen=True, eq=False)
class _Model:
    programme: LpModel
    objective: FloatArray
    start: FloatArray
    query: IntArray
    """(columns,)"""
    plan: IntArray
    """(columns,)"""
    fixed: IntArray
    """(N,) plans of the decided queries."""
    fixed_value: float

    @classmethod
    def of(
        cls,
        problem: RelaxedProblem,
        reduced_profits: ReducedProfits,
        chosen: IntArray,
        objective: DualObjective,
        queries: IntArray,
        gap: float,
        min_weight: float | None,
        *,
        is_complete: bool,
    ) -> _Model:
        plans = problem.cost_usd_per_h.shape[1]
        reduced = reduced_profits.reduced[problem.class_of[queries]].astype(np.float64)
        best = reduced.max(axis=1)
        is_option: BoolArray = (best[:, None] - reduced <= gap) & np.isfinite(reduced)
        served = np.flatnonzero(chosen[queries] >= 0)
        is_option[served, chosen[queries[served]]] = True
        row, plan = np.nonzero(is_option[:, :plans])
        classes = problem.class_of[queries[row]]
        amounts = problem.amounts[classes, plan].astype(np.float64)
        fixed = chosen.copy()
        fixed[queries] = NOT_SERVED
        if is_complete:  # other queries have a single option within the gap, which a better choice must take
            is_fixed = np.ones(len(chosen), dtype=bool)
            is_fixed[queries] = False
            options = reduced_profits.reduced.argmax(axis=1)[problem.class_of[is_fixed]]
            fixed[is_fixed] = np.where(options == plans, NOT_SERVED, options)
        headroom = 1.0 - problem.usage_of(fixed)
        value = objective.weight * problem.weight[classes] - objective.cost * problem.cost_usd_per_h[classes, plan]
        programme = LpModel(upper=[1.0] * len(row))
        if min_weight is not None:
            missing = min_weight - problem.weight_of(fixed)
            programme.add_row(np.arange(len(row)), problem.weight[classes], missing * (1 - _ROUNDING), np.inf)
        bounds = np.searchsorted(row, np.arange(len(queries) + 1))
        for first, last in pairwise(bounds.tolist()):
            if last > first:
                programme.add_row(np.arange(first, last), np.ones(last - first), -np.inf, 1.0)
        resources = problem.resources[classes]
        for resource in np.unique(resources[amounts > 0]):
            column, slot = np.nonzero((resources == resource) & (amounts > 0))
            values = amounts[column, slot]
            if values.sum() > headroom[resource]:
                scale = 1.0 / max(float(values.max()), 1e-12)
                programme.add_row(column, values * scale, -np.inf, max(float(headroom[resource]), 0.0) * scale)
        start = (chosen[queries[row]] == plan).astype(np.float64)
        return cls(programme, -value, start, queries[row], plan, fixed, value_of(problem, fixed, objective))

    def choice(self, values: FloatArray) -> IntArray:
        """Return (N,) the choice of the columns' values, with the plans of the decided queries."""
        chosen = self.fixed.copy()
        selected = np.flatnonzero(values > 0.5)
        chosen[self.query[selected]] = self.plan[selected]
        return chosen
