"""Reasons for rejections, with the binding resources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from circinus.matching.admission_control import AdmissionControl
from circinus.matching.backfill import running_state
from circinus.matching.explanation.assignment_explanations import (
    CandidateComparison,
    alternatives,
    by_outcome,
    failure,
)
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import Rejection
from circinus.planning import Frontier
from circinus.specification import Query

_ANY_QUERY = {"name": "any", "weight": 1.0, "priority": 0, "tenant": None}
"""Fields of a query that do not affect its rejection."""

NO_SINGLE_SLO = ("pools",)
"""What binds a query of which no single SLO excludes all plans: too little capacity, or several SLOs together."""


def query_kind(query: Query) -> Query:
    """Return a query without the fields that do not affect its rejection, as queries of a kind share explanations."""
    return query.model_copy(update=_ANY_QUERY)


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
        if rejection is None or names_query(rejection):
            by_kind[kind] = rejection = _rejection(answer, running, index)
        result.append(replace(rejection, query=query.name))
    return tuple(result)


def rejection_reason(answer: Answer, query: int) -> str:
    """Return the reason why a query is not served."""
    return _rejection(answer, running_state(answer), query).reason


def _rejection(answer: Answer, running: AdmissionControl, query: int) -> Rejection:
    problem, levels = answer.problem, answer.problem.priority_levels.rank
    frontier, candidates = answer.run.frontiers[problem.queries[query]], problem.candidates_of(query)
    prepared = running.prepare(frontier.query, [problem.candidates[candidate] for candidate in candidates])
    outcomes = running.try_candidates(prepared, frontier.query.slos)
    return explain_rejection(
        frontier,
        [by_outcome(answer, candidates.start + position, outcome) for position, outcome in outcomes],
        neighbours="those of the other queries",
        preceded=bool((levels[answer.chosen >= 0] > levels[query]).any()),
    )


def explain_rejection(
    frontier: Frontier, compared: Sequence[CandidateComparison], *, neighbours: str, preceded: bool = False
) -> Rejection:
    """Return the rejection of a query.

    Args:
        frontier: of the query.
        compared: all its candidates.
        neighbours: description of the other queries' plans.
        preceded: whether queries of higher priority are served.
    """
    nearest_first = sorted(compared, key=lambda comparison: comparison.rank)
    reason, binding, isolated_limits = frontier.reason, _binding_slos(frontier), frontier.isolated_limits
    if frontier.candidates:
        reason, binding = _infeasibility_reason(nearest_first, neighbours, preceded)
    elif compared:
        nearest = nearest_first[0]
        if nearest.obstacle == "slo":
            reason = reason.removesuffix(isolated_limits)  # those on running deployments differ
        elif nearest.violation is not None:
            binding = nearest.violation.binding  # as sized, the plan meets the SLOs
        sized = f"at their final sizes next to {neighbours}, the nearest of {len(compared)} plans {failure(nearest)}"
        reason = f"{reason}; {sized}"
    return Rejection(
        query=frontier.query.name,
        reason=reason,
        binding=binding,
        relaxation=None,
        alternatives=alternatives(compared, frontier),
        best_so_far=None if frontier.candidates else frontier.best_effort,
        isolated_limits=isolated_limits if isolated_limits in reason else "",
    )


def names_query(rejection: Rejection) -> bool:
    """Return whether the rejection names its own query, so that other queries cannot share it."""
    name = f"query {rejection.query}:"
    return any(
        name in reason for reason in (rejection.reason, *(alternative.reason for alternative in rejection.alternatives))
    )


def _binding_slos(frontier: Frontier) -> tuple[str, ...]:
    """Return the SLOs that each exclude all plans alone, or those that the nearest plan violates."""
    if not frontier.measured:
        return ("measurements",)
    single = tuple(relaxation.slo for relaxation in frontier.relaxations)
    nearest = frontier.near_misses[0].violations if frontier.near_misses else ()
    return single or nearest or NO_SINGLE_SLO


def _infeasibility_reason(
    nearest_first: Sequence[CandidateComparison], neighbours: str, preceded: bool
) -> tuple[str, tuple[str, ...]]:
    nearest, count = nearest_first[0], len(nearest_first)
    subject = "its only plan" if count == 1 else f"the nearest of its {count} plans"
    if nearest.violation is None:
        return f"{subject} {nearest.reason}", ()
    message = f"none of its plans fits with {neighbours}: {subject} {failure(nearest)}"
    if preceded:
        message += "; pinned queries or queries of higher priority precede it"
    return message, nearest.violation.binding
