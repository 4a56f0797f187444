"""Local search over single queries: plan changes, admissions and removals, with their gain and usage."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem


@dataclass(frozen=True, eq=False)
class Moves:
    """m moves of queries of one site."""

    query: IntArray
    """(m,)"""
    plan: IntArray
    """(m,) -1: not served any more."""
    gain: FloatArray
    """(m,) gain in the objective."""
    change: FloatArray
    """(m, S) change of usage of the slots."""

    def __len__(self) -> int:
        return len(self.query)

    def without(self, queries: Collection[int]) -> Moves:
        """Return the moves of other queries."""
        is_other = ~np.isin(self.query, list(queries))
        return Moves(self.query[is_other], self.plan[is_other], self.gain[is_other], self.change[is_other])


def list_moves(
    problem: RelaxedProblem,
    reduced_profits: ReducedProfits,
    chosen: IntArray,
    objective: DualObjective,
    queries: IntArray,
    *,
    max_gaining: int,
    max_yielding: int,
) -> tuple[Moves, Moves]:
    """Return (improving moves, any moves), each limited to those with the least regret at the prices.

    Args:
        problem: all queries.
        reduced_profits: at some prices.
        chosen: (N,) the current choice.
        objective: of gains.
        queries: of one site, which may move.
        max_gaining: maximum number of improving moves.
        max_yielding: maximum number of any moves.
    """
    classes, plans = problem.class_of[queries], problem.cost_usd_per_h.shape[1]
    current, rows = np.where(chosen[queries] < 0, plans, chosen[queries]), np.arange(len(queries))
    reduced = reduced_profits.reduced[classes].astype(np.float64)
    regret = reduced[rows, current][:, None] - reduced
    cost = problem.cost_usd_per_h[classes]
    value = np.zeros((len(queries), plans + 1))
    value[:, :plans] = objective.weight * problem.weight[classes][:, None]
    value[:, :plans] -= objective.cost * np.where(np.isfinite(cost), cost, 0.0)
    gain = value - value[rows, current][:, None]
    possible: BoolArray = np.isfinite(reduced)
    possible[rows, current] = False
    moves = []
    for is_candidate, limit in ((possible & (gain > 0), max_gaining), (possible, max_yielding)):
        flat = np.flatnonzero(is_candidate)
        if len(flat) > limit:
            flat = flat[np.argpartition(regret.reshape(-1)[flat], limit)[:limit]]
        row, option = np.divmod(flat, plans + 1)
        change = usage_of_options(problem, classes[row], option) - usage_of_options(problem, classes[row], current[row])
        moves.append(Moves(queries[row], np.where(option == plans, NOT_SERVED, option), gain.reshape(-1)[flat], change))
    return moves[0], moves[1]


def usage_of_options(problem: RelaxedProblem, classes: IntArray, options: IntArray) -> FloatArray:
    """Return (m, S) usage of options of classes; 0 for the last option (not served) and for -1."""
    amounts = problem.amounts
    plans = amounts.shape[1]
    served = (options >= 0) & (options < plans)
    return np.where(served[:, None], amounts[classes, np.where(served, options, 0)], 0.0).astype(np.float64)


def best_pair(first: Moves, second: Moves, headroom: FloatArray, min_gain: float) -> list[tuple[Moves, int]] | None:
    """Return the best fitting improving move, alone or with one of the second kind.

    Args:
        first: a few improving moves.
        second: many moves.
        headroom: (S,) remaining capacity of the slots.
        min_gain: gain that must be exceeded.

    Returns:
        The moves and their positions, or None if nothing gains more.
    """
    if not len(first):
        return None
    best, moves = min_gain, None
    single_gain = np.where((first.change <= headroom).all(axis=1), first.gain, -np.inf)
    index = int(single_gain.argmax())
    if single_gain[index] > best:
        best, moves = float(single_gain[index]), [(first, index)]
    if not len(second):
        return moves
    fits = np.ones((len(first), len(second)), dtype=bool)
    for slot in range(len(headroom)):
        fits &= second.change[:, slot] <= (headroom[slot] - first.change[:, slot])[:, None]
    fits &= first.query[:, None] != second.query
    total = np.where(fits, first.gain[:, None] + second.gain, -np.inf)
    row, column = np.unravel_index(int(total.argmax()), total.shape)
    if total[row, column] > best:
        moves = [(first, int(row)), (second, int(column))]
    return moves


_MAX_GAINING, _MAX_YIELDING = 96, 1024
"""Maximum number of moves of a site: improving ones, and ones that free capacity."""
_MOVES_PER_QUERY = 0.5, 4.0
"""Maximum number of both kinds of moves for each query of a small site."""
_MAX_QUERIES = 4_000
"""Maximum number of queries of a site whose moves are considered."""
_MAX_ROUNDS = 4
"""Maximum number of times that moves are listed."""
_NO_GAIN = 1e-9
"""Rounding tolerance, as a share of the maximum value of a query."""


def swap_search(
    problem: RelaxedProblem,
    reduced_profits: ReducedProfits,
    chosen: IntArray,
    objective: DualObjective,
    *,
    sites: IntArray | None = None,
) -> IntArray:
    """Return (N,) a choice at least as good, after some rounds of pairs of moves (swaps and ejections).

    Args:
        problem: the queries.
        reduced_profits: by which moves are preselected.
        chosen: (N,) a feasible choice.
        objective: to be maximized.
        sites: whose queries may move; None: all.
    """
    chosen = chosen.copy()
    min_gain = improvement_tolerance(problem, objective)
    starts, usage = problem.site_starts, problem.usage_of(chosen)
    for site in (np.arange(problem.sites) if sites is None else sites).tolist():
        if starts[site] == starts[site + 1]:
            continue
        queries = reduced_profits.nearest(problem, np.arange(starts[site], starts[site + 1]), _MAX_QUERIES)
        resources = problem.resources[problem.class_of[queries[0]]]
        limits = [math.ceil(share * len(queries)) for share in _MOVES_PER_QUERY]
        for _ in range(_MAX_ROUNDS):
            improving, degrading = list_moves(
                problem, reduced_profits, chosen, objective, queries,
                max_gaining=min(_MAX_GAINING, limits[0]), max_yielding=min(_MAX_YIELDING, limits[1]),
            )  # fmt: skip
            previous = chosen[queries]
            while (
                pair := best_pair(improving, degrading, np.maximum(1.0 - usage[resources], 0.0), min_gain)
            ) is not None:
                for moves, index in pair:
                    usage[resources] += moves.change[index]
                    chosen[moves.query[index]] = moves.plan[index]
                moved = [int(moves.query[index]) for moves, index in pair]
                improving, degrading = improving.without(moved), degrading.without(moved)
            if np.array_equal(previous, chosen[queries]):
                break
    return chosen


def improvement_tolerance(problem: RelaxedProblem, objective: DualObjective) -> float:
    """Return the rounding tolerance of the objective."""
    return _NO_GAIN * (objective.weight * float(problem.weight.max(initial=0.0)) + objective.cost)
