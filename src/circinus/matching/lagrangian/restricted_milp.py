"""An exact model over the queries that the prices leave in doubt; all others keep their plans."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.primal_rounding import ReducedProfits, choose_best_plans
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries
from circinus.matching.lagrangian.relaxed_problem import TOLERANCE
from circinus.matching.solvers.highs import LpModel, SolveMilp

_ROUNDING = 1e-9
"""Share by which sums of weights may differ."""


@dataclass(frozen=True, eq=False)
class RestrictedSolution:
    """What came of the exact model."""

    chosen: IntArray
    """(N,) at least as good as before."""
    bound: float
    """No choice without greater regrets is worth more; infinite where queries in doubt were left out."""


def solve_restricted(
    members: ExpandedQueries,
    regrets: ReducedProfits,
    chosen: IntArray,
    objective: DualObjective,
    gap: float,
    minimise: SolveMilp,
    *,
    most: int,
    time_limit_s: float,
    seed: int = 0,
    least_weight: float | None = None,
    unit: float = 0.0,
) -> RestrictedSolution:
    """Choose anew for the queries that are in doubt.

    A choice falls short of the dual bound by the regrets of its plans and by what is left of priced resources. So one
    that is better than the present one has no plan whose regret is more than the present distance from the bound at
    the prices of the regrets: such plans are left out, and a query with one option left is not in doubt.

    Args:
        members: the queries.
        regrets: at some prices.
        chosen: (N,) a choice that fits.
        objective: what is maximised.
        gap: the greatest regret that is looked at.
        minimise: the solver.
        most: queries in doubt that are chosen for at once; those with the nearest alternatives first.
        time_limit_s: of the solver.
        seed: of the solver.
        least_weight: that must be satisfied; the present choice does.
        unit: by which worths differ at least, if they do.
    """
    now = members.worth(chosen, objective)
    queries = np.flatnonzero(regrets.second[members.class_of] <= gap)
    complete = len(queries) <= most
    queries = regrets.nearest(members, queries, most)
    if not len(queries):  # a better choice takes the best of every query, if that fits
        best = choose_best_plans(members, regrets)
        found = best if _keeps(members, best, least_weight) and members.worth(best, objective) > now else chosen
        return RestrictedSolution(found, members.worth(found, objective))
    model = _Model.of(members, regrets, chosen, objective, queries, gap, least_weight, complete=complete)
    values, least = minimise(
        model.programme,
        model.objective,
        model.start,
        time_limit_s=time_limit_s,
        gap=max(unit * (1 - _ROUNDING) - _ROUNDING, _ROUNDING * max(abs(now), 1.0)),
        seed=seed,
    )
    found = chosen if values is None else model.choice(values)
    if members.worth(found, objective) < now or not _keeps(members, found, least_weight):
        found = chosen
    limit = np.inf
    if complete and np.isfinite(least):
        limit = max(model.fixed_worth - least, now)
    return RestrictedSolution(found, float(limit))


def _keeps(members: ExpandedQueries, chosen: IntArray, least_weight: float | None) -> bool:
    """Whether a choice fits, and satisfies the weight that it must."""
    enough = least_weight is None or members.weight(chosen) >= least_weight * (1 - _ROUNDING)
    return enough and members.usage(chosen).max(initial=0.0) <= 1.0 + TOLERANCE


@dataclass(frozen=True, eq=False)
class _Model:
    programme: LpModel
    objective: FloatArray
    start: FloatArray
    query: IntArray
    """(columns,)"""
    plan: IntArray
    """(columns,)"""
    others: IntArray
    """(N,) what those have that are not in doubt."""
    fixed_worth: float

    @classmethod
    def of(
        cls,
        members: ExpandedQueries,
        regrets: ReducedProfits,
        chosen: IntArray,
        objective: DualObjective,
        queries: IntArray,
        gap: float,
        least_weight: float | None,
        *,
        complete: bool,
    ) -> _Model:
        problem = members.problem
        plans = problem.cost_usd_per_h.shape[1]
        reduced = regrets.reduced[members.class_of[queries]].astype(np.float64)
        best = reduced.max(axis=1)
        within: BoolArray = (best[:, None] - reduced <= gap) & np.isfinite(reduced)
        served = np.flatnonzero(chosen[queries] >= 0)
        within[served, chosen[queries[served]]] = True
        row, plan = np.nonzero(within[:, :plans])
        classes = members.class_of[queries[row]]
        amounts = problem.amounts[classes, plan].astype(np.float64)
        others = chosen.copy()
        others[queries] = NOT_SERVED
        if complete:  # the others have one option within the distance, and a better choice takes that
            clear = np.ones(len(chosen), dtype=bool)
            clear[queries] = False
            options = regrets.best[members.class_of[clear]]
            others[clear] = np.where(options == plans, NOT_SERVED, options)
        room = 1.0 - members.usage(others)
        worth = objective.weight * problem.weight[classes] - objective.cost * problem.cost_usd_per_h[classes, plan]
        programme = LpModel(upper=[1.0] * len(row))
        if least_weight is not None:
            missing = least_weight - members.weight(others)
            programme.add_row(np.arange(len(row)), problem.weight[classes], missing * (1 - _ROUNDING), np.inf)
        bounds = np.searchsorted(row, np.arange(len(queries) + 1))
        for first, last in pairwise(bounds.tolist()):
            if last > first:
                programme.add_row(np.arange(first, last), np.ones(last - first), -np.inf, 1.0)
        resources = members.resources[classes]
        for resource in np.unique(resources[amounts > 0]):
            column, slot = np.nonzero((resources == resource) & (amounts > 0))
            values = amounts[column, slot]
            if values.sum() > room[resource]:
                scale = 1.0 / max(float(values.max()), 1e-12)
                programme.add_row(column, values * scale, -np.inf, max(float(room[resource]), 0.0) * scale)
        start = (chosen[queries[row]] == plan).astype(np.float64)
        return cls(programme, -worth, start, queries[row], plan, others, members.worth(others, objective))

    def choice(self, values: FloatArray) -> IntArray:
        """(N,) what the columns' values say, beside what the others have."""
        found = self.others.copy()
        taken = np.flatnonzero(values > 0.5)
        found[self.query[taken]] = self.plan[taken]
        return found
