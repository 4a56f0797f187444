"""Final sizes: estimates of all plans under their merged load on deployments and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.arrays import IntArray
from circinus.estimation import MergedLoad, PlanCandidate, merge_loads
from circinus.matching.problem import Problem, Usage, meets_cost_slo
from circinus.specification import Slos
from circinus.specification.formatting import format_duration, format_latency_bound, format_score, format_usd_per_h
from circinus.statistics.interval import Interval

Reestimate = Callable[[PlanCandidate, MergedLoad], PlanCandidate]
"""Estimator of a chosen plan under the merged load."""


@dataclass(frozen=True)
class SloViolation:
    """A chosen plan that violates its query's SLOs at the final sizes."""

    query: int
    candidate: int
    slos: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Sizing:
    """Final estimates of the plans when they run together."""

    conditions: MergedLoad
    final: Mapping[int, PlanCandidate]
    """Query -> its plan, estimated under `conditions`; the cost is its share by busy seconds plus its transfers."""
    violations: tuple[SloViolation, ...]


def evaluate_sizing(
    problem: Problem, chosen: IntArray, usage: Usage, slos: Sequence[Slos], reestimate: Reestimate
) -> Sizing:
    """Size the deployments of a choice and check every SLO.

    Args:
        problem: the compiled problem.
        chosen: (Q,) candidate of each query, -1 for none.
        usage: of `chosen`.
        slos: of each query.
        reestimate: estimates a plan under the merged load.
    """
    replicas = {problem.deployments[column]: int(count) for column, count in enumerate(usage.replicas) if count}
    served = list(problem.served(chosen))
    conditions = merge_loads([problem.candidates[candidate] for _, candidate in served], replicas)
    final: dict[int, PlanCandidate] = {}
    violated = []
    for query, candidate in served:
        share = problem.cost_share_usd_per_h(candidate, usage)
        sized = with_cost(reestimate(problem.candidates[candidate], conditions), share)
        final[query] = sized
        objectives, reason = violations(sized, slos[query])
        if objectives:
            violated.append(SloViolation(query, candidate, objectives, reason))
    return Sizing(conditions, final, tuple(violated))


def with_cost(candidate: PlanCandidate, share_usd_per_h: float) -> PlanCandidate:
    """Return the candidate with its share of the merged deployments' cost, so that the shares add up to the total."""
    bounds = candidate.estimate.cost_usd_per_h
    cost = Interval(share_usd_per_h, min(bounds.lower, share_usd_per_h), max(bounds.upper, share_usd_per_h))
    return replace(candidate, estimate=replace(candidate.estimate, cost_usd_per_h=cost))


def violations(candidate: PlanCandidate, slos: Slos) -> tuple[tuple[str, ...], str]:
    """Return the SLOs that a final estimate violates, and a description of the violations."""
    estimate = candidate.estimate
    violated = [name for name in estimate.violations(slos) if name != "cost"]
    reasons = []
    if "latency" in violated and slos.latency is not None:
        reasons.append(
            f"latency p{estimate.percentile:g} at most {format_latency_bound(estimate.latency_s.upper)} > "
            f"{format_duration(slos.latency.limit_s)}"
        )
    if "accuracy" in violated and slos.accuracy is not None:
        reasons.append(f"accuracy {format_score(estimate.accuracy.value)} violates {slos.accuracy}")
    if slos.cost is not None and not meets_cost_slo(estimate.cost_usd_per_h.value, slos.cost.limit_usd_per_h):
        violated.append("cost")
        reasons.append(
            f"its cost share {format_usd_per_h(estimate.cost_usd_per_h.value)} > "
            f"{format_usd_per_h(slos.cost.limit_usd_per_h)}"
        )
    return tuple(violated), "as sized, " + " and ".join(reasons) if reasons else ""
