"""Comparisons of the plans of one query: with the plan that it got, or with what its SLOs and the pools need."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from circinus.estimation import Estimate, PlanCandidate
from circinus.estimation.slo_probability import comparable_miss
from circinus.matching.feasibility import Infeasibility
from circinus.matching.plan_set import Alternative, Obstacle
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import Frontier, NearMiss
from circinus.planning.tie_order import TieKey
from circinus.planning.violations import describe_violation
from circinus.specification import QueryPlan, SloKind
from circinus.specification.formatting import format_usd_per_h

MAX_ALTERNATIVES = 5
"""Maximum number of alternatives of a query, not counting near misses."""

_NEAR_MISS = 2
"""First part of the rank of near misses."""

_NO_GAIN = "costs the same as the running plan"


@dataclass(frozen=True)
class CandidateComparison:
    """A candidate of a query, compared with the plan that the query got."""

    candidate: PlanCandidate
    rank: tuple[int, float]
    """Feasible candidates first, cheapest first, then infeasible ones, nearest first, then near misses."""
    reason: str
    obstacle: Obstacle
    violation: Infeasibility | None = None
    """Violated constraint, or None if the candidate is feasible."""
    added_usd_per_h: float | None = None
    """Change of the total cost if the candidate were feasible; None without a plan to compare with."""
    sized: Estimate | None = None
    """Estimate as sized of a candidate that meets its SLOs only there."""
    is_isolated: bool = False
    """True if the candidate was tried in isolation at its utilization targets only, where it misses SLOs."""
    lacking: tuple[str, ...] = ()
    """Resources of which a candidate that misses SLOs would need more, too."""

    @property
    def binding(self) -> tuple[str, ...]:
        """SLOs that the candidate misses, and resources of which it needs more."""
        return () if self.violation is None else (*self.violation.binding, *self.lacking)

    @property
    def final(self) -> Estimate | None:
        """Estimate as sized of a candidate that meets its SLOs only there, or that misses them there."""
        return self.sized if self.violation is None else self.violation.sized

    @property
    def misses_as_sized(self) -> bool:
        """True if the reason is about SLOs that the candidate misses at the final sizes."""
        return self.violation is not None and self.violation.is_sized and self.violation.is_of(self.candidate.query)

    @property
    def probability(self) -> float | None:
        """Probability of meeting all SLOs, of a candidate that misses some of its own; else None."""
        estimate = self.candidate.estimate if self.is_isolated else self.final
        if self.violation is None or estimate is None:
            return None
        return 0.0 if estimate.slo_probability is None else estimate.slo_probability.joint

    @property
    def distance(self) -> tuple[float, ...]:
        """Sort key: feasible candidates, those that lack room only, those that make other queries miss SLOs, the rest.

        The rest is sorted by the probability of missing some of the query's own SLOs (`comparable_miss`), then by the
        number of SLOs and resources that would have to change. Near misses without such a probability come last.
        """
        group, excess = self.rank
        if self.probability is not None:
            return (3, comparable_miss(self.probability), len(self.binding), *self.rank)
        is_near_miss, misses_slo = group == _NEAR_MISS, self.violation is not None and self.obstacle == "slo"
        return (4 if is_near_miss else group + misses_slo, excess, *self.rank)

    @property
    def is_late(self) -> bool:
        """True if the candidate fits but violates a latency SLO, and no other, at the final sizes."""
        return self.violation is not None and self.violation.binding == (SloKind.LATENCY,)

    @property
    def is_cheaper(self) -> bool:
        """True if the candidate would lower the total cost if it were feasible."""
        return self.added_usd_per_h is not None and self.added_usd_per_h < -EQUAL_USD_PER_H


def alternatives(
    compared: Sequence[CandidateComparison], misses: Sequence[CandidateComparison]
) -> tuple[Alternative, ...]:
    """Return the best candidates and the near misses, one per configuration and placement, the nearest first.

    Args:
        compared: candidates.
        misses: near misses, which do not count towards the limit.
    """
    best = _one_per_placement(nearest_first(compared))[:MAX_ALTERNATIVES]
    return tuple(
        Alternative(
            entry.candidate.plan,
            entry.final or entry.candidate.estimate,
            entry.violation.reason if entry.violation is not None and entry.misses_as_sized else entry.reason,
            entry.obstacle,
            entry.added_usd_per_h,
            is_sized=entry.final is not None,
            misses_as_sized=entry.misses_as_sized,
        )
        for entry in _one_per_placement(nearest_first([*best, *misses]))
    )


def _one_per_placement(compared: Iterable[CandidateComparison]) -> list[CandidateComparison]:
    """Return the first comparison of each configuration and placement."""
    selected: dict[object, CandidateComparison] = {}
    for entry in compared:
        selected.setdefault(placements_of(entry.candidate.plan), entry)
    return list(selected.values())


def placements_of(plan: QueryPlan) -> object:
    """Return the configuration and placement of each part of a plan, in which alternatives that are shown differ."""
    return tuple((part.plan.configuration, part.plan.placement) for part in plan.parts)


def nearest_first(compared: Iterable[CandidateComparison]) -> list[CandidateComparison]:
    """Return comparisons by their distance."""
    return sorted(compared, key=attrgetter("distance"))


def near_miss_comparisons(frontier: Frontier, tried: Collection[QueryPlan]) -> list[CandidateComparison]:
    """Return the best plan in isolation and the near misses of a frontier without a plan that is tried besides."""
    slos, best = frontier.query.slos, frontier.best_effort
    violated = () if best is None else best.candidate.estimate.violations(slos)
    misses = list(frontier.near_misses)
    if best is not None and violated and all(miss.candidate.plan != best.candidate.plan for miss in misses):
        reasons = [describe_violation(best.candidate.estimate, slos.by_kind[kind]) for kind in violated]
        misses.insert(0, NearMiss(best.candidate, violated, " and ".join(reasons)))
    compared = []
    for miss in misses:
        estimate = miss.candidate.estimate
        is_own = bool(estimate.violations(slos))
        sized = estimate if is_own and miss.is_sized else None
        excess = estimate.excess(slos, sized=sized is not None)
        violation = Infeasibility(miss.violations, miss.reason, excess, sized=sized, is_sized=miss.is_sized)
        entry = infeasible(miss.candidate, violation)
        if miss.candidate.plan not in tried:
            compared.append(replace(entry, rank=(_NEAR_MISS, excess), is_isolated=is_own and sized is None))
    return compared


def cost_difference(candidate: PlanCandidate, extra_usd_per_h: float, with_churn: float) -> CandidateComparison:
    """Return the comparison by total cost with a plan that is cheaper, churn included."""
    if extra_usd_per_h > EQUAL_USD_PER_H:
        reason = f"costs {format_usd_per_h(extra_usd_per_h)} more in total"
    elif extra_usd_per_h < -EQUAL_USD_PER_H:
        reason = f"costs {format_usd_per_h(-extra_usd_per_h)} less in total, which is below the churn price"
    else:
        reason = _NO_GAIN
    return CandidateComparison(candidate, (0, with_churn), reason, "cost", added_usd_per_h=extra_usd_per_h)


def tie(candidate: PlanCandidate, key: TieKey, better: TieKey) -> CandidateComparison:
    """Return the comparison with a plan that costs as much and comes before in the order of ties."""
    reason = f"costs the same, {key.reason_after(better)}"
    return CandidateComparison(candidate, (0, 0.0), reason, "cost", added_usd_per_h=0.0)


def infeasible(candidate: PlanCandidate, violation: Infeasibility) -> CandidateComparison:
    """Return the comparison of an infeasible candidate; the reason names other queries only."""
    obstacle: Obstacle = "slo" if set(violation.binding) <= set(SloKind) else "capacity"
    reason = violation.description(candidate.query)
    return CandidateComparison(candidate, (1, violation.excess), reason, obstacle, violation)


def failure(comparison: CandidateComparison, *, sizes_named: bool = False) -> str:
    """Return the reason of an infeasible candidate as a predicate: it needs more, or it fails."""
    violation = comparison.violation
    if violation is None:
        return f"fails: {comparison.reason}"
    reason = violation.description(comparison.candidate.query, sizes_named=sizes_named)
    return reason if violation.is_shortage else f"fails: {reason}"
