"""The paper's matching of queries and plans in a bipartite graph, as we understand it.

Queries on one side, resources on the other, with as many places as plans of average size fit; an edge is the query's
smallest plan whose largest share is of that resource, worth the query's weight less a little for its cost. A maximum
matching says who goes where, what does not fit then is refused, and what is left is matched again in a few rounds.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.matching.first_come import insert
from benchmarks.baselines.matching.greedy import dominant_shares
from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries

_ROUNDS = 4
_COST_COUNTS = 1e-3


def query_plan_bipartite(members: ExpandedQueries) -> IntArray:
    """(N,) matched in some rounds."""
    problem = members.problem
    shares = np.where(np.isfinite(problem.cost_usd_per_h), dominant_shares(members), np.inf)
    slot, slots = problem.amounts.argmax(axis=2), problem.amounts.shape[2]
    best = np.full((problem.classes, slots), -1)
    size = np.full((problem.classes, slots), np.inf)
    for plan in range(shares.shape[1]):
        rows, where = np.arange(problem.classes), slot[:, plan]
        better = shares[:, plan] < size[rows, where]
        size[rows[better], where[better]] = shares[better, plan]
        best[rows[better], where[better]] = plan
    chosen = np.full(len(members.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(members.capacities)
    for _ in range(_ROUNDS):
        waiting = np.flatnonzero(chosen == NOT_SERVED)
        if not len(waiting):
            break
        before = len(waiting)
        for query, where in _matched(members, waiting, best, size, usage):
            insert(members, chosen, usage, query, int(best[members.class_of[query], where]))
        if (chosen == NOT_SERVED).sum() == before:
            break
    return chosen


def _matched(
    members: ExpandedQueries, waiting: IntArray, best: IntArray, size: FloatArray, usage: FloatArray
) -> list[tuple[int, int]]:
    """(query, slot) pairs by an auction: who is worth most chooses first among the places that are left."""
    problem = members.problem
    classes = members.class_of[waiting]
    listed = best[classes] >= 0
    where_to = members.resources[classes][listed]
    count = np.bincount(where_to, minlength=members.capacities)
    usual = np.bincount(where_to, weights=size[classes][listed], minlength=members.capacities) / np.maximum(count, 1)
    left = np.floor((1.0 - usage) / np.maximum(usual, 1e-12))
    costs = problem.cost_usd_per_h[classes].min(axis=1)
    worth = problem.weight[classes] - _COST_COUNTS * costs
    pairs = []
    for position in np.argsort(-worth, kind="stable").tolist():
        row = int(classes[position])
        resources = members.resources[row]
        open_ = (best[row] >= 0) & (left[resources] >= 1)
        if open_.any():
            where = int(np.where(open_, size[row], np.inf).argmin())
            left[resources[where]] -= 1
            pairs.append((int(waiting[position]), where))
    return pairs
