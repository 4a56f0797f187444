"""Greedy by weight for the dominant resource: the plan with most weight for its largest share of any capacity first.

The order for the knapsack with several resources of Ghodsi et al., "Dominant resource fairness" (NSDI 2011), shares.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.matching.first_come import insert
from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries


def weight_per_dominant_resource(members: ExpandedQueries) -> IntArray:
    """(N,) all plans of all queries by weight over dominant share; each query takes the first that fits."""
    problem = members.problem
    dominant = dominant_shares(members)
    plans = dominant.shape[1]
    ratio = problem.weight[:, None] / np.maximum(dominant, 1e-12)
    ratio[~np.isfinite(problem.cost_usd_per_h)] = -np.inf
    chosen = np.full(len(members.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(members.capacities)
    for place in np.argsort(-ratio[members.class_of].reshape(-1), kind="stable").tolist():
        query, plan = divmod(place, plans)
        if chosen[query] == NOT_SERVED:
            insert(members, chosen, usage, query, plan)
    return chosen


def dominant_shares(members: ExpandedQueries) -> FloatArray:
    """(C, P) the largest share of any capacity that each plan takes."""
    return np.asarray(members.problem.amounts.max(axis=2), dtype=np.float64)
