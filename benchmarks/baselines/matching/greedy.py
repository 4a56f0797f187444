"""Greedy order by weight over the dominant resource, the largest share of any capacity.

This order for the knapsack with several resources follows Ghodsi et al., "Dominant resource fairness" (NSDI 2011).
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.matching.first_come import insert
from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem


def weight_per_dominant_resource(problem: RelaxedProblem) -> IntArray:
    """Return (N,) plans: by weight over dominant share, each query takes its first plan that fits."""
    dominant = dominant_shares(problem)
    plans = dominant.shape[1]
    ratio = problem.weight[:, None] / np.maximum(dominant, 1e-12)
    ratio[~np.isfinite(problem.cost_usd_per_h)] = -np.inf
    chosen = np.full(len(problem.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(problem.capacities)
    for index in np.argsort(-ratio[problem.class_of].reshape(-1), kind="stable").tolist():
        query, plan = divmod(index, plans)
        if chosen[query] == NOT_SERVED:
            insert(problem, chosen, usage, query, plan)
    return chosen


def dominant_shares(problem: RelaxedProblem) -> FloatArray:
    """Return (C, P) the largest share of any capacity that each plan uses."""
    return np.asarray(problem.amounts.max(axis=2), dtype=np.float64)
