"""First come, first served in whole replicas: what runs is shared, and nothing is changed for those who come later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.bin_packing import pack_pools
from circinus.matching.lagrangian.query_expansion import NOT_SERVED
from circinus.matching.problem import Problem
from circinus.matching.sizing import Reestimate, evaluate_sizing
from circinus.specification import Slos


def whole_first_come(problem: Problem, slos: Sequence[Slos], reestimate: Reestimate, *, next_best: bool) -> IntArray:
    """(Q,) the candidate of each query in the order of the queries, -1 for none.

    A query gets the plan that costs least when it is fully shared, or where `next_best` the cheapest of its plans for
    which there is room: capacities and links hold, and the replicas of all pack on the nodes. When all have come, the
    plans are estimated under the merged load; while any breaks an objective, the last of these queries is refused.

    Args:
        problem: the compiled problem.
        slos: of each query.
        reestimate: how a plan is estimated under the merged load.
        next_best: whether a query without room for its best plan takes another one.
    """
    costs = _shared_costs(problem)
    chosen = np.full(len(problem.queries), NOT_SERVED, dtype=np.int64)
    for query in range(len(problem.queries)):
        candidates = np.array(problem.candidates_of(query), dtype=np.int64)
        order = candidates[np.argsort(costs[candidates], kind="stable")]
        for candidate in order if next_best else order[:1]:
            chosen[query] = candidate
            if _has_room(problem, chosen):
                break
            chosen[query] = NOT_SERVED
    for last in _broken(problem, chosen, slos, reestimate):
        chosen[last] = NOT_SERVED
    return chosen


def _has_room(problem: Problem, chosen: IntArray) -> bool:
    usage = problem.usage_of(chosen)
    return problem.fits(usage) and not pack_pools(problem, usage, widely=True)[1]


def _broken(problem: Problem, chosen: IntArray, slos: Sequence[Slos], reestimate: Reestimate) -> Iterator[int]:
    """The last query whose objectives are broken, as long as there is one; `chosen` changes meanwhile."""
    while True:
        usage = problem.usage_of(chosen)
        broken = evaluate_sizing(problem, chosen, usage, slos, reestimate).broken
        if not broken:
            return
        yield max(found.query for found in broken)


def _shared_costs(problem: Problem) -> FloatArray:
    """(P,) US dollars per hour of each candidate's busy share of replicas at their target, and transfers."""
    candidate, deployment, load = problem.fractional_load.entries(0, len(problem.candidates))
    found = problem.transfer_cost_usd_per_h.copy()
    np.add.at(found, candidate, load * problem.price_usd_per_h[deployment])
    return found
