"""VideoStorm-style hill climbing of utility over allocations.

After Zhang et al., "Live video analytics at scale with approximation and delay-tolerance" (NSDI 2017): step by step,
the query with the highest increase of utility per resource gets more of it; here from nothing to a plan, and later from
one query to another with a higher utility. Their utility is the weight, as every plan meets its query's SLOs.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.matching.first_come import insert
from benchmarks.baselines.matching.greedy import dominant_shares
from circinus.arrays import IntArray
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem

_STEPS = 20_000
"""Maximum number of exchanges."""


def utility_hill_climbing(problem: RelaxedProblem) -> IntArray:
    """Return (N,) plans: each query keeps its smallest plan, and the climb selects the served queries."""
    shares = np.where(np.isfinite(problem.cost_usd_per_h), dominant_shares(problem), np.inf)
    plan = shares.argmin(axis=1)
    share = shares[np.arange(len(plan)), plan]
    utility = problem.weight / np.maximum(share, 1e-12)
    order = np.argsort(-utility[problem.class_of], kind="stable")
    chosen = np.full(len(problem.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(problem.capacities)
    for query in order.tolist():
        insert(problem, chosen, usage, query, int(plan[problem.class_of[query]]))
    # A waiting query replaces a served one if that raises the sum of utilities.
    served = [query for query in reversed(order.tolist()) if chosen[query] >= 0]
    waiting = [query for query in order.tolist() if chosen[query] < 0]
    for entrant, incumbent in zip(waiting[:_STEPS], served, strict=False):
        entrant_class, incumbent_class = int(problem.class_of[entrant]), int(problem.class_of[incumbent])
        if problem.weight[entrant_class] <= problem.weight[incumbent_class]:
            continue
        previous_usage = usage.copy()
        previous_plan = int(chosen[incumbent])
        usage[problem.resources[incumbent_class]] -= problem.amounts[incumbent_class, previous_plan]
        chosen[incumbent] = NOT_SERVED
        if not insert(problem, chosen, usage, entrant, int(plan[entrant_class])):
            usage, chosen[incumbent] = previous_usage, previous_plan
    return chosen
