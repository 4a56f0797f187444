"""First come, first served in whole replicas, which are shared; running plans never change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED
from circinus.matching.pool_packing import pack_pools
from circinus.matching.problem import Problem
from circinus.matching.sizing import Reestimate, evaluate_sizing
from circinus.specification import Slos


def whole_first_come(problem: Problem, slos: Sequence[Slos], reestimate: Reestimate, *, next_best: bool) -> IntArray:
    """Return (Q,) the candidate of each query in the order of the queries, -1 for none.

    A query gets the plan with the lowest fully shared cost or, if `next_best`, its cheapest plan that fits: capacities
    and links hold, and the replicas of all pack on the nodes. In the end all plans are estimated under the merged load;
    while any violates an SLO, the last query with a violation is rejected.

    Args:
        problem: the compiled problem.
        slos: SLOs of each query.
        reestimate: estimates a plan under the merged load.
        next_best: whether a query whose best plan does not fit takes another one.
    """
    costs = _shared_costs(problem)
    chosen = np.full(len(problem.queries), NOT_SERVED, dtype=np.int64)
    for query in range(len(problem.queries)):
        candidates = np.array(problem.candidates_of(query), dtype=np.int64)
        order = candidates[np.argsort(costs[candidates], kind="stable")]
        for candidate in order if next_best else order[:1]:
            chosen[query] = candidate
            if _fits(problem, chosen):
                break
            chosen[query] = NOT_SERVED
    for last in _violations(problem, chosen, slos, reestimate):
        chosen[last] = NOT_SERVED
    return chosen


def _fits(problem: Problem, chosen: IntArray) -> bool:
    usage = problem.usage_of(chosen)
    return problem.fits(usage) and not pack_pools(problem, usage, widely=True)[1]


def _violations(problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate) -> Iterator[int]:
    """Yield the last query with violated SLOs while there is one; the caller changes `chosen` meanwhile."""
    while True:
        usage = problem.usage_of(chosen)
        violated = evaluate_sizing(problem, chosen, usage, slos, reestimate).violations
        if not violated:
            return
        yield max(sized.query for sized in violated)


def _shared_costs(problem: Problem) -> FloatArray:
    """Return (P,) USD per hour of each candidate's share of replicas at their target, and of transfers."""
    candidate, deployment, load = problem.fractional_load.entries(0, len(problem.candidates))
    costs = problem.transfer_cost_usd_per_h.copy()
    np.add.at(costs, candidate, load * problem.price_usd_per_h[deployment])
    return costs
