"""Why a query got no plan, what binds, and what would let it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from circinus.matching.alternatives import Judgement, alternatives, judge
from circinus.matching.obstacles import Verified, examine
from circinus.matching.passes import State, chosen_of
from circinus.matching.plan_set import Rejection
from circinus.matching.problem import Problem
from circinus.matching.relaxation import Replan, cheapest_relaxation
from circinus.planning import Frontier

_MOST_NODES = 4
"""How many more nodes are tried."""

_ANYBODY = {"name": "any", "weight": 1.0, "priority": 0, "tenant": None}
"""Stands for a query of which it does not matter whose it is."""

_NEAREST = 3
"""Candidates that more nodes are tried for."""


def rejections(state: State, frontiers: Mapping[str, Frontier], replan: Replan | None) -> tuple[Rejection, ...]:
    """Every query that is not served, with what stands in the way and the cheapest relaxation of its objectives.

    What is said of one query holds for all that differ from it in name, weight, priority and tenant alone: to be let in
    beside the others takes the same of each.
    """
    said: dict[object, Rejection] = {}
    found = []
    for number, query in enumerate(state.queries):
        if chosen_of(state)[number] >= 0:
            continue
        frontier = frontiers[query.name]
        plans = tuple(candidate.plan for candidate in frontier.candidates)
        kind = (query.model_copy(update=_ANYBODY), plans, frontier.reason)
        known = said.get(kind)
        if known is None or _names(known):
            said[kind] = known = _rejection(state, number, frontier, replan)
        found.append(replace(known, query=query.name))
    return tuple(found)


def why_not(state: State, query: int) -> str:
    """Why a query that has candidates is not served, in words."""
    return _beside_the_others(state, query, judge(state, query))[0]


def _names(rejection: Rejection) -> bool:
    """Whether its own query is named in what is said of it, so that it cannot be said of others."""
    name = f"query {rejection.query}:"
    return any(name in reason for reason in (rejection.reason, *(other.reason for other in rejection.alternatives)))


def _rejection(state: State, query: int, frontier: Frontier, replan: Replan | None) -> Rejection:
    judged = judge(state, query)
    if judged:
        reason, binding = _beside_the_others(state, query, judged)
    else:
        reason, binding = frontier.reason, objectives_in_the_way(frontier)
    return Rejection(
        query=state.problem.queries[query],
        reason=reason,
        binding=binding,
        relaxation=cheapest_relaxation(state, frontier, replan),
        alternatives=alternatives(state.problem, judged, frontier),
        best_so_far=None if judged else frontier.best_so_far,
    )


def objectives_in_the_way(frontier: Frontier) -> tuple[str, ...]:
    """Objectives each of which alone keeps the query from having a plan, or those that its nearest plan misses."""
    if not frontier.measured:
        return ("measurements",)
    alone = tuple(relaxation.slo for relaxation in frontier.relaxations)
    nearest = frontier.near_misses[0].violations if frontier.near_misses else ()
    return alone or nearest or ("pools",)


def _beside_the_others(state: State, query: int, judged: tuple[Judgement, ...]) -> tuple[str, tuple[str, ...]]:
    nearest = judged[0]
    count = len(judged)
    which = "its only plan" if count == 1 else f"the nearest of its {count} plans"
    if nearest.obstacle is None:
        return f"{which} {nearest.reason}", ()
    reason = nearest.reason if nearest.reason.startswith("needs") else f"fails: {nearest.reason}"
    words = f"none of its plans fits beside those of the others: {which} {reason}"
    more = _more_nodes(state, query, judged)
    return (f"{words}; {more} it would be served as it is" if more else words), nearest.obstacle.binding


def _more_nodes(state: State, query: int, judged: tuple[Judgement, ...]) -> str:
    """`with 1 more node in pool edge`, checked by really fitting the plan; empty where none helps."""
    for added in range(1, _MOST_NODES + 1):
        for judgement in judged[:_NEAREST]:
            pools = judgement.obstacle.pools if judgement.obstacle is not None else frozenset()
            if len(pools) != 1:
                continue
            pool = next(iter(pools))
            tried = chosen_of(state).copy()
            tried[query] = judgement.candidate
            larger = _with_nodes(state.problem, pool, added)
            if isinstance(examine(larger, tried, state.slos, state.reestimate), Verified):
                return f"with {added} more node{'s' if added > 1 else ''} in pool {state.problem.pools[pool]}"
    return ""


def _with_nodes(problem: Problem, pool: int, added: int) -> Problem:
    """The same problem with more nodes in one pool."""
    nodes = problem.nodes.copy()
    nodes[pool] += added
    factor = nodes / np.maximum(problem.nodes, 1)
    return replace(
        problem,
        nodes=nodes,
        rows=replace(problem.rows, limit=problem.rows.limit * factor[problem.rows.pool]),
        max_replicas=np.rint(problem.max_replicas * factor[problem.pool_of]).astype(np.int64),
    )
