"""Column generation: plans that no frontier lists enter where they are best at the prices of the relaxed matching.

A frontier offers the matching only so many plans. What more there are is priced all at once (`LeftOut`); whoever would
pay less for one of those gets it as a candidate, and prices are found anew, until nobody would, or some rounds went by
(Dantzig and Wolfe, "Decomposition principle for linear programs", Operations Research 8, 1960).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from heapq import nsmallest

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.dual_ascent import DualSolver
from circinus.matching.lagrangian.relaxation import RelaxedView
from circinus.matching.lagrangian.solve import cost_tiebreak_weight
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.problem import RESOURCES, Problem
from circinus.matching.solvers.greedy import greedy, local_search, objective_key
from circinus.matching.solvers.milp_model import viable_candidates
from circinus.planning import Frontier
from circinus.planning.column_pool import DualPrices
from circinus.specification import Deployment, Query, QueryPlan

Compose = Callable[[Query, Sequence[Deployment]], Sequence[PlanCandidate]]
"""The plans of a query that use only the given deployments and promise its objectives."""

Candidates = Mapping[str, Sequence[PlanCandidate]]
"""By query name."""

_ROUNDS_OF_REUSE = 3
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
    for _ in range(_ROUNDS_OF_REUSE):
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


Promise = Callable[[Query, QueryPlan], PlanCandidate | None]
"""A plan of a query with its estimate; None: it does not promise the query's objectives."""

_ROUNDS = 4
_A_ROUND = 2
"""Plans that enter for a query in a round."""
_BETTER_BY = 0.02
"""Share of what a query's best listed plan pays that another one must save: less is not worth the time it takes."""
_ABOVE = 30.0
"""What a higher rank counts more than all lower ones."""


def generate_columns(
    candidates: Candidates,
    frontiers: Mapping[str, Frontier],
    promise: Promise,
    compile_candidates: Callable[[Candidates], Problem],
    *,
    enough: Callable[[], bool],
    seed: int,
) -> Candidates:
    """The candidates, and behind each query's what pays less at the prices at which all of them are matched.

    Args:
        candidates: by query name.
        frontiers: with what was left out of them.
        promise: how a plan is estimated for a query.
        compile_candidates: the problem of some candidates.
        enough: whether to stop.
        seed: of samples.
    """
    waiting = {name for name, frontier in frontiers.items() if frontier.unlisted is not None and candidates[name]}
    for _ in range(_ROUNDS):
        if not waiting or enough():
            break
        prices = dual_prices(compile_candidates(candidates), seed)
        if prices is None:
            break
        further: dict[str, list[PlanCandidate]] = {}
        for name in sorted(waiting):
            left_out = frontiers[name].unlisted
            assert left_out is not None
            known = {candidate.plan for candidate in candidates[name]}
            plans = left_out.lowest_reduced_cost(prices, _A_ROUND, better_by=_BETTER_BY)
            found = [promise(frontiers[name].query, plan) for plan in plans if plan not in known]
            further[name] = [candidate for candidate in found if candidate is not None]
        waiting = {name for name, found in further.items() if found}
        candidates = {name: (*plans, *further.get(name, ())) for name, plans in candidates.items()}
    return candidates


def dual_prices(problem: Problem, seed: int) -> DualPrices | None:
    """What plans pay in the relaxed matching; None where nothing is short."""
    view = RelaxedView.of(
        replace(problem, weight=problem.priority_levels.level_weight(problem.priority_levels.count - 1, _ABOVE)),
        viable_candidates(problem, ()),
    )
    if not view.queries:
        return None
    fluid = view.scaled(np.ones(len(problem.deployments)))
    search, objective = DualSolver(fluid, np.random.default_rng(seed)), DualObjective(1.0, cost_tiebreak_weight(fluid))
    by_resource = view.by_resource(search.polish(objective, search.maximize_weight(objective)))
    if not by_resource.any():
        return None
    rows, count = problem.rows, len(problem.rows.limit)
    a_unit = np.zeros((len(problem.pools), len(RESOURCES)))
    # Rows that count replicas on nodes stand for the resource that they are made of, as in `resource_prices`.
    np.add.at(a_unit, (rows.pool, rows.resource), by_resource[:count])
    whole = _capacities(problem)
    a_unit = np.divide(a_unit, whole, out=np.zeros_like(a_unit), where=whole > 0)
    links = by_resource[count:] / problem.link_capacity_bytes_per_s
    return DualPrices(
        pools={
            name: (float(a[0]), float(a[1]), float(a[2]), float(a[3]))
            for name, a in zip(problem.pools, a_unit, strict=True)
            if a.any()
        },
        links={name: float(price) for name, price in zip(problem.links, links, strict=True) if price > 0},
        usd_per_h=objective.cost,
    )


def _capacities(problem: Problem) -> FloatArray:
    """(K, 4) of whole pools."""
    return np.asarray(problem.nodes[:, None] * problem.node_capacity, dtype=np.float64)
