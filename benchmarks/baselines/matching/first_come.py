"""First come, first served with each query's own best plan, as planners of single queries do under load."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem


def first_come_first_served(problem: RelaxedProblem) -> IntArray:
    """Return (N,) plans: in random order, each query gets its cheapest plan or is rejected."""
    return _in_order(problem, choices=1)


def first_come_next_best(problem: RelaxedProblem) -> IntArray:
    """Return (N,) plans: in random order, each query gets its cheapest plan that still fits."""
    return _in_order(problem, choices=problem.cost_usd_per_h.shape[1])


def _in_order(problem: RelaxedProblem, choices: int) -> IntArray:
    order = np.argsort(problem.cost_usd_per_h, axis=1, kind="stable")[:, :choices]
    chosen = np.full(len(problem.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(problem.capacities)
    for query in np.random.default_rng(0).permutation(len(chosen)).tolist():
        for plan in order[problem.class_of[query]].tolist():
            if insert(problem, chosen, usage, query, plan):
                break
    return chosen


def insert(problem: RelaxedProblem, chosen: IntArray, usage: FloatArray, query: int, plan: int) -> bool:
    """Give a query a plan in place if it fits; return whether it does."""
    row = problem.class_of[query]
    resources = problem.resources[row]
    after = usage[resources] + problem.amounts[row, plan]
    if not np.isfinite(problem.cost_usd_per_h[row, plan]) or (after > 1.0).any():
        return False
    usage[resources], chosen[query] = after, plan
    return True
