"""Matching of queries and plans in a bipartite graph, our understanding of the Circinus paper.

One side has the queries, the other resources, with as many slots as plans of average size fit. An edge is the query's
smallest plan whose largest share is of that resource; its value is the query's weight less a little for its cost.
Queries are assigned by a maximum matching and rejected if they do not fit; the rest is matched again in a few rounds.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.matching.first_come import insert
from benchmarks.baselines.matching.greedy import dominant_shares
from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem

_ROUNDS = 4
_COST_COUNTS = 1e-3


def query_plan_bipartite(problem: RelaxedProblem) -> IntArray:
    """Return (N,) plans, matched in rounds."""
    shares = np.where(np.isfinite(problem.cost_usd_per_h), dominant_shares(problem), np.inf)
    slot, slots = problem.amounts.argmax(axis=2), problem.amounts.shape[2]
    best = np.full((problem.classes, slots), -1)
    size = np.full((problem.classes, slots), np.inf)
    for plan in range(shares.shape[1]):
        rows, slot_of_plan = np.arange(problem.classes), slot[:, plan]
        better = shares[:, plan] < size[rows, slot_of_plan]
        size[rows[better], slot_of_plan[better]] = shares[better, plan]
        best[rows[better], slot_of_plan[better]] = plan
    chosen = np.full(len(problem.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(problem.capacities)
    for _ in range(_ROUNDS):
        waiting = np.flatnonzero(chosen == NOT_SERVED)
        if not len(waiting):
            break
        remaining = len(waiting)
        for query, slot_of_plan in _matched(problem, waiting, best, size, usage):
            insert(problem, chosen, usage, query, int(best[problem.class_of[query], slot_of_plan]))
        if (chosen == NOT_SERVED).sum() == remaining:
            break
    return chosen


def _matched(
    problem: RelaxedProblem, waiting: IntArray, best: IntArray, size: FloatArray, usage: FloatArray
) -> list[tuple[int, int]]:
    """Return (query, slot) pairs of an auction: the queries with the highest value choose first."""
    classes = problem.class_of[waiting]
    has_plan = best[classes] >= 0
    resources_of = problem.resources[classes][has_plan]
    count = np.bincount(resources_of, minlength=problem.capacities)
    mean_size = np.bincount(resources_of, weights=size[classes][has_plan], minlength=problem.capacities) / np.maximum(
        count, 1
    )
    free_slots = np.floor((1.0 - usage) / np.maximum(mean_size, 1e-12))
    costs = problem.cost_usd_per_h[classes].min(axis=1)
    value = problem.weight[classes] - _COST_COUNTS * costs
    pairs = []
    for position in np.argsort(-value, kind="stable").tolist():
        row = int(classes[position])
        resources = problem.resources[row]
        eligible = (best[row] >= 0) & (free_slots[resources] >= 1)
        if eligible.any():
            chosen_slot = int(np.where(eligible, size[row], np.inf).argmin())
            free_slots[resources[chosen_slot]] -= 1
            pairs.append((int(waiting[position]), chosen_slot))
    return pairs
