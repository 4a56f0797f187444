"""Column generation: plans that no frontier lists enter if they have the lowest reduced cost at the dual prices.

A frontier offers a limited number of plans to the matching. Its unlisted plans are priced together
(`Frontier.unlisted`); those with a lower reduced cost than the listed ones become candidates and prices are recomputed,
until there are none, or for a few rounds (Dantzig and Wolfe, "Decomposition principle for linear programs", Operations
Research 8, 1960).
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
"""Planner that returns a query's plans on the given deployments that meet its SLOs."""

Candidates = Mapping[str, Sequence[PlanCandidate]]
"""Query name -> candidates."""

_MAX_REUSE_ROUNDS = 3
_OFFERED_PLANS = 3
"""Number of each query's plans, the cheapest in isolation, whose deployments are offered to other queries."""


def solve_with_reuse(
    candidates: Candidates,
    queries: Sequence[Query],
    compose: Compose,
    compile_candidates: Callable[[Candidates], Problem],
    solve: Callable[[Problem, IntArray], MatchState],
    *,
    offer_cheapest: bool = True,
    should_stop: Callable[[], bool] = lambda: False,
) -> MatchState:
    """Solve, and solve again while plans on the answer's deployments improve it.

    The frontiers' plans alone are solved first. On nearly all instances, plans on running deployments then improve
    nothing, which heuristic answers to the extended problem show at a fraction of the cost of solving it. The
    deployments of a heuristic answer to the frontiers' plans are offered, too: they differ from those of the best one.

    Args:
        candidates: the frontiers' plans.
        queries: to be matched.
        compose: returns a query's plans on given deployments.
        compile_candidates: builds the problem of some candidates.
        solve: runs the passes on a problem, from a warm start.
        offer_cheapest: whether to offer the deployments of each query's cheapest plans as well.
        should_stop: whether to stop extending the candidates.
    """
    problem = compile_candidates(candidates)
    quick = greedy(problem)
    state = solve(problem, quick)
    running = _used_deployments(problem, quick)
    cheapest = _cheapest_deployments(candidates) if offer_cheapest else ()
    for _ in range(_MAX_REUSE_ROUNDS):
        chosen = assignment_of(state)
        running = list(dict.fromkeys([*running, *_used_deployments(state.problem, chosen, state.last_solution)]))
        extended = _widened(candidates, queries, compose, [running, *cheapest], should_stop)
        cheapest = ()
        if extended is None or should_stop():
            break
        problem = compile_candidates(extended)
        start = np.where(chosen >= 0, chosen - state.problem.block[:-1] + problem.block[:-1], -1)
        incumbent_key = objective_key(problem, start)
        quick = max(local_search(problem, start), greedy(problem), key=partial(objective_key, problem))
        if state.optimal and objective_key(problem, quick) <= incumbent_key:
            break
        next_state = solve(problem, quick)
        if objective_key(problem, assignment_of(next_state)) <= incumbent_key:
            break
        candidates, state = extended, next_state
    return state


def _used_deployments(problem: Problem, *choices: IntArray | None) -> list[Deployment]:
    """Return the deployments used by any of the choices."""
    used = np.zeros(len(problem.deployments), dtype=bool)
    for chosen in choices:
        if chosen is not None:
            used |= problem.usage_of(chosen).used
    return [problem.deployments[column] for column in np.flatnonzero(used)]


def _cheapest_deployments(candidates: Candidates) -> Sequence[Sequence[Deployment]]:
    """Return the distinct deployment sets of each query's cheapest plans in isolation."""
    cheapest = (
        plan for plans in candidates.values() for plan in nsmallest(_OFFERED_PLANS, plans, key=_isolated_usd_per_h)
    )
    return list(dict.fromkeys(tuple(use.deployment for use in plan.deployments) for plan in cheapest))


def _isolated_usd_per_h(plan: PlanCandidate) -> float:
    replica_costs = (max(1, math.ceil(use.fractional_replicas)) * use.demand.cost_usd_per_h for use in plan.deployments)
    return sum(replica_costs) + plan.transfer_cost_usd_per_h


def _widened(
    candidates: Candidates,
    queries: Sequence[Query],
    compose: Compose,
    offers: Sequence[Sequence[Deployment]],
    should_stop: Callable[[], bool],
) -> Candidates | None:
    """Return the candidates with further plans, each on the deployments of one offer, or None if there are none."""
    extra: dict[str, list[PlanCandidate]] = {query.name: [] for query in queries}
    for query in queries:
        if should_stop():
            break
        listed = {candidate.plan for candidate in candidates[query.name]}
        for offer in offers:
            composed = [candidate for candidate in compose(query, offer) if candidate.plan not in listed]
            listed.update(candidate.plan for candidate in composed)
            extra[query.name] += composed
    if not any(extra.values()):
        return None
    return {name: (*plans, *extra[name]) for name, plans in candidates.items()}


Promise = Callable[[Query, QueryPlan], PlanCandidate | None]
"""Estimator of a query's plan; returns None if the plan violates the query's SLOs."""

_MAX_ROUNDS = 4
_PLANS_PER_ROUND = 2
"""Maximum number of plans that enter for a query in a round."""
_MIN_SAVING = 0.02
"""Minimum saving of a new plan, as a share of the reduced cost of a query's best listed plan."""
_HIGHER_LEVEL_FACTOR = 30.0
"""Factor on the weight of higher priority levels."""


def generate_columns(
    candidates: Candidates,
    frontiers: Mapping[str, Frontier],
    promise: Promise,
    compile_candidates: Callable[[Candidates], Problem],
    *,
    should_stop: Callable[[], bool],
    seed: int,
) -> Candidates:
    """Return the candidates, extended by plans with a lower reduced cost at the dual prices of the matching.

    Args:
        candidates: by query name.
        frontiers: with their unlisted plans.
        promise: estimates a plan of a query.
        compile_candidates: builds the problem of some candidates.
        should_stop: whether to stop.
        seed: of samples.
    """
    pending = {name for name, frontier in frontiers.items() if frontier.unlisted is not None and candidates[name]}
    for _ in range(_MAX_ROUNDS):
        if not pending or should_stop():
            break
        prices = dual_prices(compile_candidates(candidates), seed)
        if prices is None:
            break
        extra: dict[str, list[PlanCandidate]] = {}
        for name in sorted(pending):
            unlisted = frontiers[name].unlisted
            assert unlisted is not None
            listed = {candidate.plan for candidate in candidates[name]}
            plans = unlisted.lowest_reduced_cost(prices, _PLANS_PER_ROUND, better_by=_MIN_SAVING)
            priced = [promise(frontiers[name].query, plan) for plan in plans if plan not in listed]
            extra[name] = [candidate for candidate in priced if candidate is not None]
        pending = {name for name, columns in extra.items() if columns}
        candidates = {name: (*plans, *extra.get(name, ())) for name, plans in candidates.items()}
    return candidates


def dual_prices(problem: Problem, seed: int) -> DualPrices | None:
    """Return the prices of resources in the relaxed matching, or None if no resource is scarce."""
    view = RelaxedView.of(
        replace(
            problem,
            weight=problem.priority_levels.level_weight(problem.priority_levels.count - 1, _HIGHER_LEVEL_FACTOR),
        ),
        viable_candidates(problem, ()),
    )
    if not view.queries:
        return None
    relaxed = view.scaled(np.ones(len(problem.deployments)))
    search, objective = (
        DualSolver(relaxed, np.random.default_rng(seed)),
        DualObjective(1.0, cost_tiebreak_weight(relaxed)),
    )
    by_resource = view.by_resource(search.polish(objective, search.maximize_weight(objective)))
    if not by_resource.any():
        return None
    rows, count = problem.rows, len(problem.rows.limit)
    unit_prices = np.zeros((len(problem.pools), len(RESOURCES)))
    # Rows that count replicas on nodes stand for their resource, as in `shadow_prices`.
    np.add.at(unit_prices, (rows.pool, rows.resource), by_resource[:count])
    capacities = _capacities(problem)
    unit_prices = np.divide(unit_prices, capacities, out=np.zeros_like(unit_prices), where=capacities > 0)
    links = by_resource[count:] / problem.link_capacity_bytes_per_s
    return DualPrices(
        pools={
            name: (float(a[0]), float(a[1]), float(a[2]), float(a[3]))
            for name, a in zip(problem.pools, unit_prices, strict=True)
            if a.any()
        },
        links={name: float(price) for name, price in zip(problem.links, links, strict=True) if price > 0},
        usd_per_h=objective.cost,
    )


def _capacities(problem: Problem) -> FloatArray:
    """Return (K, 4) capacities of whole pools."""
    return np.asarray(problem.nodes[:, None] * problem.node_capacity, dtype=np.float64)
