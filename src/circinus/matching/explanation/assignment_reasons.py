"""Reasons for the plan of a query that concern the other queries: priority and shared deployments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from circinus.arrays import IntArray
from circinus.matching.match_run import Answer
from circinus.matching.problem import Problem
from circinus.specification.formatting import format_names


def priority_reason(answer: Answer, query: int) -> str:
    """Return the reason why a query precedes other queries, or "" if all are equal."""
    query_spec, levels = answer.run.queries[query], answer.problem.priority_levels.rank
    if query_spec.pin is not None:
        return "pinned, so served before all other queries"
    if levels[query] > levels.min() and query_spec.priority > min(other.priority for other in answer.run.queries):
        return f"priority {query_spec.priority} comes before lower ones"
    return ""


def deployment_users(problem: Problem, chosen: IntArray) -> Mapping[int, Sequence[int]]:
    """Return the served queries of each deployment, in order."""
    users: dict[int, list[int]] = {}
    for query, candidate in problem.served(chosen):
        for deployment in problem.fractional_load.row(candidate)[0].tolist():
            users.setdefault(deployment, []).append(query)
    return users


def shared_deployments(problem: Problem, chosen: IntArray, query: int, users: Mapping[int, Sequence[int]]) -> list[str]:
    """Return the query's shared deployments, as operators and pools with the other queries, grouped by these.

    Args:
        problem: of the choice.
        chosen: (Q,) candidate of each query, -1 for none.
        query: served.
        users: see `deployment_users`.
    """
    by_users: dict[tuple[str, ...], dict[str, dict[str, None]]] = {}
    for deployment in problem.fractional_load.row(int(chosen[query]))[0].tolist():
        others = tuple(problem.queries[other] for other in users[deployment] if other != query)
        if others:
            shared = problem.deployments[deployment]
            by_users.setdefault(others, {}).setdefault(shared.pool, {})[shared.operator] = None
    return [
        f"shares {' and '.join(', '.join(operators) + f' on {pool}' for pool, operators in by_pool.items())} with "
        f"{format_names(others)}"
        for others, by_pool in by_users.items()
    ]
