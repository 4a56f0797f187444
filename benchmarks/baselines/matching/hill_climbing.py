"""VideoStorm-style: utility by hill climbing over allocations.

After Zhang et al., "Live video analytics at scale with approximation and delay-tolerance" (NSDI 2017): step by step the
query whose utility rises most for what it takes more gets it; here from nothing to a plan, and later from one query to
another that has more use for it. What they call utility is the weight, as every plan keeps its query's objectives.
"""

from __future__ import annotations

import numpy as np

from benchmarks.baselines.matching.first_come import insert
from benchmarks.baselines.matching.greedy import dominant_shares
from circinus.arrays import IntArray
from circinus.matching.lagrangian.query_expansion import NOT_SERVED, ExpandedQueries

_STEPS = 20_000
"""Exchanges that are tried at most."""


def utility_hill_climbing(members: ExpandedQueries) -> IntArray:
    """(N,) each query stays with its smallest plan; the climb decides who is served."""
    problem = members.problem
    shares = np.where(np.isfinite(problem.cost_usd_per_h), dominant_shares(members), np.inf)
    plan = shares.argmin(axis=1)
    share = shares[np.arange(len(plan)), plan]
    utility = problem.weight / np.maximum(share, 1e-12)
    order = np.argsort(-utility[members.class_of], kind="stable")
    chosen = np.full(len(members.class_of), NOT_SERVED, dtype=np.int64)
    usage = np.zeros(members.capacities)
    for query in order.tolist():
        insert(members, chosen, usage, query, int(plan[members.class_of[query]]))
    # One that waits takes the place of one that is served, as long as that raises the sum of utilities.
    served = [query for query in reversed(order.tolist()) if chosen[query] >= 0]
    waiting = [query for query in order.tolist() if chosen[query] < 0]
    for comes, goes in zip(waiting[:_STEPS], served, strict=False):
        coming, going = int(members.class_of[comes]), int(members.class_of[goes])
        if problem.weight[coming] <= problem.weight[going]:
            continue
        before = usage.copy()
        held = int(chosen[goes])
        usage[members.resources[going]] -= problem.amounts[going, held]
        chosen[goes] = NOT_SERVED
        if not insert(members, chosen, usage, comes, int(plan[coming])):
            usage, chosen[goes] = before, held
    return chosen
