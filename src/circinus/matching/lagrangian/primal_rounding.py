"""From prices to whole queries: each takes its best plan, then what is overfull is eased and what is left is filled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, reduced_profits
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries
from circinus.matching.lagrangian.relaxed_problem import TOLERANCE, Amounts, RelaxedProblem

_NEAREST, _TIMES = 10_000, 8
"""Queries a site that are moved first, and how many times more where these are not enough."""
_TRIED = 4_000
"""Queries a site that are tried to be served with what is left."""
_TOGETHER = 4_096
"""Queries whose moves are compared at once."""
_NO_RELIEF = 1e-12
_ROUNDINGS = 32
"""Operations that a reduced value comes of, each rounded."""


@dataclass(frozen=True, eq=False)
class ReducedProfits:
    """What every class's options are worth at some prices."""

    reduced: Amounts
    """(C, P + 1) value less what is paid; the last option, not being served, is worth 0."""
    best: IntArray
    """(C,) the option that is worth most."""

    @classmethod
    def at(cls, problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> ReducedProfits:
        """At some prices."""
        classes, plans = problem.cost_usd_per_h.shape
        reduced = np.zeros((classes, plans + 1), dtype=problem.amounts.dtype)
        for rows, values in reduced_profits(problem, objective, prices):
            reduced[rows, :plans] = values
        return cls(reduced, reduced.argmax(axis=1))

    def bound(self, problem: RelaxedProblem, prices: Prices) -> float:
        """The dual at the prices, as `dual.bound` gives it without a least weight, less the precision of the values."""
        best = self.reduced[np.arange(len(self.best)), self.best].astype(np.float64)
        rounding = float(np.finfo(self.reduced.dtype).eps) * _ROUNDINGS * float(np.abs(best).max(initial=0.0))
        resources = (prices.local.sum() + prices.shared.sum()) * (1.0 + TOLERANCE)
        return float((best + rounding) @ problem.multiplicity + resources)

    @cached_property
    def second(self) -> FloatArray:
        """(C,) how much worse than the best option the next one is."""
        count = self.reduced.shape[1]
        top = np.partition(self.reduced, count - 2, axis=1)[:, count - 2 :]
        return (top[:, 1] - top[:, 0]).astype(np.float64)

    def nearest(self, members: ExpandedQueries, queries: IntArray, most: int) -> IntArray:
        """Of some queries those, at most so many, whose second options are nearest to their best, ascending."""
        if len(queries) <= most:
            return queries
        return np.sort(queries[np.argpartition(self.second[members.class_of[queries]], most)[:most]])


def choose_best_plans(members: ExpandedQueries, regrets: ReducedProfits) -> IntArray:
    """(N,) the plan that pays best at the prices, for each query; overfull or not."""
    plans = regrets.reduced.shape[1] - 1
    chosen = regrets.best[members.class_of]
    return np.where(chosen == plans, NOT_SERVED, chosen).astype(np.int64)


def round_fractional(members: ExpandedQueries, taken: FloatArray) -> IntArray:
    """(N,) plans so that of each class about as many queries take each as `taken` (C, P) says; overfull or not.

    Where many queries are alike, prices at which some of them take a plan are prices at which all might: who takes what
    is then said by the divided answer, whose sums along the plans of a class are rounded.
    """
    whole = np.floor(np.cumsum(taken, axis=1) + 0.5).astype(np.int64)
    whole = np.minimum(whole, np.rint(members.problem.multiplicity).astype(np.int64)[:, None])
    number = np.arange(len(members.class_of)) - np.searchsorted(members.class_of, members.class_of)
    chosen = np.full(len(members.class_of), NOT_SERVED, dtype=np.int64)
    for first in range(0, len(chosen), _TOGETHER):
        part = slice(first, first + _TOGETHER)
        plan = (whole[members.class_of[part]] <= number[part, None]).sum(axis=1)
        chosen[part] = np.where(plan < taken.shape[1], plan, NOT_SERVED)
    return chosen


def repair_overload(members: ExpandedQueries, regrets: ReducedProfits, chosen: IntArray) -> IntArray:
    """(N,) the choice without what is overfull: queries take other plans, or none.

    Those go first that lose least at the prices for what they make free of what is overfull.
    """
    chosen = chosen.copy()
    usage, most = members.usage(chosen), _NEAREST * members.problem.sites
    while True:
        over = usage > 1.0 + TOLERANCE
        if not over.any():
            return chosen
        served = np.flatnonzero(chosen >= 0)
        served = served[over[members.resources[members.class_of[served]]].any(axis=1)]
        served = regrets.nearest(members, served, most)
        if not _eased(members, regrets, served, chosen, usage):
            assert most < len(chosen), "a query that is not served takes nothing"
            most *= _TIMES
        usage = members.usage(chosen)


def _eased(
    members: ExpandedQueries, regrets: ReducedProfits, served: IntArray, chosen: IntArray, usage: FloatArray
) -> bool:
    """Move those of the served that lose least, in place; whether any was moved."""
    problem, changed = members.problem, False
    plan, score = _best_moves(members, regrets, served, chosen, usage)
    for position in np.argsort(score, kind="stable").tolist():
        if not np.isfinite(score[position]):
            break
        query, option = int(served[position]), int(plan[position])
        row = int(members.class_of[query])
        resources = members.resources[row]
        there = usage[resources]
        if not (there > 1.0 + TOLERANCE).any():
            continue
        after = there - problem.amounts[row, chosen[query]]
        if option != NOT_SERVED:
            after += problem.amounts[row, option]
        if np.maximum(after - 1.0, 0.0).sum() < np.maximum(there - 1.0, 0.0).sum() - _NO_RELIEF:
            usage[resources] = after
            chosen[query], changed = option, True
            if not (usage > 1.0 + TOLERANCE).any():
                break
    return changed


def _best_moves(
    members: ExpandedQueries, regrets: ReducedProfits, served: IntArray, chosen: IntArray, usage: FloatArray
) -> tuple[IntArray, FloatArray]:
    """For each of the served the option with the least regret for its relief, and that; infinite: it brings none."""
    problem = members.problem
    plans = problem.cost_usd_per_h.shape[1]
    option, score = np.full(len(served), NOT_SERVED), np.full(len(served), np.inf)
    for first in range(0, len(served), _TOGETHER):
        part = slice(first, min(first + _TOGETHER, len(served)))
        queries = served[part]
        classes, rows = members.class_of[queries], np.arange(len(queries))
        change = np.zeros((len(queries), plans + 1, problem.amounts.shape[2]))
        change[:, :plans] = problem.amounts[classes]
        change -= problem.amounts[classes, chosen[queries]][:, None, :]
        room = 1.0 - usage[members.resources[classes]][:, None, :]
        relief = np.minimum(-change, -room).clip(min=0.0).sum(axis=2)
        relief -= (change - room.clip(min=0.0)).clip(min=0.0).sum(axis=2)
        reduced = regrets.reduced[classes].astype(np.float64)
        regret = reduced[rows, chosen[queries]][:, None] - reduced
        helps: BoolArray = (relief > _NO_RELIEF) & np.isfinite(regret)
        scores = np.where(helps, np.maximum(regret, 0.0), np.inf) / np.where(helps, relief, 1.0)
        best = scores.argmin(axis=1)
        option[part] = np.where(best == plans, NOT_SERVED, best)
        score[part] = scores[rows, best]
    return option, score


def _fit_alone(members: ExpandedQueries, queries: IntArray, usage: FloatArray) -> BoolArray:
    """(queries,) whether any plan of each fits into what is left, were it the only one to come in."""
    found = np.zeros(len(queries), dtype=bool)
    for first in range(0, len(queries), _TOGETHER):
        classes = members.class_of[queries[first : first + _TOGETHER]]
        room = np.maximum(1.0 - usage[members.resources[classes]], 0.0)
        fits = (members.problem.amounts[classes] <= room[:, None, :]).all(axis=2)
        fits &= np.isfinite(members.problem.cost_usd_per_h[classes])
        found[first : first + _TOGETHER] = fits.any(axis=1)
    return found


def greedy_fill(members: ExpandedQueries, regrets: ReducedProfits, chosen: IntArray) -> IntArray:
    """(N,) the choice and more queries, the best at the prices first, as far as they fit."""
    problem, chosen = members.problem, chosen.copy()
    usage = members.usage(chosen)
    plans, most = problem.cost_usd_per_h.shape[1], _TRIED * problem.sites
    out = np.flatnonzero(chosen < 0)
    worth = regrets.reduced[members.class_of[out], :plans].max(axis=1)
    if len(out) > most:
        kept = np.argpartition(-worth, most)[:most]
        out, worth = out[kept], worth[kept]
    could = _fit_alone(members, out, usage)
    out, worth = out[could], worth[could]
    for query in out[np.argsort(-worth, kind="stable")].tolist():
        row = int(members.class_of[query])
        resources = members.resources[row]
        fits = (problem.amounts[row] <= np.maximum(1.0 - usage[resources], 0.0)).all(axis=1)
        values = np.where(fits, regrets.reduced[row, :plans], -np.inf)
        plan = int(values.argmax())
        if np.isfinite(values[plan]):
            chosen[query] = plan
            usage[resources] += problem.amounts[row, plan]
    return chosen
