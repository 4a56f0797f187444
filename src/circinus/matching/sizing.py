"""Final sizes: estimates of all plans under their merged load on deployments and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.arrays import IntArray
from circinus.estimation import MergedLoad, PlanCandidate, merge_loads
from circinus.estimation.estimate import SloProbabilities
from circinus.matching.problem import Problem, Usage
from circinus.planning.settings import DOUBTFUL_EXCESS
from circinus.planning.violations import describe_violation
from circinus.specification import SloKind, Slos
from circinus.statistics.interval import Interval

Reestimate = Callable[[PlanCandidate, MergedLoad], PlanCandidate]
"""Estimator of a chosen plan under the merged load."""


@dataclass(frozen=True)
class SloViolation:
    """A chosen plan that violates its query's SLOs at the final sizes."""

    query: int
    candidate: int
    slos: tuple[SloKind, ...]
    reason: str
    sized: PlanCandidate
    """The plan at the final sizes."""


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
        sized = with_cost(reestimate(problem.candidates[candidate], conditions), share, slos[query])
        final[query] = sized
        objectives, reason = violations(sized, slos[query])
        if objectives:
            violated.append(SloViolation(query, candidate, objectives, reason, sized))
    return Sizing(conditions, final, tuple(violated))


def with_cost(candidate: PlanCandidate, share_usd_per_h: float, slos: Slos) -> PlanCandidate:
    """Return the candidate with its share of the merged deployments' cost, so that the shares add up to the total."""
    bounds, probability = candidate.estimate.cost_usd_per_h, candidate.estimate.slo_probability
    cost = Interval(share_usd_per_h, min(bounds.lower, share_usd_per_h), max(bounds.upper, share_usd_per_h))
    if probability is not None:
        is_met = slos.cost is None or slos.cost.is_met_by(share_usd_per_h)
        probability = SloProbabilities.of(
            probability.latency, probability.accuracy, float(is_met), probability.latency_items
        )
    return replace(candidate, estimate=replace(candidate.estimate, cost_usd_per_h=cost, slo_probability=probability))


def violations(candidate: PlanCandidate, slos: Slos) -> tuple[tuple[SloKind, ...], str]:
    """Return the SLOs that a final estimate violates, and a description of the violations without the sizes."""
    violated = candidate.estimate.violations(slos, sized=True)
    reasons = [describe_violation(candidate.estimate, slos.by_kind[kind], sized=True) for kind in violated]
    return violated, " and ".join(reasons)


def is_doubtful(candidate: PlanCandidate, slos: Slos) -> bool:
    """Return whether a final estimate misses the latency SLO alone, and so narrowly that a simulation has to decide."""
    estimate = candidate.estimate
    is_late = estimate.violations(slos, sized=True) == (SloKind.LATENCY,)
    return is_late and estimate.excess(slos, sized=True) <= DOUBTFUL_EXCESS
