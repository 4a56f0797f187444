"""Greedy order by weight over the dominant resource, the largest share of any capacity.

This order for the knapsack with several resources follows Ghodsi et al., "Dominant resource fairness" (NSDI 2011).
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.matching.first_come import insert
from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries


def weight_per_dominant_resource(members: ExpandedQueries) -> IntArray:
    """Return (N,) plans: by weight over dominant share, each query takes its first plan that fits."""
    problem = members.problem
    dominant = dominant_shares(members)
    plans = dominant.shape[1]
    ratio = problem.weight[:, None] / np.maximum(dominant, 1e-12)
    ratio[~np.isfinite(problem.cost_usd_per_h)] = -np.inf
    chosen = np.full(len(members.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(members.capacities)
    for index in np.argsort(-ratio[members.class_of].reshape(-1), kind="stable").tolist():
        query, plan = divmod(index, plans)
        if chosen[query] == NOT_SERVED:
            insert(members, chosen, usage, query, plan)
    return chosen


def dominant_shares(members: ExpandedQueries) -> FloatArray:
    """Return (C, P) the largest share of any capacity that each plan uses."""
    return np.asarray(members.problem.amounts.max(axis=2), dtype=np.float64)
