"""Single queries that take another plan, come in or leave: what that gains, and what it takes or makes free."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries


@dataclass(frozen=True, eq=False)
class ChurnTerms:
    """What runs already, and what it costs to change it."""

    chosen: IntArray
    """(N,) the plan that each query runs, -1 for none."""
    churn: float
    """In the objective, what must be gained for every running query that gets another plan, or none."""


@dataclass(frozen=True, eq=False)
class Moves:
    """Of queries of one site; m of them."""

    query: IntArray
    """(m,)"""
    plan: IntArray
    """(m,) -1: not served any more."""
    gain: FloatArray
    """(m,) in the objective."""
    change: FloatArray
    """(m, S) of what is taken of the slots."""

    def __len__(self) -> int:
        return len(self.query)

    def without(self, queries: Collection[int]) -> Moves:
        """The moves of other queries."""
        kept = ~np.isin(self.query, list(queries))
        return Moves(self.query[kept], self.plan[kept], self.gain[kept], self.change[kept])


def list_moves(
    members: ExpandedQueries,
    regrets: ReducedProfits,
    chosen: IntArray,
    objective: DualObjective,
    queries: IntArray,
    *,
    max_gaining: int,
    max_yielding: int,
    running: ChurnTerms | None = None,
) -> tuple[Moves, Moves]:
    """(moves that gain, any moves), of each kind those with the least regret at the prices.

    Args:
        members: all queries.
        regrets: at some prices.
        chosen: (N,) the present choice.
        objective: of gains.
        queries: whose moves are looked at; all of one site.
        max_gaining: moves of the first kind at most.
        max_yielding: moves of the second kind at most.
        running: what runs already, so that changes of it have a price.
    """
    problem = members.problem
    classes, plans = members.class_of[queries], problem.cost_usd_per_h.shape[1]
    now, rows = np.where(chosen[queries] < 0, plans, chosen[queries]), np.arange(len(queries))
    reduced = regrets.reduced[classes].astype(np.float64)
    regret = reduced[rows, now][:, None] - reduced
    cost = problem.cost_usd_per_h[classes]
    worth = np.zeros((len(queries), plans + 1))
    worth[:, :plans] = objective.weight * problem.weight[classes][:, None]
    worth[:, :plans] -= objective.cost * np.where(np.isfinite(cost), cost, 0.0)
    if running is not None:
        served = np.flatnonzero(running.chosen[queries] >= 0)
        worth[served] -= running.churn
        worth[served, running.chosen[queries[served]]] += running.churn
    gain = worth - worth[rows, now][:, None]
    possible: BoolArray = np.isfinite(reduced)
    possible[rows, now] = False
    found = []
    for wanted, most in ((possible & (gain > 0), max_gaining), (possible, max_yielding)):
        flat = np.flatnonzero(wanted)
        if len(flat) > most:
            flat = flat[np.argpartition(regret.reshape(-1)[flat], most)[:most]]
        row, option = np.divmod(flat, plans + 1)
        change = usage_of_options(members, classes[row], option) - usage_of_options(members, classes[row], now[row])
        found.append(Moves(queries[row], np.where(option == plans, NOT_SERVED, option), gain.reshape(-1)[flat], change))
    return found[0], found[1]


def usage_of_options(members: ExpandedQueries, classes: IntArray, options: IntArray) -> FloatArray:
    """(m, S) what options of classes take; the last one, not being served, and -1 nothing."""
    amounts = members.problem.amounts
    plans = amounts.shape[1]
    served = (options >= 0) & (options < plans)
    return np.where(served[:, None], amounts[classes, np.where(served, options, 0)], 0.0).astype(np.float64)


def best_pair(first: Moves, second: Moves, room: FloatArray, least: float) -> list[tuple[Moves, int]] | None:
    """One move of the first kind, alone or with one of the second, that gains most and fits.

    Args:
        first: a few.
        second: many.
        room: (S,) what is left of the slots.
        least: that must be gained more than.

    Returns:
        The moves and where they stand; None: nothing gains more.
    """
    if not len(first):
        return None
    best, found = least, None
    alone = np.where((first.change <= room).all(axis=1), first.gain, -np.inf)
    one = int(alone.argmax())
    if alone[one] > best:
        best, found = float(alone[one]), [(first, one)]
    if not len(second):
        return found
    fits = np.ones((len(first), len(second)), dtype=bool)
    for slot in range(len(room)):
        fits &= second.change[:, slot] <= (room[slot] - first.change[:, slot])[:, None]
    fits &= first.query[:, None] != second.query
    total = np.where(fits, first.gain[:, None] + second.gain, -np.inf)
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    if total[row, column] > best:
        found = [(first, int(row)), (second, int(column))]
    return found


_GAINING, _YIELDING = 96, 1024
"""Moves of a site that are looked at: those that gain, and those that make room."""
_A_QUERY = 0.5, 4.0
"""The same for each query of a site, where it has few."""
_NEAREST = 4_000
"""Queries of a site whose moves are looked at."""
_ROUNDS = 4
"""Times that moves are listed anew."""
_NO_GAIN = 1e-9
"""Share of the most that serving a query can be worth that counts as rounding."""


def swap_search(
    members: ExpandedQueries,
    regrets: ReducedProfits,
    chosen: IntArray,
    objective: DualObjective,
    *,
    running: ChurnTerms | None = None,
    sites: IntArray | None = None,
) -> IntArray:
    """(N,) a choice at least as good, with what was found in some rounds of pairs.

    Args:
        members: the queries.
        regrets: by which moves are chosen to be looked at.
        chosen: (N,) a choice that fits.
        objective: what is to gain.
        running: what runs already, so that changes of it have a price.
        sites: those whose queries may move; None: all.
    """
    problem, chosen = members.problem, chosen.copy()
    least = improvement_tolerance(members, objective)
    starts, usage = members.site_starts, members.usage(chosen)
    for site in (np.arange(problem.sites) if sites is None else sites).tolist():
        if starts[site] == starts[site + 1]:
            continue
        queries = regrets.nearest(members, np.arange(starts[site], starts[site + 1]), _NEAREST)
        resources = members.resources[members.class_of[queries[0]]]
        few = [math.ceil(share * len(queries)) for share in _A_QUERY]
        for _ in range(_ROUNDS):
            gaining, yielding = list_moves(
                members, regrets, chosen, objective, queries,
                max_gaining=min(_GAINING, few[0]), max_yielding=min(_YIELDING, few[1]), running=running,
            )  # fmt: skip
            before = chosen[queries]
            while (pair := best_pair(gaining, yielding, np.maximum(1.0 - usage[resources], 0.0), least)) is not None:
                for moves, one in pair:
                    usage[resources] += moves.change[one]
                    chosen[moves.query[one]] = moves.plan[one]
                moved = [int(moves.query[one]) for moves, one in pair]
                gaining, yielding = gaining.without(moved), yielding.without(moved)
            if np.array_equal(before, chosen[queries]):
                break
    return chosen


def improvement_tolerance(members: ExpandedQueries, objective: DualObjective) -> float:
    """What is rounding in the objective."""
    return _NO_GAIN * (objective.weight * float(members.problem.weight.max(initial=0.0)) + objective.cost)
