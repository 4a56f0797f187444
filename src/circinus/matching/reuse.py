"""Widening the choice by plans on deployments that run anyway.

A frontier keeps the plans that nothing beats when each query stands alone, or fully shared. Beside other queries a
plan that uses exactly their deployments may add next to nothing and still have been dropped. So the deployments of a
good answer are offered to every query: one step of column generation. What others could run is offered, too: if all
of them moved to a place together, each might follow there although none moves there first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import nsmallest

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.greedy import greedy, local_search, objective_key
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.problem import IntArray, Problem
from circinus.spec import Deployment, Query

Compose = Callable[[Query, Sequence[Deployment]], Sequence[PlanCandidate]]
"""The plans of a query that use only the given deployments and promise its objectives."""

Candidates = Mapping[str, Sequence[PlanCandidate]]
"""By query name."""

_ROUNDS = 3
_FOLLOWED = 3
"""Plans of each query, the cheapest if it stood alone, that others are offered as a whole."""


def solve_with_reuse(
    candidates: Candidates,
    queries: Sequence[Query],
    compose: Compose,
    compile_candidates: Callable[[Candidates], Problem],
    solve: Callable[[Problem, IntArray], MatchState],
    *,
    offer_cheapest: bool = True,
    enough: Callable[[], bool] = lambda: False,
) -> MatchState:
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
        offer_cheapest: whether queries are offered the cheapest plans of others, too; there are as many as queries.
        enough: whether to widen the choice no further.
    """
    problem = compile_candidates(candidates)
    quick = greedy(problem)
    state = solve(problem, quick)
    running = _running(problem, quick)
    others = _cheapest(candidates) if offer_cheapest else ()
    for _ in range(_ROUNDS):
        chosen = assignment_of(state)
        running = list(dict.fromkeys([*running, *_running(state.problem, chosen, state.last_solution)]))
        wider = _widened(candidates, queries, compose, [running, *others], enough)
        others = ()
        if wider is None or enough():
            break
        problem = compile_candidates(wider)
        start = np.where(chosen >= 0, chosen - state.problem.block[:-1] + problem.block[:-1], -1)
        known = objective_key(problem, start)
        quick = max(local_search(problem, start), greedy(problem), key=partial(objective_key, problem))
        if state.optimal and objective_key(problem, quick) <= known:
            break
        again = solve(problem, quick)
        if objective_key(problem, assignment_of(again)) <= known:
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


def _cheapest(candidates: Candidates) -> Sequence[Sequence[Deployment]]:
    """The deployments of plans that are cheapest where their query stands alone, each set once."""
    cheapest = (plan for plans in candidates.values() for plan in nsmallest(_FOLLOWED, plans, key=_alone_usd_per_h))
    return list(dict.fromkeys(tuple(use.deployment for use in plan.deployments) for plan in cheapest))


def _alone_usd_per_h(plan: PlanCandidate) -> float:
    whole = (max(1, math.ceil(use.fractional_replicas)) * use.demand.cost_usd_per_h for use in plan.deployments)
    return sum(whole) + plan.transfer_cost_usd_per_h


def _widened(
    candidates: Candidates,
    queries: Sequence[Query],
    compose: Compose,
    offers: Sequence[Sequence[Deployment]],
    enough: Callable[[], bool],
) -> Candidates | None:
    """The candidates with further plans at the end of each query's, each on deployments of one of the offers; None
    where there are none."""
    further: dict[str, list[PlanCandidate]] = {query.name: [] for query in queries}
    for query in queries:
        if enough():
            break
        known = {candidate.plan for candidate in candidates[query.name]}
        for offer in offers:
            new = [found for found in compose(query, offer) if found.plan not in known]
            known.update(found.plan for found in new)
            further[query.name] += new
    if not any(further.values()):
        return None
    return {name: (*plans, *further[name]) for name, plans in candidates.items()}
