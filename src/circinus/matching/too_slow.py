"""Frontiers without the plans that a simulation finds too slow, whatever formulas promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from circinus.estimation import PlanCandidate
from circinus.matching.profiled_plans import PlanEstimates
from circinus.planning import Frontier, NearMiss, SingleRelaxation

MOST_PLANS = 4
"""So many plans of a query are tried in simulations at most; then it gets none."""

_SLOWER = "slower in a simulation of all queries together"
_TOO_SLOW = "the plans that formulas promise are slower in a simulation of all queries together"


def exclude_refuted(
    frontier: Frontier, tried: PlanCandidate, missed: Mapping[str, PlanCandidate], plans: PlanEstimates
) -> Frontier:
    """The frontier of a query without what is refused.

    Args:
        frontier: before.
        tried: the query's plan.
        missed: queries -> their plans as simulated, of which one at least is too slow beside `tried`; if the query
            itself is among them, so far would its objective have to give way.
        plans: which ones are refused.
    """
    left = plans.without_excluded(frontier.candidates)
    own = missed.get(tried.query)
    reason = _SLOWER if own is not None else f"it would make {' and '.join(missed)} {_SLOWER} than promised"
    near_misses = (NearMiss(own or tried, ("latency",), reason), *frontier.near_misses)
    nearest = min((miss.candidate for miss in near_misses if miss.reason == _SLOWER), key=_slowest_s, default=None)
    relaxed = () if left or nearest is None else (SingleRelaxation("latency", _slowest_s(nearest), nearest),)
    return replace(
        frontier,
        candidates=left,
        high_margin=plans.without_excluded(frontier.high_margin),
        near_misses=near_misses,
        relaxations=relaxed,
        reason="" if left else (_TOO_SLOW if own is not None else reason),
    )


def _slowest_s(candidate: PlanCandidate) -> float:
    return candidate.estimate.latency_s.upper
