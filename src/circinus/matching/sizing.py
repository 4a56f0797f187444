"""Final sizes: every plan estimated again under the load that all plans together put on deployments and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.estimation import Candidate, Conditions, merge
from circinus.matching.problem import IntArray, Problem, Usage, within_cost
from circinus.profiling import Bounded
from circinus.spec import Slos
from circinus.spec.spoken import duration, latency_bound, score, usd_per_h

Reestimate = Callable[[Candidate, Conditions], Candidate]
"""A chosen plan under the merged load: the same plan with its final estimate."""


@dataclass(frozen=True)
class Broken:
    """A chosen plan that does not keep its query's objectives as finally sized."""

    query: int
    candidate: int
    objectives: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Sizing:
    """The plans as they would run together."""

    conditions: Conditions
    final: Mapping[int, Candidate]
    """Query -> its plan, estimated under `conditions`; the cost is its share by busy seconds plus its transfers."""
    broken: tuple[Broken, ...]


def size(problem: Problem, chosen: IntArray, usage: Usage, slos: Sequence[Slos], reestimate: Reestimate) -> Sizing:
    """Size the deployments of a choice and check every objective.

    Args:
        problem: the compiled problem.
        chosen: (Q,) candidate of each query, -1 for none.
        usage: of `chosen`.
        slos: of each query.
        reestimate: how a plan is estimated under the merged load.
    """
    replicas = {problem.deployments[column]: int(count) for column, count in enumerate(usage.replicas) if count}
    served = list(problem.served(chosen))
    conditions = merge([problem.candidates[candidate] for _, candidate in served], replicas)
    final: dict[int, Candidate] = {}
    broken = []
    for query, candidate in served:
        share = problem.cost_share_usd_per_h(candidate, usage)
        sized = with_cost(reestimate(problem.candidates[candidate], conditions), share)
        final[query] = sized
        objectives, reason = violations(sized, slos[query])
        if objectives:
            broken.append(Broken(query, candidate, objectives, reason))
    return Sizing(conditions, final, tuple(broken))


def with_cost(candidate: Candidate, share_usd_per_h: float) -> Candidate:
    """The share of what the deployments cost as merged, so that the shares add up to the total."""
    bounds = candidate.estimate.cost_usd_per_h
    cost = Bounded(share_usd_per_h, min(bounds.lower, share_usd_per_h), max(bounds.upper, share_usd_per_h))
    return replace(candidate, estimate=replace(candidate.estimate, cost_usd_per_h=cost))


def violations(candidate: Candidate, slos: Slos) -> tuple[tuple[str, ...], str]:
    """The objectives that a final estimate does not keep, and how far it is from them."""
    estimate = candidate.estimate
    objectives = [name for name in estimate.violations(slos) if name != "cost"]
    words = []
    if "latency" in objectives and slos.latency is not None:
        words.append(
            f"latency p{estimate.percentile:g} at most {latency_bound(estimate.latency_s.upper)} > "
            f"{duration(slos.latency.limit_s)}"
        )
    if "accuracy" in objectives and slos.accuracy is not None:
        words.append(f"accuracy {score(estimate.accuracy.value)} does not keep {slos.accuracy}")
    if slos.cost is not None and not within_cost(estimate.cost_usd_per_h.value, slos.cost.limit_usd_per_h):
        objectives.append("cost")
        words.append(
            f"its share costs {usd_per_h(estimate.cost_usd_per_h.value)} > {usd_per_h(slos.cost.limit_usd_per_h)}"
        )
    return tuple(objectives), "as sized, " + " and ".join(words) if words else ""
