"""Pairs of moves that help although neither fits or pays alone: 1-1 exchanges and ejections.

A query that gains (it comes in, or takes a better plan) may lack room; another one of its site makes it, by leaving or
by taking another plan. All pairs of the most promising moves are compared at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from circinus.matching.prices.answer import NOT_SERVED, Members
from circinus.matching.prices.dual import Objective
from circinus.matching.prices.fluid import FloatArray, IntArray
from circinus.matching.prices.rounding import Regrets

_GAINING, _YIELDING = 96, 1024
"""Moves of a site that are looked at: those with most gain at the prices, and those with least regret."""
_A_QUERY = 0.5, 4.0
"""The same for each query of a site, where it has few."""
_NEAREST = 4_000
"""Queries of a site whose moves are looked at."""
_ROUNDS = 4
"""Times that moves are listed anew."""
_NO_GAIN = 1e-9
"""Share of the most that serving a query can be worth that counts as rounding."""


@dataclass(frozen=True, eq=False)
class _Moves:
    """Of single queries to other plans, or out."""

    query: IntArray
    plan: IntArray
    gain: FloatArray
    """In the objective."""
    change: FloatArray
    """(moves, S) of what is taken."""

    def without(self, queries: list[int]) -> _Moves:
        kept = ~np.isin(self.query, queries)
        return _Moves(self.query[kept], self.plan[kept], self.gain[kept], self.change[kept])


def exchange(members: Members, regrets: Regrets, chosen: IntArray, objective: Objective) -> IntArray:
    """(N,) a choice at least as good, with what was found in some rounds of pairs.

    Args:
        members: the queries.
        regrets: by which moves are chosen to be looked at.
        chosen: (N,) a choice that fits.
        objective: what is to gain.
    """
    problem, chosen = members.problem, chosen.copy()
    least = _NO_GAIN * (objective.weight * float(problem.weight.max(initial=0.0)) + objective.cost)
    starts = np.searchsorted(problem.site[members.class_of], np.arange(problem.sites + 1))
    usage = members.usage(chosen)
    for site in np.flatnonzero(np.diff(starts)):
        queries = regrets.nearest(members, np.arange(starts[site], starts[site + 1]), _NEAREST)
        resources = members.resources[members.class_of[queries[0]]]
        for _ in range(_ROUNDS):
            gaining, yielding = _moves(members, regrets, chosen, objective, queries)
            before = chosen[queries]
            while (pair := _best_pair(gaining, yielding, 1.0 - usage[resources], least)) is not None:
                for moves, one in pair:
                    usage[resources] += moves.change[one]
                    chosen[moves.query[one]] = moves.plan[one]
                moved = [int(moves.query[one]) for moves, one in pair]
                gaining, yielding = gaining.without(moved), yielding.without(moved)
            if np.array_equal(before, chosen[queries]):
                break
    return chosen


def _best_pair(gaining: _Moves, yielding: _Moves, room: FloatArray, least: float) -> list[tuple[_Moves, int]] | None:
    """One move or two that gain most together and fit; None: nothing gains more than the least."""
    if not len(gaining.query):
        return None
    best, found = least, None
    alone = np.where((gaining.change <= room).all(axis=1), gaining.gain, -np.inf)
    one = int(alone.argmax())
    if alone[one] > best:
        best, found = float(alone[one]), [(gaining, one)]
    if not len(yielding.query):
        return found
    fits = np.ones((len(gaining.query), len(yielding.query)), dtype=bool)
    for slot in range(len(room)):
        fits &= yielding.change[:, slot] <= (room[slot] - gaining.change[:, slot])[:, None]
    fits &= gaining.query[:, None] != yielding.query
    total = np.where(fits, gaining.gain[:, None] + yielding.gain, -np.inf)
    first, second = np.unravel_index(int(total.argmax()), total.shape)
    if total[first, second] > best:
        found = [(gaining, int(first)), (yielding, int(second))]
    return found


def _moves(
    members: Members, regrets: Regrets, chosen: IntArray, objective: Objective, queries: IntArray
) -> tuple[_Moves, _Moves]:
    """(those that gain, those that hardly lose at the prices)"""
    problem = members.problem
    classes, plans = members.class_of[queries], problem.cost_usd_per_h.shape[1]
    now = np.where(chosen[queries] < 0, plans, chosen[queries])
    rows = np.arange(len(queries))
    reduced = regrets.reduced[classes].astype(np.float64)
    regret = reduced[rows, now][:, None] - reduced
    worth = np.zeros((len(queries), plans + 1))
    worth[:, :plans] = objective.weight * problem.weight[classes][:, None]
    cost = problem.cost_usd_per_h[classes]
    worth[:, :plans] -= objective.cost * np.where(np.isfinite(cost), cost, 0.0)
    gain = worth - worth[rows, now][:, None]
    possible = np.isfinite(reduced)
    possible[rows, now] = False
    parts = []
    few = [math.ceil(share * len(queries)) for share in _A_QUERY]
    for wanted, count in (
        (possible & (gain > 0), min(_GAINING, few[0])),
        (possible, min(_YIELDING, few[1])),
    ):
        flat = np.flatnonzero(wanted)
        score = regret.reshape(-1)[flat]
        if len(flat) > count:
            flat = flat[np.argpartition(score, count)[:count]]
        row, plan = np.divmod(flat, plans + 1)
        before = np.where(
            (now[row] < plans)[:, None], problem.amounts[classes[row], np.minimum(now[row], plans - 1)], 0.0
        )
        after = np.where((plan < plans)[:, None], problem.amounts[classes[row], np.minimum(plan, plans - 1)], 0.0)
        change = after.astype(np.float64) - before
        parts.append(_Moves(queries[row], np.where(plan == plans, NOT_SERVED, plan), gain.reshape(-1)[flat], change))
    return parts[0], parts[1]
