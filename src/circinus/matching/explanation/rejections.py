"""Why a query got no plan, what binds, and what would let it in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.backfill import running_state
from circinus.matching.explanation.assignment_explanations import CandidateComparison, alternatives, compare_candidates
from circinus.matching.explanation.slo_relaxation import Replan, RunningQueryFitter, smallest_relaxation
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.plan_set import Rejection
from circinus.planning import Frontier

_MOST_NODES = 4
"""How many more nodes are tried."""

_ANYBODY = {"name": "any", "weight": 1.0, "priority": 0, "tenant": None}
"""Stands for a query of which it does not matter whose it is."""

_NEAREST = 3
"""Candidates that more nodes are tried for."""


def rejections(
    state: MatchState, frontiers: Mapping[str, Frontier], replan: Replan | None, relax: Collection[str] | None = None
) -> tuple[Rejection, ...]:
    """Every query that is not served, with what stands in the way and the cheapest relaxation of its objectives, which
    is found for the queries named by `relax` alone, or for all where it is None.

    What is said of one query holds for all that differ from it in name, weight, priority and tenant alone: to be let in
    beside the others takes the same of each.
    """
    said: dict[object, Rejection] = {}
    found: list[Rejection] = []
    if (assignment_of(state) >= 0).all():
        return ()
    room = _Rooms(state)
    for number, query in enumerate(state.queries):
        if assignment_of(state)[number] >= 0:
            continue
        frontier = frontiers[query.name]
        plans = tuple(candidate.plan for candidate in frontier.candidates)
        relaxing = relax is None or query.name in relax
        kind = (query.model_copy(update=_ANYBODY), plans, frontier.reason, relaxing)
        known = said.get(kind)
        if known is None or _names(known):
            said[kind] = known = _rejection(room, number, frontier, replan, relaxing=relaxing)
        found.append(replace(known, query=query.name))
    return tuple(found)


def rejection_reason(state: MatchState, query: int) -> str:
    """Why a query that has candidates is not served, in words."""
    room = _Rooms(state)
    return _beside_the_others(room, query, compare_candidates(state, query, room.now))[0]


def _names(rejection: Rejection) -> bool:
    """Whether its own query is named in what is said of it, so that it cannot be said of others."""
    name = f"query {rejection.query}:"
    return any(name in reason for reason in (rejection.reason, *(other.reason for other in rejection.alternatives)))


def _rejection(room: _Rooms, query: int, frontier: Frontier, replan: Replan | None, *, relaxing: bool) -> Rejection:
    state = room.state
    judged = compare_candidates(state, query, room.now)
    if judged:
        reason, binding = _beside_the_others(room, query, judged)
    else:
        reason, binding = frontier.reason, binding_slos(frontier)
    return Rejection(
        query=state.problem.queries[query],
        reason=reason,
        binding=binding,
        relaxation=(
            smallest_relaxation(RunningQueryFitter(room.now, frontier.query), frontier, replan) if relaxing else None
        ),
        alternatives=alternatives(state.problem, judged, frontier),
        best_so_far=None if judged else frontier.best_effort,
    )


def binding_slos(frontier: Frontier) -> tuple[str, ...]:
    """Objectives each of which alone keeps the query from having a plan, or those that its nearest plan misses."""
    if not frontier.measured:
        return ("measurements",)
    alone = tuple(relaxation.slo for relaxation in frontier.relaxations)
    nearest = frontier.near_misses[0].violations if frontier.near_misses else ()
    return alone or nearest or ("pools",)


def _beside_the_others(
    room: _Rooms, query: int, judged: tuple[CandidateComparison, ...]
) -> tuple[str, tuple[str, ...]]:
    nearest = judged[0]
    count = len(judged)
    which = "its only plan" if count == 1 else f"the nearest of its {count} plans"
    if nearest.obstacle is None:
        return f"{which} {nearest.reason}", ()
    reason = nearest.reason if nearest.reason.startswith("needs") else f"fails: {nearest.reason}"
    words = f"none of its plans fits beside those of the others: {which} {reason}"
    ranks, state = room.state.problem.priority_levels.rank, room.state
    if (ranks[assignment_of(state) >= 0] > ranks[query]).any():
        words += "; pinned queries or those of higher priority came first"
    more = _more_nodes(room, query, judged)
    return (f"{words}; {more} it would be served as it is" if more else words), nearest.obstacle.binding


def _more_nodes(room: _Rooms, query: int, judged: tuple[CandidateComparison, ...]) -> str:
    """`with 1 more node in pool edge`, checked by really fitting the plan; empty where none helps."""
    state = room.state
    for added in range(1, _MOST_NODES + 1):
        for judgement in judged[:_NEAREST]:
            pools = judgement.obstacle.pools if judgement.obstacle is not None else frozenset()
            if len(pools) != 1:
                continue
            pool, candidate = state.problem.pools[next(iter(pools))], state.problem.candidates[judgement.candidate]
            larger, asking = room.with_nodes(pool, added), state.queries[query]
            if isinstance(larger.try_candidate(larger.prepare(asking, [candidate]), 0, asking.slos), AdmissionFit):
                return f"with {added} more node{'s' if added > 1 else ''} in pool {pool}"
    return ""


class _Rooms:
    """What runs, on the nodes there are and on more of them, each prepared once."""

    def __init__(self, state: MatchState) -> None:
        self.state, self.now = state, running_state(state)
        self._larger: dict[tuple[str, int], AdmissionControl] = {}

    def with_nodes(self, pool: str, added: int) -> AdmissionControl:
        """Where a pool has more nodes."""
        if (pool, added) not in self._larger:
            there = self.state.infrastructure
            pools = [p.model_copy(update={"nodes": p.nodes + added}) if p.name == pool else p for p in there.pools]
            self._larger[pool, added] = running_state(self.state, there.model_copy(update={"pools": tuple(pools)}))
        return self._larger[pool, added]
