"""Reasons for the plan of a query that concern the other queries: priority and shared deployments."""

from __future__ import annotations

import numpy as np

from circinus.arrays import IntArray
from circinus.matching.match_run import Answer
from circinus.matching.problem import Problem


def priority_reason(answer: Answer, query: int) -> str:
    """Return the reason why a query precedes other queries, or "" if all are equal."""
    query_spec, levels = answer.run.queries[query], answer.problem.priority_levels.rank
    if query_spec.pin is not None:
        return "pinned, so served before all other queries"
    if levels[query] > levels.min() and query_spec.priority > min(other.priority for other in answer.run.queries):
        return f"priority {query_spec.priority} comes before lower ones"
    return ""


def shared_deployments(problem: Problem, chosen: IntArray, query: int) -> list[tuple[str, list[str]]]:
    """Return (operators and pools, other queries) of the query's shared deployments, grouped by users."""
    by_users: dict[tuple[str, ...], dict[str, dict[str, None]]] = {}
    other_served = np.array([other for other, _ in problem.served(chosen) if other != query], dtype=np.int64)
    for deployment in problem.fractional_load.row(int(chosen[query]))[0]:
        sharing = other_served[problem.fractional_load.has(chosen[other_served], int(deployment))]
        users = tuple(problem.queries[other] for other in sharing)
        if users:
            shared = problem.deployments[deployment]
            by_users.setdefault(users, {}).setdefault(shared.pool, {})[shared.operator] = None
    return [
        (
            " and ".join(f"{', '.join(operators)} on {pool}" for pool, operators in by_pool.items()),
            list(users),
        )
        for users, by_pool in by_users.items()
    ]
