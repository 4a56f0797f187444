"""Reasons for rejections, with the binding resources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter

from circinus.matching.admission_control import AdmissionControl
from circinus.matching.backfill import running_state
from circinus.matching.explanation.assignment_explanations import by_outcome
from circinus.matching.explanation.candidate_comparisons import (
    CandidateComparison,
    alternatives,
    failure,
    near_miss_comparisons,
    nearest_first,
)
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import Rejection
from circinus.planning import BestEffortPlan, Frontier
from circinus.planning.frontier import MEASUREMENTS, query_kind
from circinus.planning.near_misses import MIN_CHANCE


def rejections(answer: Answer) -> tuple[Rejection, ...]:
    """Return every query that is not served, with the binding resources.

    Queries that differ in name, weight, priority and tenant only share one explanation, as they need the same to be
    admitted.
    """
    by_kind: dict[object, Rejection] = {}
    result: list[Rejection] = []
    if (answer.chosen >= 0).all():
        return ()
    running = running_state(answer)
    for index, query in enumerate(answer.run.queries):
        if answer.chosen[index] >= 0:
            continue
        frontier = answer.run.frontiers[query.name]
        plans = tuple(candidate.plan for candidate in frontier.candidates)
        kind = (query_kind(query), plans, frontier.reason)
        rejection = by_kind.get(kind)
        if rejection is None:
            by_kind[kind] = rejection = _rejection(answer, running, index)
        result.append(replace(rejection, query=query.name))
    return tuple(result)


def rejection_reason(answer: Answer, query: int) -> str:
    """Return the reason why a query is not served."""
    return _rejection(answer, running_state(answer), query).reason


def _rejection(answer: Answer, running: AdmissionControl, query: int) -> Rejection:
    problem = answer.problem
    frontier, candidates = answer.run.frontiers[problem.queries[query]], problem.candidates_of(query)
    prepared = running.prepare(frontier.query, [problem.candidates[candidate] for candidate in candidates])
    outcomes = running.try_candidates(prepared, frontier.query.slos)
    return explain_rejection(
        frontier,
        [by_outcome(answer, candidates.start + position, outcome) for position, outcome in outcomes],
        neighbours="those of the other queries",
    )


def explain_rejection(frontier: Frontier, compared: Sequence[CandidateComparison], *, neighbours: str) -> Rejection:
    """Return the rejection of a query.

    Args:
        frontier: of the query.
        compared: all its candidates.
        neighbours: description of the other queries' plans.
    """
    reason, binding, isolated_limits = frontier.reason, frontier.binding, frontier.isolated_limits
    misses = near_miss_comparisons(frontier, {comparison.candidate.plan for comparison in compared})
    tried = nearest_first([*compared, *misses])
    if frontier.candidates:
        reason, binding = _infeasibility_reason(tried, neighbours)
    elif compared:
        nearest = tried[0]
        if nearest.obstacle == "slo":
            reason = reason.removesuffix(isolated_limits)  # those on running deployments differ
        if binding != (MEASUREMENTS,) and (nearest.lacking or not nearest.is_isolated):
            binding = nearest.binding
        where = "" if nearest.is_isolated else f"as sized next to {neighbours}, "
        subject = "its only plan" if len(tried) == 1 else f"the nearest of {len(tried)} plans"
        missed = failure(nearest, sizes_named=not nearest.is_isolated)
        reason = "; ".join(filter(None, (reason, f"{where}{subject} {missed}")))
    return Rejection(
        query=frontier.query.name,
        reason=reason,
        binding=binding,
        relaxation=None,
        alternatives=alternatives(compared, misses),
        best_so_far=None if frontier.candidates else _best_so_far(frontier, tried),
        isolated_limits=isolated_limits if isolated_limits in reason else "",
    )


def _best_so_far(frontier: Frontier, tried: Sequence[CandidateComparison]) -> BestEffortPlan | None:
    """Return the plan that most likely meets the SLOs among the best in isolation and those that fit as sized.

    If no other plan fits with a chance, the best in isolation is returned, or None if it has no chance as sized.
    """
    best = frontier.best_effort
    if best is None:
        return None
    own = next((entry for entry in tried if entry.candidate.plan == best.candidate.plan), None)
    likeliest = next((entry for entry in tried if entry.probability is not None and not entry.lacking), None)
    probability = None if likeliest is None else likeliest.probability
    own_sized = None if own is None or own.is_isolated else own
    if likeliest is None or probability is None or probability < MIN_CHANCE or (likeliest is own and own_sized is None):
        sized_probability = None if own_sized is None else own_sized.probability
        return None if sized_probability is not None and sized_probability < MIN_CHANCE else best
    candidate = replace(likeliest.candidate, estimate=likeliest.final or likeliest.candidate.estimate)
    of_parts = (frontier.measured_items.get(part.plan.configuration) for part in candidate.plan.parts)
    measured = min((entry for entry in of_parts if entry is not None), key=attrgetter("items"), default=None)
    return replace(
        best,
        candidate=candidate,
        probability=probability,
        items=None if measured is None else measured.items,
        more_items=None if measured is None or candidate.plan.is_split else measured.more_items,
        is_sized=likeliest.final is not None,
    )


def _infeasibility_reason(tried: Sequence[CandidateComparison], neighbours: str) -> tuple[str, tuple[str, ...]]:
    nearest, count = tried[0], len(tried)
    subject = "its only plan" if count == 1 else f"the nearest of its {count} plans"
    if nearest.violation is None:
        return f"{subject} {nearest.reason}", ()
    return f"none of its plans fits with {neighbours}: {subject} {failure(nearest)}", nearest.binding
