"""Reasons for the plan of each query, with its best alternatives."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from circinus.arrays import IntArray
from circinus.estimation import Estimate, PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit, AdmissionProblem
from circinus.matching.cuts import ChurnCut, CostShareCut, SizingCut
from circinus.matching.explanation.assignment_reasons import priority_reason, shared_deployments
from circinus.matching.feasibility import FeasibleSolution, Infeasibility, capacity_violation, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import Alternative, Assignment, Obstacle
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import marginal_costs
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import Frontier, NearMiss
from circinus.planning.ladder import ladder
from circinus.planning.tie_order import TieKey, TieOrder
from circinus.planning.violations import describe_violation
from circinus.specification import QueryPlan, SloKind, Slos
from circinus.specification.formatting import format_usd_per_h

_MAX_ALTERNATIVES = 5
"""Maximum number of alternatives of a query, not counting near misses."""

_DECIMALS = 2
"""Decimals of probabilities that are compared."""

_NEAR_MISS = 2
"""First part of the rank of near misses."""

_NO_GAIN = "costs the same as the running plan"
_TOO_MANY_CHANGES = "would exceed the allowed number of plan changes"


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
    lacks_room: bool = False
    """True if a pool has no room for a candidate that misses SLOs, too."""

    @property
    def final(self) -> Estimate | None:
        """Estimate as sized of a candidate that meets its SLOs only there, or that misses them there."""
        return self.sized if self.violation is None else self.violation.sized

    @property
    def probability(self) -> float | None:
        """Probability of meeting all SLOs, of a candidate that misses some of its own; else None."""
        estimate = self.candidate.estimate if self.is_isolated else self.final
        if self.violation is None or estimate is None:
            return None
        return 0.0 if estimate.slo_probability is None else estimate.slo_probability.joint

    @property
    def distance(self) -> tuple[int, float, int, float]:
        """Sort key: feasible candidates, those that lack room only, those that make others miss SLOs, then the rest.

        Candidates that miss some of their own SLOs are sorted by the probability of it, to two decimals; near misses
        without one come last.
        """
        group, excess = self.rank
        if self.probability is not None:
            return (3, round(1 - self.probability, _DECIMALS), *self.rank)
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


def explain_assignments(answer: Answer) -> tuple[Assignment, ...]:
    """Return every served query with its final plan, the reason, and the best alternatives."""
    problem, assignments = answer.problem, []
    order = TieOrder(answer.run.queries, answer.run.infrastructure)
    for query, candidate in problem.served(answer.chosen):
        frontier, compared = answer.run.frontiers[problem.queries[query]], _compare_candidates(answer, query, order)
        assignments.append(
            Assignment(
                query=problem.queries[query],
                chosen=answer.solution.sizing.final[query],
                reason=_reason(answer, query, compared),
                alternatives=alternatives(
                    compared, near_miss_comparisons(frontier, {problem.candidates[candidate].plan})
                ),
                ladder=ladder(frontier.query, frontier.plans, problem.candidates[candidate]),
            )
        )
    return tuple(assignments)


def explain_admission(
    running: AdmissionControl,
    prepared: AdmissionProblem,
    position: int,
    fit: AdmissionFit,
    frontier: Frontier,
    failures: Mapping[int, CandidateComparison],
    *,
    neighbours: str,
    confirms: bool,
) -> Assignment:
    """Return an admitted query's plan with its reason and alternatives.

    Args:
        running: the running plans.
        prepared: the query.
        position: of its plan among the candidates.
        fit: the plan as sized.
        frontier: the query's plans.
        failures: position of a candidate that was tried before -> its comparison.
        neighbours: description of the running plans.
        confirms: whether to try alternatives as sized that miss an SLO at their utilization targets.
    """
    candidates, added = prepared.problem.candidates, prepared.marginal_costs.added_usd_per_h
    failed = [
        replace(failure, added_usd_per_h=float(added[other] - added[position]))
        for other, failure in failures.items()
        if other != position
    ]
    untried = [other for other in prepared.cheapest_first if other != position and other not in failures]
    compared = [
        cost_difference(candidates[other], extra, extra)
        if (extra := float(added[other] - added[position])) > EQUAL_USD_PER_H
        else tie(candidates[other], prepared.tie_key(other), prepared.tie_key(position))
        for other in untried
    ]
    position_of = {candidates[other].plan: other for other in untried}

    def try_plan(plan: QueryPlan) -> PlanCandidate | Infeasibility:
        outcome = running.try_candidate(prepared, position_of[plan], frontier.query.slos)
        return outcome if isinstance(outcome, Infeasibility) else outcome.final

    others = [*compared, *failed]
    if fit.unconfirmed:
        others = failed = [_compared_with_confirmed(failure) for failure in failed]
    elif confirms:
        others = _tried_as_sized(others, frontier.query.slos, try_plan)
    merit = "its only plan" if len(candidates) == 1 else f"adds the lowest cost among its {len(candidates)} plans"
    if fit.unconfirmed:
        merit = "confirmed by a simulation, as none of its plans that fit meets all SLOs by formula"
    return Assignment(
        query=frontier.query.name,
        chosen=fit.final,
        reason="; ".join((f"{merit}, given {neighbours}", *cheaper_failures(failed))),
        alternatives=alternatives(others, near_miss_comparisons(frontier, {fit.plan.plan})),
        ladder=ladder(frontier.query, frontier.plans, candidates[position]),
    )


def _compared_with_confirmed(failure: CandidateComparison) -> CandidateComparison:
    """Return the comparison with a plan that misses a latency SLO by formula, too, but was confirmed by a simulation.

    A plan that a simulation would decide on is compared by cost, as the formula does not exclude it.
    """
    extra_usd_per_h, violation = failure.added_usd_per_h, failure.violation
    if violation is None or extra_usd_per_h is None or not failure.is_late:
        return failure
    if violation.excess > MATCHING.doubtful_excess:
        return failure
    if extra_usd_per_h > EQUAL_USD_PER_H:
        compared = cost_difference(failure.candidate, extra_usd_per_h, extra_usd_per_h)
    elif extra_usd_per_h >= -EQUAL_USD_PER_H:
        compared = replace(failure, reason="costs the same, misses its limit by formula, too", obstacle="cost")
    else:
        compared = replace(failure, reason=f"not simulated; {failure.reason}", obstacle="search")
    return replace(compared, rank=(0, extra_usd_per_h), violation=None, sized=violation.sized)


def alternatives(
    compared: Sequence[CandidateComparison], misses: Sequence[CandidateComparison]
) -> tuple[Alternative, ...]:
    """Return the best candidates and the near misses, one per configuration and placement, the nearest first.

    Args:
        compared: candidates.
        misses: near misses, which do not count towards the limit.
    """
    best = _one_per_placement(nearest_first(compared))[:_MAX_ALTERNATIVES]
    return tuple(
        Alternative(
            entry.candidate.plan,
            entry.final or entry.candidate.estimate,
            entry.reason,
            entry.obstacle,
            entry.added_usd_per_h,
            is_sized=entry.final is not None,
        )
        for entry in _one_per_placement(nearest_first([*best, *misses]))
    )


def _one_per_placement(compared: Iterable[CandidateComparison]) -> list[CandidateComparison]:
    """Return the first comparison of each configuration and placement."""
    selected: dict[object, CandidateComparison] = {}
    for entry in compared:
        selected.setdefault((entry.candidate.plan.configuration, entry.candidate.plan.placement), entry)
    return list(selected.values())


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
    for position, miss in enumerate(misses):
        estimate = miss.candidate.estimate
        is_own = bool(estimate.violations(slos))
        sized = estimate if is_own and estimate.simulated else None
        entry = infeasible(miss.candidate, Infeasibility(miss.violations, miss.reason, sized=sized))
        if miss.candidate.plan not in tried:
            rank = _NEAR_MISS, float(position)
            compared.append(replace(entry, rank=rank, is_isolated=is_own and sized is None))
    return compared


def _confirmed(
    compared: Iterable[CandidateComparison], confirm: Callable[[CandidateComparison], CandidateComparison]
) -> list[CandidateComparison]:
    """Confirm the comparisons that `alternatives` shows, best first; one that changes takes its new place.

    Args:
        compared: candidates of a query.
        confirm: returns a comparison itself, or what is true of its candidate instead.
    """
    remaining, final, shown = sorted(compared, key=attrgetter("distance")), list[CandidateComparison](), set[object]()
    while remaining and len(shown) < _MAX_ALTERNATIVES:
        first = remaining.pop(0)
        actual = confirm(first)
        if actual is first:
            final.append(first)
            shown.add((first.candidate.plan.configuration, first.candidate.plan.placement))
        else:
            insort(remaining, actual, key=attrgetter("distance"))
    return [*final, *remaining]


def confirmed_shortages(
    running: AdmissionControl, prepared: AdmissionProblem, slos: Slos, failed: Mapping[int, CandidateComparison]
) -> list[CandidateComparison]:
    """Return the failed candidates, with the violated SLOs of those for which more room would not be enough.

    Args:
        running: the running plans.
        prepared: the query.
        slos: of the query.
        failed: position of a candidate -> its comparison.
    """
    position_of = {comparison.candidate.plan: position for position, comparison in failed.items()}

    def confirm(comparison: CandidateComparison) -> CandidateComparison:
        candidate, violation = comparison.candidate, comparison.violation
        if violation is None or comparison.obstacle != "capacity":
            return comparison
        if any(name.startswith("link ") for name in violation.binding):
            violated = _violation_at_any_size(candidate.estimate, slos)
        else:
            violated = running.slo_violation(prepared, position_of[candidate.plan], slos)
        if violated is None:
            return comparison
        shortage = f"the plan {violation.reason}" if violation.is_shortage else violation.reason
        lacking = replace(violated, reason=f"{violated.reason}, and {shortage}")
        return replace(infeasible(candidate, lacking), lacks_room=True)

    return _confirmed(failed.values(), confirm)


def _violation_at_any_size(estimate: Estimate, slos: Slos) -> Infeasibility | None:
    """Return the SLOs on accuracy and cost that a plan misses in isolation, where its cost is the lowest."""
    missed = tuple(kind for kind in estimate.violations(slos) if kind is not SloKind.LATENCY)
    reasons = (describe_violation(estimate, slos.by_kind[kind]) for kind in missed)
    return Infeasibility(missed, " and ".join(reasons), sized=estimate) if missed else None


def _tried_as_sized(
    compared: Iterable[CandidateComparison], slos: Slos, try_plan: Callable[[QueryPlan], PlanCandidate | Infeasibility]
) -> list[CandidateComparison]:
    """Return comparisons of a query; candidates that miss an SLO at their utilization targets are tried as sized.

    Args:
        compared: other plans than the query got; those by cost were not tried.
        slos: of the query.
        try_plan: returns a plan's final estimate in place of the plan that the query got, or why it fails.
    """

    def confirm(comparison: CandidateComparison) -> CandidateComparison:
        candidate = comparison.candidate
        is_tried = comparison.obstacle != "cost" or comparison.sized is not None
        if is_tried or not candidate.estimate.violations(slos):
            return comparison
        outcome = try_plan(candidate.plan)
        if isinstance(outcome, Infeasibility):
            return replace(infeasible(candidate, outcome), added_usd_per_h=comparison.added_usd_per_h)
        return replace(comparison, reason=f"{comparison.reason}; latency as sized", sized=outcome.estimate)

    return _confirmed(compared, confirm)


def _compare_candidates(answer: Answer, query: int, order: TieOrder) -> tuple[CandidateComparison, ...]:
    """Return all candidates that a served query did not get, best first."""
    problem, current = answer.problem, int(answer.chosen[query])
    trial = answer.chosen.copy()
    trial[query] = -1
    costs = marginal_costs(problem, query, problem.usage_of(trial))
    position_of = int(problem.block[query])
    added, counted = (usd - usd[current - position_of] for usd in (costs.added_usd_per_h, costs.counted_usd_per_h))
    comparisons = []

    def key(position: int) -> TieKey:
        return order.key(problem.candidates[position_of + position], int(costs.added_replicas[position]))

    for position, candidate in enumerate(problem.candidates_of(query)):
        if candidate != current:
            trial[query] = candidate
            extra, with_churn = float(added[position]), float(counted[position])
            if costs.fits[position] and with_churn > EQUAL_USD_PER_H:
                comparison = cost_difference(problem.candidates[candidate], extra, with_churn)
            elif (
                costs.fits[position] and with_churn >= -EQUAL_USD_PER_H and key(position) >= key(current - position_of)
            ):
                comparison = tie(problem.candidates[candidate], key(position), key(current - position_of))
            else:
                comparison = _by_feasibility(answer, trial, candidate)
            comparisons.append(replace(comparison, added_usd_per_h=extra))
    candidate_of = {problem.candidates[candidate].plan: candidate for candidate in problem.candidates_of(query)}

    def try_plan(plan: QueryPlan) -> PlanCandidate | Infeasibility:
        trial[query] = candidate_of[plan]
        outcome = check_feasibility(problem, trial, answer.run.slos, answer.run.reestimate)
        return outcome if isinstance(outcome, Infeasibility) else outcome.sizing.final[query]

    return tuple(_tried_as_sized(comparisons, answer.run.slos[query], try_plan))


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


def _by_feasibility(answer: Answer, trial: IntArray, candidate: int) -> CandidateComparison:
    problem, usage = answer.problem, answer.problem.usage_of(trial)
    violated = [cut for cut in answer.cuts if not cut.is_satisfied(problem, trial, usage)]
    slo_cuts = (cut for cut in violated if isinstance(cut, SizingCut | CostShareCut))
    cut = min(slo_cuts, key=lambda cut: cut.candidate != candidate, default=None)
    shortage = capacity_violation(problem, usage)
    if cut is not None and shortage is None:  # the search noted it, so no plan is estimated again
        subject = "withdrawn" if cut.candidate == candidate else f"query {problem.candidates[cut.candidate].query}"
        return infeasible(problem.candidates[candidate], Infeasibility((), f"{subject}: {cut.reason}"))
    outcome = shortage or check_feasibility(problem, trial, answer.run.slos, answer.run.reestimate)
    if isinstance(outcome, FeasibleSolution) and any(isinstance(cut, ChurnCut) for cut in violated):
        return CandidateComparison(problem.candidates[candidate], (0, -1.0), _TOO_MANY_CHANGES, "search")
    return by_outcome(answer, candidate, outcome)


def by_outcome(
    answer: Answer, candidate: int, outcome: FeasibleSolution | AdmissionFit | Infeasibility
) -> CandidateComparison:
    """Return the comparison of a candidate that the answer lacks, with the reason of its cut if there is one."""
    plan = answer.problem.candidates[candidate]
    if not isinstance(outcome, Infeasibility):
        return CandidateComparison(plan, (0, -1.0), "was not reached before the time limit", "search")
    cuts = () if outcome.is_shortage else answer.cuts
    cut = next((c for c in cuts if isinstance(c, SizingCut | CostShareCut) and c.candidate == candidate), None)
    if cut is not None:
        outcome = replace(outcome, reason=f"withdrawn: {cut.reason}", sized=None)
    elif outcome.violations and outcome.violations[0].candidate != candidate:
        outcome = replace(outcome, sized=None)
    return infeasible(plan, outcome)


def infeasible(candidate: PlanCandidate, violation: Infeasibility) -> CandidateComparison:
    """Return the comparison of an infeasible candidate; the reason names other queries only."""
    obstacle: Obstacle = "slo" if set(violation.binding) <= set(SloKind) else "capacity"
    reason = violation.reason.removeprefix(f"query {candidate.query}: ")
    return CandidateComparison(candidate, (1, violation.excess), reason, obstacle, violation)


def failure(comparison: CandidateComparison) -> str:
    """Return the reason of an infeasible candidate as a predicate: it needs more, or it fails."""
    is_shortage = comparison.violation is not None and comparison.violation.is_shortage
    return comparison.reason if is_shortage else f"fails: {comparison.reason}"


def cheaper_failures(comparisons: Sequence[CandidateComparison]) -> list[str]:
    """Return the reason against the nearest of the plans that would cost less, if there are any."""
    cheaper = [comparison for comparison in comparisons if comparison.violation is not None and comparison.is_cheaper]
    nearest = min(cheaper, key=attrgetter("distance"), default=None)
    return [] if nearest is None else [f"the nearest of {len(cheaper)} plans that would cost less {failure(nearest)}"]


def _reason(answer: Answer, query: int, comparisons: tuple[CandidateComparison, ...]) -> str:
    count = len(answer.problem.candidates_of(query))
    merit = f"lowest total cost among its {count} plans, given those of the other queries"
    cheaper = [comparison for comparison in comparisons if comparison.violation is None and comparison.is_cheaper]
    if cheaper:  # at a churn price or with few changes
        nearest = min(cheaper, key=attrgetter("distance"))
        merit = f"the nearest of {len(cheaper)} plans that would cost less {nearest.reason}"
    reasons = ["its only plan" if count == 1 else merit]
    priority = priority_reason(answer, query)
    if priority:
        reasons.insert(0, priority)
    if answer.problem.runs[answer.chosen[query]]:
        reasons.append("unchanged from the previous plan")
    shared = shared_deployments(answer.problem, answer.chosen, query)
    if shared:
        reasons.append("; ".join(f"shares {names} with {', '.join(queries)}" for names, queries in shared))
    reasons += cheaper_failures(comparisons)
    return "; ".join(reasons)
