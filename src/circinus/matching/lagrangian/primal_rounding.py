"""Rounding of the fractional optimum to whole queries: overload is repaired, and free capacity is filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, reduced_profits
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, Amounts, RelaxedProblem
from circinus.matching.tolerances import CAPACITY_TOLERANCE

_INITIAL_MOVED, _GROWTH = 10_000, 8
"""Number of queries per site that are moved first, and growth factor if these are not enough."""
_MAX_FILL_TRIES = 4_000
"""Maximum number of queries per site that are tried to fill free capacity."""
_BATCH = 4_096
"""Number of queries whose moves are compared at once."""
_MIN_RELIEF = 1e-12


@dataclass(frozen=True, eq=False)
class ReducedProfits:
    """Reduced profits of every class's options at some prices."""

    reduced: Amounts
    """(C, P + 1) value minus payment; 0 for the last option, which is not being served."""

    @classmethod
    def at(cls, problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> ReducedProfits:
        """Compute the reduced profits at some prices."""
        classes, plans = problem.cost_usd_per_h.shape
        reduced = np.zeros((classes, plans + 1), dtype=problem.amounts.dtype)
        for rows, values in reduced_profits(problem, objective, prices):
            reduced[rows, :plans] = values
        return cls(reduced)

    @cached_property
    def second(self) -> FloatArray:
        """(C,) gap between the best and the second best option."""
        return np.concatenate(
            [gaps_of_best(self.reduced[start : start + _BATCH])[1] for start in range(0, len(self.reduced), _BATCH)]
            or [np.zeros(0)]
        )

    def nearest(self, problem: RelaxedProblem, queries: IntArray, limit: int) -> IntArray:
        """Return at most `limit` of the queries, those with the smallest gap to their second option, ascending."""
        if len(queries) <= limit:
            return queries
        return np.sort(queries[np.argpartition(self.second[problem.class_of[queries]], limit)[:limit]])


def round_fractional(problem: RelaxedProblem, fractional: FloatArray) -> IntArray:
    """Return (N,) plans such that the counts within a class match `fractional` (C, P); may exceed capacities.

    With many identical queries, prices at which some of them take a plan are prices at which all might: the fractional
    solution decides, by rounding its cumulative sums over the plans of a class.
    """
    chosen = np.full(len(problem.class_of), NOT_SERVED, dtype=np.int64)
    most = np.rint(problem.multiplicity)
    for start in range(0, len(chosen), _BATCH):
        part = slice(start, start + _BATCH)
        classes = problem.class_of[part]
        rows = slice(classes[0], classes[-1] + 1)
        rounded = np.minimum(np.floor(np.cumsum(fractional[rows], axis=1) + 0.5), most[rows, None])
        index = np.arange(start, start + len(classes)) - np.searchsorted(problem.class_of, classes)
        plan = (rounded[classes - classes[0]] <= index[:, None]).sum(axis=1)
        chosen[part] = np.where(plan < fractional.shape[1], plan, NOT_SERVED)
    return chosen


def gaps_of_best(values: Amounts) -> tuple[IntArray, FloatArray, IntArray]:
    """Return, of each row, the first greatest value's position, its gap to the second, and the second's position."""
    rest, rows = values.copy(), np.arange(len(values))
    best = rest.argmax(axis=1)
    rest[rows, best] = -np.inf
    second = rest.argmax(axis=1)
    return best, (values[rows, best] - values[rows, second]).astype(np.float64), second


def repair_overload(problem: RelaxedProblem, reduced_profits: ReducedProfits, chosen: IntArray) -> IntArray:
    """Return (N,) the choice without overload: queries move to other plans, or lose theirs.

    Queries with the least loss at the prices per relief of overloaded resources move first.
    """
    chosen = chosen.copy()
    usage, max_moved = problem.usage_of(chosen), _INITIAL_MOVED * problem.sites
    while True:
        over = usage > 1.0 + CAPACITY_TOLERANCE
        if not over.any():
            return chosen
        served = np.flatnonzero(chosen >= 0)
        served = served[over[problem.resources[problem.class_of[served]]].any(axis=1)]
        served = reduced_profits.nearest(problem, served, max_moved)
        if not _move_overloaded(problem, reduced_profits, served, chosen, usage):
            assert max_moved < len(chosen), "a query that is not served takes nothing"
            max_moved *= _GROWTH
        usage = problem.usage_of(chosen)


def _move_overloaded(
    problem: RelaxedProblem, reduced_profits: ReducedProfits, served: IntArray, chosen: IntArray, usage: FloatArray
) -> bool:
    """Move the served queries with the least loss, in place, and return whether any was moved."""
    any_moved = False
    plan, score = _best_moves(problem, reduced_profits, served, chosen, usage)
    for position in np.argsort(score, kind="stable").tolist():
        if not np.isfinite(score[position]):
            break
        query, option = int(served[position]), int(plan[position])
        row = int(problem.class_of[query])
        resources = problem.resources[row]
        current = usage[resources]
        if not (current > 1.0 + CAPACITY_TOLERANCE).any():
            continue
        after = current - problem.amounts[row, chosen[query]]
        if option != NOT_SERVED:
            after += problem.amounts[row, option]
        if np.maximum(after - 1.0, 0.0).sum() < np.maximum(current - 1.0, 0.0).sum() - _MIN_RELIEF:
            usage[resources] = after
            chosen[query], any_moved = option, True
            if not (usage > 1.0 + CAPACITY_TOLERANCE).any():
                break
    return any_moved


def _best_moves(
    problem: RelaxedProblem, reduced_profits: ReducedProfits, served: IntArray, chosen: IntArray, usage: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Return, for each served query, the option with the least regret per relief, and its ratio (or infinity)."""
    plans = problem.cost_usd_per_h.shape[1]
    option, score = np.full(len(served), NOT_SERVED), np.full(len(served), np.inf)
    for start in range(0, len(served), _BATCH):
        part = slice(start, min(start + _BATCH, len(served)))
        queries = served[part]
        classes, rows = problem.class_of[queries], np.arange(len(queries))
        change = np.zeros((len(queries), plans + 1, problem.amounts.shape[2]))
        change[:, :plans] = problem.amounts[classes]
        change -= problem.amounts[classes, chosen[queries]][:, None, :]
        headroom = 1.0 - usage[problem.resources[classes]][:, None, :]
        relief = np.minimum(-change, -headroom).clip(min=0.0).sum(axis=2)
        relief -= (change - headroom.clip(min=0.0)).clip(min=0.0).sum(axis=2)
        reduced = reduced_profits.reduced[classes].astype(np.float64)
        regret = reduced[rows, chosen[queries]][:, None] - reduced
        helps: BoolArray = (relief > _MIN_RELIEF) & np.isfinite(regret)
        scores = np.where(helps, np.maximum(regret, 0.0), np.inf) / np.where(helps, relief, 1.0)
        best = scores.argmin(axis=1)
        option[part] = np.where(best == plans, NOT_SERVED, best)
        score[part] = scores[rows, best]
    return option, score


def _fit_individually(problem: RelaxedProblem, queries: IntArray, usage: FloatArray) -> BoolArray:
    """Return (queries,) whether any plan of each fits into the free capacity on its own."""
    fits_any = np.zeros(len(queries), dtype=bool)
    for start in range(0, len(queries), _BATCH):
        classes = problem.class_of[queries[start : start + _BATCH]]
        headroom = np.maximum(1.0 - usage[problem.resources[classes]], 0.0)
        fits = (problem.amounts[classes] <= headroom[:, None, :]).all(axis=2)
        fits &= np.isfinite(problem.cost_usd_per_h[classes])
        fits_any[start : start + _BATCH] = fits.any(axis=1)
    return fits_any


def greedy_fill(problem: RelaxedProblem, reduced_profits: ReducedProfits, chosen: IntArray) -> IntArray:
    """Return (N,) the choice with more queries, the best at the prices first, as far as they fit."""
    chosen = chosen.copy()
    usage = problem.usage_of(chosen)
    plans, max_tried = problem.cost_usd_per_h.shape[1], _MAX_FILL_TRIES * problem.sites
    unserved = np.flatnonzero(chosen < 0)
    value = reduced_profits.reduced[problem.class_of[unserved], :plans].max(axis=1)
    if len(unserved) > max_tried:
        best = np.argpartition(-value, max_tried)[:max_tried]
        unserved, value = unserved[best], value[best]
    fits_dedicated = _fit_individually(problem, unserved, usage)
    unserved, value = unserved[fits_dedicated], value[fits_dedicated]
    for query in unserved[np.argsort(-value, kind="stable")].tolist():
        row = int(problem.class_of[query])
        resources = problem.resources[row]
        fits = (problem.amounts[row] <= np.maximum(1.0 - usage[resources], 0.0)).all(axis=1)
        values = np.where(fits, reduced_profits.reduced[row, :plans], -np.inf)
        plan = int(values.argmax())
        if np.isfinite(values[plan]):
            chosen[query] = plan
            usage[resources] += problem.amounts[row, plan]
    return chosen
