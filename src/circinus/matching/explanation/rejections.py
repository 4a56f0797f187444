"""Reasons for rejections, with the binding resources and the smallest relaxation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.backfill import running_state
from circinus.matching.explanation.assignment_explanations import (
    NOT_REACHED,
    CandidateComparison,
    alternatives,
    infeasible,
)
from circinus.matching.explanation.slo_relaxation import Replan, smallest_relaxation
from circinus.matching.feasibility import Infeasibility
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import Rejection
from circinus.planning import Frontier

_MAX_ADDED_NODES = 4
"""Maximum number of additional nodes that are tried."""

_ANY_QUERY = {"name": "any", "weight": 1.0, "priority": 0, "tenant": None}
"""Fields of a query that do not affect its rejection."""

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
    admissions = _Admissions(answer)
    for index, query in enumerate(answer.run.queries):
        if answer.chosen[index] >= 0:
            continue
        frontier = answer.run.frontiers[query.name]
        plans = tuple(candidate.plan for candidate in frontier.candidates)
        relaxing = relax is None or query.name in relax
        kind = (query.model_copy(update=_ANY_QUERY), plans, frontier.reason, relaxing)
        rejection = by_kind.get(kind)
        if rejection is None or _names_query(rejection):
            by_kind[kind] = rejection = _rejection(admissions, index, frontier, replan, with_relaxation=relaxing)
        result.append(replace(rejection, query=query.name))
    return tuple(result)


def rejection_reason(answer: Answer, query: int) -> str:
    """Return the reason why a query with candidates is not served."""
    admissions = _Admissions(answer)
    return _infeasibility_reason(admissions, query, _compare_candidates(admissions, query))[0]


def _compare_candidates(admissions: _Admissions, query: int) -> tuple[CandidateComparison, ...]:
    """Return all candidates of a query that is not served, best first."""
    answer, admission = admissions.answer, admissions.current
    candidates, slos = answer.problem.candidates_of(query), answer.run.slos[query]
    prepared = admission.prepare(answer.run.queries[query], [answer.problem.candidates[c] for c in candidates])
    comparisons = []
    for position, candidate in enumerate(candidates):
        outcome = admission.try_candidate(prepared, position, slos)
        comparisons.append(
            infeasible(answer, candidate, outcome)
            if isinstance(outcome, Infeasibility)
            else CandidateComparison(candidate, (0, -1.0), NOT_REACHED)
        )
    return tuple(sorted(comparisons, key=lambda comparison: comparison.rank))


def _names_query(rejection: Rejection) -> bool:
    """Return whether the rejection names its own query, so that other queries cannot share it."""
    name = f"query {rejection.query}:"
    return any(
        name in reason for reason in (rejection.reason, *(alternative.reason for alternative in rejection.alternatives))
    )


def _rejection(
    admissions: _Admissions, query: int, frontier: Frontier, replan: Replan | None, *, with_relaxation: bool
) -> Rejection:
    answer = admissions.answer
    comparisons = _compare_candidates(admissions, query)
    if comparisons:
        reason, binding = _infeasibility_reason(admissions, query, comparisons)
    else:
        reason, binding = frontier.reason, binding_slos(frontier)
    return Rejection(
        query=answer.problem.queries[query],
        reason=reason,
        binding=binding,
        relaxation=(smallest_relaxation(admissions.current, frontier, replan) if with_relaxation else None),
        alternatives=alternatives(answer.problem, comparisons, frontier),
        best_so_far=None if comparisons else frontier.best_effort,
    )


def binding_slos(frontier: Frontier) -> tuple[str, ...]:
    """Return the SLOs that each exclude all plans alone, or those that the nearest plan violates."""
    if not frontier.measured:
        return ("measurements",)
    single = tuple(relaxation.slo for relaxation in frontier.relaxations)
    nearest = frontier.near_misses[0].violations if frontier.near_misses else ()
    return single or nearest or ("pools",)


def _infeasibility_reason(
    admissions: _Admissions, query: int, comparisons: tuple[CandidateComparison, ...]
) -> tuple[str, tuple[str, ...]]:
    nearest = comparisons[0]
    count = len(comparisons)
    subject = "its only plan" if count == 1 else f"the nearest of its {count} plans"
    if nearest.obstacle is None:
        return f"{subject} {nearest.reason}", ()
    reason = nearest.reason if nearest.reason.startswith("needs") else f"fails: {nearest.reason}"
    message = f"none of its plans fits with those of the other queries: {subject} {reason}"
    levels, answer = admissions.answer.problem.priority_levels.rank, admissions.answer
    if (levels[answer.chosen >= 0] > levels[query]).any():
        message += "; pinned queries or queries of higher priority precede it"
    helpful_nodes = _helpful_nodes(admissions, query, comparisons)
    return (
        f"{message}; {helpful_nodes} it would be served unchanged" if helpful_nodes else message
    ), nearest.obstacle.binding


def _helpful_nodes(admissions: _Admissions, query: int, comparisons: tuple[CandidateComparison, ...]) -> str:
    """Return `with 1 more node in pool edge`, checked by fitting the plan, or "" if no node helps."""
    answer = admissions.answer
    for added in range(1, _MAX_ADDED_NODES + 1):
        for comparison in comparisons[:_NEAREST]:
            pools = comparison.obstacle.pools if comparison.obstacle is not None else frozenset()
            if len(pools) != 1:
                continue
            pool, candidate = answer.problem.pools[next(iter(pools))], answer.problem.candidates[comparison.candidate]
            larger, rejected = admissions.with_nodes(pool, added), answer.run.queries[query]
            if isinstance(larger.try_candidate(larger.prepare(rejected, [candidate]), 0, rejected.slos), AdmissionFit):
                return f"with {added} more node{'s' if added > 1 else ''} in pool {pool}"
    return ""


class _Admissions:
    """Admission control over the present nodes, and over more nodes, each prepared once."""

    def __init__(self, answer: Answer) -> None:
        self.answer, self.current = answer, running_state(answer)
        self._larger: dict[tuple[str, int], AdmissionControl] = {}

    def with_nodes(self, pool: str, added: int) -> AdmissionControl:
        """Return the admission control with additional nodes in a pool."""
        if (pool, added) not in self._larger:
            infrastructure = self.answer.run.infrastructure
            pools = [
                p.model_copy(update={"nodes": p.nodes + added}) if p.name == pool else p for p in infrastructure.pools
            ]
            self._larger[pool, added] = running_state(
                self.answer, infrastructure.model_copy(update={"pools": tuple(pools)})
            )
        return self._larger[pool, added]
