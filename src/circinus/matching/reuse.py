"""Widening the choice by plans on deployments that run anyway.

A frontier keeps the plans that nothing beats when each query stands alone, or fully shared. Beside other queries a
plan that uses exactly their deployments may add next to nothing and still have been dropped. So the deployments of a
good answer are offered to every query: one step of column generation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from circinus.estimation import Candidate
from circinus.matching.greedy import goodness, greedy, improve
from circinus.matching.passes import State, chosen_of
from circinus.matching.problem import IntArray, Problem
from circinus.spec import Deployment, Query

Compose = Callable[[Query, Sequence[Deployment]], Sequence[Candidate]]
"""The plans of a query that use only the given deployments and promise its objectives."""

Candidates = Mapping[str, Sequence[Candidate]]
"""By query name."""

_ROUNDS = 3


def solve_with_reuse(
    candidates: Candidates,
    queries: Sequence[Query],
    compose: Compose,
    compile_candidates: Callable[[Candidates], Problem],
    solve: Callable[[Problem, IntArray], State],
    *,
    enough: Callable[[], bool] = lambda: False,
) -> State:
    """Solve, and solve again while plans on the answer's deployments help.

    The frontiers' plans alone are solved first: on nearly all instances the plans on running deployments then improve
    nothing, which quick answers to the wider problem show at a fraction of the cost of solving it. The deployments of
    a quick answer to the frontiers' plans are offered, too: they differ from those of the best one.

    Args:
        candidates: the frontiers' plans.
        queries: what is matched.
        compose: how a query is planned on given deployments.
        compile_candidates: the problem of some candidates.
        solve: the passes on a problem, from a choice to begin with.
        enough: whether to widen the choice no further.
    """
    problem = compile_candidates(candidates)
    quick = greedy(problem)
    state = solve(problem, quick)
    running = _running(problem, quick)
    for _ in range(_ROUNDS):
        chosen = chosen_of(state)
        running = list(dict.fromkeys([*running, *_running(state.problem, chosen, state.attempted)]))
        wider = _widened(candidates, queries, compose, running, enough)
        if wider is None or enough():
            break
        problem = compile_candidates(wider)
        start = np.where(chosen >= 0, chosen - state.problem.block[:-1] + problem.block[:-1], -1)
        known = goodness(problem, start)
        quick = max(improve(problem, start), greedy(problem), key=partial(goodness, problem))
        if state.optimal and goodness(problem, quick) <= known:
            break
        again = solve(problem, quick)
        if goodness(problem, chosen_of(again)) <= known:
            break
        candidates, state = wider, again
    return state


def _running(problem: Problem, *choices: IntArray | None) -> list[Deployment]:
    """The deployments that any of the choices uses."""
    used = np.zeros(len(problem.deployments), dtype=bool)
    for chosen in choices:
        if chosen is not None:
            used |= problem.usage_of(chosen).used
    return [problem.deployments[column] for column in np.flatnonzero(used)]


def _widened(
    candidates: Candidates,
    queries: Sequence[Query],
    compose: Compose,
    running: Sequence[Deployment],
    enough: Callable[[], bool],
) -> Candidates | None:
    """The candidates with further plans at the end of each query's; None where there are none."""
    further: dict[str, list[Candidate]] = {query.name: [] for query in queries}
    for query in queries:
        if enough():
            break
        known = {candidate.plan for candidate in candidates[query.name]}
        further[query.name] = [found for found in compose(query, running) if found.plan not in known]
    if not any(further.values()):
        return None
    return {name: (*plans, *further[name]) for name, plans in candidates.items()}
