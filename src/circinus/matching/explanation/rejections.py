"""Reasons for rejections, with the binding resources and the smallest relaxation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.backfill import running_state
from circinus.matching.explanation.assignment_explanations import (
    CandidateComparison,
    alternatives,
    by_outcome,
    failure,
)
from circinus.matching.explanation.slo_relaxation import Replan, smallest_relaxation
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import Rejection
from circinus.planning import Frontier
from circinus.specification import Query

_MAX_ADDED_NODES = 4
"""Maximum number of additional nodes that are tried."""

_ANY_QUERY = {"name": "any", "weight": 1.0, "priority": 0, "tenant": None}
"""Fields of a query that do not affect its rejection."""


def query_kind(query: Query) -> Query:
    """Return a query without the fields that do not affect its rejection, as queries of a kind share explanations."""
    return query.model_copy(update=_ANY_QUERY)


_NEAREST = 3
"""Number of candidates for which additional nodes are tried."""


def rejections(answer: Answer, replan: Replan | None, relax: Collection[str] | None = None) -> tuple[Rejection, ...]:
    """Return every query that is not served, with the binding resources and the smallest SLO relaxation.

    Relaxations are computed for the queries named by `relax`, or for all if it is None. Queries that differ in name,
    weight, priority and tenant only share one explanation, as they need the same to be admitted.
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
        relaxing = relax is None or query.name in relax
        kind = (query_kind(query), plans, frontier.reason, relaxing)
        rejection = by_kind.get(kind)
        if rejection is None or names_query(rejection):
            by_kind[kind] = rejection = _rejection(answer, running, index, replan, with_relaxation=relaxing)
        result.append(replace(rejection, query=query.name))
    return tuple(result)


def rejection_reason(answer: Answer, query: int) -> str:
    """Return the reason why a query is not served."""
    return _rejection(answer, running_state(answer), query, None, with_relaxation=False).reason


def _rejection(
    answer: Answer, running: AdmissionControl, query: int, replan: Replan | None, *, with_relaxation: bool
) -> Rejection:
    problem, levels = answer.problem, answer.problem.priority_levels.rank
    frontier, candidates = answer.run.frontiers[problem.queries[query]], problem.candidates_of(query)
    prepared = running.prepare(frontier.query, [problem.candidates[candidate] for candidate in candidates])
    outcomes = running.try_candidates(prepared, frontier.query.slos)
    return explain_rejection(
        running,
        frontier,
        [by_outcome(answer, candidates.start + position, outcome) for position, outcome in outcomes],
        replan,
        neighbours="those of the other queries",
        preceded=bool((levels[answer.chosen >= 0] > levels[query]).any()),
        with_relaxation=with_relaxation,
    )


def explain_rejection(
    running: AdmissionControl,
    frontier: Frontier,
    compared: Sequence[CandidateComparison],
    replan: Replan | None,
    *,
    neighbours: str,
    preceded: bool = False,
    with_relaxation: bool = True,
) -> Rejection:
    """Return the rejection of a query.

    Args:
        running: the other queries' plans.
        frontier: of the query.
        compared: all its candidates.
        replan: plans it under relaxed SLOs.
        neighbours: description of the other queries' plans.
        preceded: whether queries of higher priority are served.
        with_relaxation: whether the smallest relaxation is searched for.
    """
    nearest_first = sorted(compared, key=lambda comparison: comparison.rank)
    reason, binding = frontier.reason, _binding_slos(frontier)
    if frontier.candidates:
        reason, binding = _infeasibility_reason(running, frontier, nearest_first, neighbours, preceded)
    elif compared:
        nearest = f"the nearest of {len(compared)} plans {failure(nearest_first[0])}"
        reason = f"{reason}; at their final sizes next to {neighbours}, {nearest}"
    return Rejection(
        query=frontier.query.name,
        reason=reason,
        binding=binding,
        relaxation=smallest_relaxation(running, frontier, replan) if with_relaxation else None,
        alternatives=alternatives(compared, frontier),
        best_so_far=None if frontier.candidates else frontier.best_effort,
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
    return single or nearest or ("pools",)


def _infeasibility_reason(
    running: AdmissionControl,
    frontier: Frontier,
    nearest_first: Sequence[CandidateComparison],
    neighbours: str,
    preceded: bool,
) -> tuple[str, tuple[str, ...]]:
    nearest, count = nearest_first[0], len(nearest_first)
    subject = "its only plan" if count == 1 else f"the nearest of its {count} plans"
    if nearest.obstacle is None:
        return f"{subject} {nearest.reason}", ()
    message = f"none of its plans fits with {neighbours}: {subject} {failure(nearest)}"
    if preceded:
        message += "; pinned queries or queries of higher priority precede it"
    return message + _helpful_nodes(running, frontier, nearest_first[:_NEAREST]), nearest.obstacle.binding


def _helpful_nodes(running: AdmissionControl, frontier: Frontier, nearest: Sequence[CandidateComparison]) -> str:
    """Return the smallest number of nodes that help, checked by fitting a plan, or "" if none do."""
    query = frontier.query
    for added in range(1, _MAX_ADDED_NODES + 1):
        for comparison in nearest:
            pools = comparison.obstacle.pools if comparison.obstacle is not None else frozenset()
            if len(pools) == 1:
                pool = running.infrastructure.pools[next(iter(pools))].name
                larger = running.with_nodes(pool, added)
                prepared = larger.prepare(query, [comparison.candidate])
                if isinstance(larger.try_candidate(prepared, 0, query.slos), AdmissionFit):
                    nodes = "1 more node" if added == 1 else f"{added} more nodes"
                    return f"; with {nodes} in pool {pool} it would be served unchanged"
    return ""
