"""Reasons for the plan of each query, with its best alternatives."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter

from circinus.arrays import IntArray
from circinus.estimation import Estimate, PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit, AdmissionProblem
from circinus.matching.cuts import ChurnCut, CostShareCut, SizingCut
from circinus.matching.explanation.assignment_reasons import deployment_users, priority_reason, shared_deployments
from circinus.matching.explanation.candidate_comparisons import (
    MAX_ALTERNATIVES,
    CandidateComparison,
    alternatives,
    cost_difference,
    failure,
    infeasible,
    near_miss_comparisons,
    placements_of,
    tie,
)
from circinus.matching.feasibility import FeasibleSolution, Infeasibility, capacity_violation, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import Assignment
from circinus.matching.solvers.greedy import marginal_costs
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import Frontier
from circinus.planning.frontier import query_kind
from circinus.planning.ladder import ladder
from circinus.planning.settings import DOUBTFUL_EXCESS
from circinus.planning.tie_order import TieKey, TieOrder
from circinus.planning.violations import describe_violation
from circinus.specification import QueryPlan, SloKind, Slos

_TOO_MANY_CHANGES = "would exceed the allowed number of plan changes"


def explain_assignments(answer: Answer) -> tuple[Assignment, ...]:
    """Return every served query with its final plan, the reason, and the best alternatives.

    Queries that differ in name, weight, priority and tenant only share the comparisons of a plan that both got: else a
    thousand queries, each with a hundred plans next to those of all others, take minutes.
    """
    problem, assignments = answer.problem, []
    order = TieOrder(answer.run.queries, answer.run.infrastructure)
    by_kind: dict[object, tuple[str, tuple[CandidateComparison, ...]]] = {}
    users = deployment_users(problem, answer.chosen)
    for query, candidate in problem.served(answer.chosen):
        name, candidates = problem.queries[query], problem.candidates_of(query)
        frontier = answer.run.frontiers[name]
        plans = tuple(problem.candidates[position].plan for position in candidates)
        runs = problem.runs[candidates.start : candidates.stop].tobytes()
        kind = query_kind(answer.run.queries[query]), problem.candidates[candidate].plan, plans, runs
        if kind not in by_kind:
            by_kind[kind] = name, _compare_candidates(answer, query, order)
        compared = _of_twin(*by_kind[kind], name)
        assignments.append(
            Assignment(
                query=name,
                chosen=answer.solution.sizing.final[query],
                reason=_reason(answer, query, compared, users),
                alternatives=alternatives(
                    compared, near_miss_comparisons(frontier, {problem.candidates[candidate].plan})
                ),
                ladder=ladder(frontier.query, frontier.plans, problem.candidates[candidate]),
            )
        )
    return tuple(assignments)


def _of_twin(first: str, compared: tuple[CandidateComparison, ...], name: str) -> tuple[CandidateComparison, ...]:
    """Return the comparisons of a query for another one of its kind with the same plan."""
    if name == first:
        return compared
    swapped: dict[str | None, str] = {first: name, name: first}

    def of_twin(comparison: CandidateComparison) -> CandidateComparison:
        candidate, violation = comparison.candidate.for_query(name), comparison.violation
        if violation is None:
            return replace(comparison, candidate=candidate)
        violation = replace(violation, query=swapped.get(violation.query, violation.query))
        return replace(infeasible(candidate, violation), added_usd_per_h=comparison.added_usd_per_h)

    return tuple(map(of_twin, compared))


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
    merit = "its only plan" if len(candidates) == 1 else f"none of its {len(candidates)} plans adds less cost"
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
    if violation.excess > DOUBTFUL_EXCESS:
        return failure
    if extra_usd_per_h > EQUAL_USD_PER_H:
        compared = cost_difference(failure.candidate, extra_usd_per_h, extra_usd_per_h)
    elif extra_usd_per_h >= -EQUAL_USD_PER_H:
        compared = replace(failure, reason="costs the same, misses its limit by formula, too", obstacle="cost")
    else:
        compared = replace(failure, reason=f"not simulated; {failure.reason}", obstacle="search")
    return replace(compared, rank=(0, extra_usd_per_h), violation=None, sized=violation.sized)


def _confirmed(
    compared: Iterable[CandidateComparison], confirm: Callable[[CandidateComparison], CandidateComparison]
) -> list[CandidateComparison]:
    """Confirm the comparisons that `alternatives` shows, best first; one that changes takes its new place.

    Args:
        compared: candidates of a query.
        confirm: returns a comparison itself, or what is true of its candidate instead.
    """
    remaining, final, shown = sorted(compared, key=attrgetter("distance")), list[CandidateComparison](), set[object]()
    while remaining and len(shown) < MAX_ALTERNATIVES:
        first = remaining.pop(0)
        actual = confirm(first)
        if actual is first:
            final.append(first)
            shown.add(placements_of(first.candidate.plan))
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
        is_isolated = any(name.startswith("link ") for name in violation.binding)
        if is_isolated:
            violated = _violation_at_any_size(candidate.estimate, slos)
        else:
            violated = running.slo_violation(prepared, position_of[candidate.plan], slos)
        if violated is None:
            return comparison
        shortage = f"the plan {violation.reason}" if violation.is_shortage else violation.reason
        both = replace(violated, reason=f"{violated.reason}, and {shortage}")
        return replace(infeasible(candidate, both), lacking=violation.binding, is_isolated=is_isolated)

    return _confirmed(failed.values(), confirm)


def _violation_at_any_size(estimate: Estimate, slos: Slos) -> Infeasibility | None:
    """Return the SLOs on accuracy and cost that a plan misses in isolation, where its cost is the lowest."""
    missed = tuple(kind for kind in estimate.violations(slos) if kind is not SloKind.LATENCY)
    reasons = (describe_violation(estimate, slos.by_kind[kind]) for kind in missed)
    return Infeasibility(missed, " and ".join(reasons)) if missed else None


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
    costs = marginal_costs(problem, query, problem.usage_of(trial), packed=True)
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
        outcome = _feasibility(answer, trial)
        return outcome if isinstance(outcome, Infeasibility) else outcome.sizing.final[query]

    return tuple(_tried_as_sized(comparisons, answer.run.slos[query], try_plan))


def _by_feasibility(answer: Answer, trial: IntArray, candidate: int) -> CandidateComparison:
    problem, usage = answer.problem, answer.problem.usage_of(trial)
    violated = [cut for cut in answer.cuts if not cut.is_satisfied(problem, trial, usage)]
    slo_cuts = (cut for cut in violated if isinstance(cut, SizingCut | CostShareCut))
    cut = min(slo_cuts, key=lambda cut: cut.candidate != candidate, default=None)
    shortage = capacity_violation(problem, usage)
    if cut is not None and shortage is None:  # the search noted it, so no plan is estimated again
        query, is_own = problem.candidates[cut.candidate].query, cut.candidate == candidate
        violation = Infeasibility((), cut.reason, is_sized=True, query=query, is_withdrawn=is_own)
        return infeasible(problem.candidates[candidate], violation)
    outcome = shortage or _feasibility(answer, trial)
    if isinstance(outcome, FeasibleSolution) and any(isinstance(cut, ChurnCut) for cut in violated):
        return CandidateComparison(problem.candidates[candidate], (0, -1.0), _TOO_MANY_CHANGES, "search")
    return by_outcome(answer, candidate, outcome)


def _feasibility(answer: Answer, trial: IntArray) -> Infeasibility | FeasibleSolution:
    run = answer.run
    return check_feasibility(answer.problem, trial, run.slos, run.reestimate, widely=answer.is_large)


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
        outcome = replace(outcome, reason=cut.reason, sized=None, is_sized=True, is_withdrawn=True)
    elif outcome.violations and outcome.violations[0].candidate != candidate:
        outcome = replace(outcome, sized=None)
    return infeasible(plan, outcome)


def cheaper_failures(comparisons: Sequence[CandidateComparison]) -> list[str]:
    """Return the reason against the nearest of the plans that would cost less, if there are any."""
    cheaper = [comparison for comparison in comparisons if comparison.violation is not None and comparison.is_cheaper]
    nearest = min(cheaper, key=attrgetter("distance"), default=None)
    return [] if nearest is None else [f"{_nearest_text(cheaper, 'would cost less')} {failure(nearest)}"]


def _nearest_text(comparisons: Sequence[CandidateComparison], merit: str) -> str:
    count = len(comparisons)
    return f"the only plan that {merit}" if count == 1 else f"the nearest of {count} plans that {merit}"


def _reason(
    answer: Answer, query: int, comparisons: tuple[CandidateComparison, ...], users: Mapping[int, Sequence[int]]
) -> str:
    count = len(answer.problem.candidates_of(query))
    merit = f"none of its {count} plans fits and costs less in total, given those of the other queries"
    cheaper = [comparison for comparison in comparisons if comparison.violation is None and comparison.is_cheaper]
    if cheaper:  # at a churn price, with few changes, or at the time limit
        nearest = min(cheaper, key=attrgetter("distance"))
        merit = f"{_nearest_text(cheaper, 'would fit and cost less')} {nearest.reason}"
    reasons = ["its only plan" if count == 1 else merit]
    priority = priority_reason(answer, query)
    if priority:
        reasons.insert(0, priority)
    if answer.problem.runs[answer.chosen[query]]:
        reasons.append("unchanged from the previous plan")
    reasons += shared_deployments(answer.problem, answer.chosen, query, users)
    reasons += cheaper_failures(comparisons)
    return "; ".join(reasons)
