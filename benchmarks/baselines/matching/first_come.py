"""First come, first served with each query's own best plan, as planners of single queries do under load."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries


def first_come_first_served(members: ExpandedQueries) -> IntArray:
    """Return (N,) plans: in random order, each query gets its cheapest plan or is rejected."""
    return _in_order(members, choices=1)


def first_come_next_best(members: ExpandedQueries) -> IntArray:
    """Return (N,) plans: in random order, each query gets its cheapest plan that still fits."""
    return _in_order(members, choices=members.problem.cost_usd_per_h.shape[1])


def _in_order(members: ExpandedQueries, choices: int) -> IntArray:
    order = np.argsort(members.problem.cost_usd_per_h, axis=1, kind="stable")[:, :choices]
    chosen = np.full(len(members.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(members.capacities)
    for query in np.random.default_rng(0).permutation(len(chosen)).tolist():
        for plan in order[members.class_of[query]].tolist():
            if insert(members, chosen, usage, query, plan):
                break
    return chosen


def insert(members: ExpandedQueries, chosen: IntArray, usage: FloatArray, query: int, plan: int) -> bool:
    """Give a query a plan in place if it fits; return whether it does."""
    row = members.class_of[query]
    resources = members.resources[row]
    after = usage[resources] + members.problem.amounts[row, plan]
    if not np.isfinite(members.problem.cost_usd_per_h[row, plan]) or (after > 1.0).any():
        return False
    usage[resources], chosen[query] = after, plan
    return True
