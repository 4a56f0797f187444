"""Matching all queries: compile, choose, pack, size, explain."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import numpy as np

from circinus.estimation.estimator import USABLE_LINK_SHARE
from circinus.matching.alternatives import assignments
from circinus.matching.choice import Solver
from circinus.matching.compilation import compile_problem
from circinus.matching.endable import EndableSolver
from circinus.matching.exact import ExactSolver
from circinus.matching.passes import State, chosen_of, run_passes
from circinus.matching.plan_set import Matching, SizedDeployment
from circinus.matching.price_solver import PriceSolver
from circinus.matching.problem import IntArray, Problem
from circinus.matching.profiled_plans import ProfiledPlans
from circinus.matching.rejections import rejections
from circinus.matching.relaxation import Replan
from circinus.matching.resource_prices import relaxed
from circinus.matching.reuse import Candidates, Compose, solve_with_reuse
from circinus.matching.running import Running, no_worse
from circinus.matching.sizing import Reestimate
from circinus.planning import Frontier, plan_queries, plan_query
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.spec import Infrastructure, Network, Query, Specification


@dataclass(frozen=True)
class MatchSettings:
    """Choices of the matching that are not part of a query."""

    time_limit_s: float = 5.0
    """Time for choosing; then the best found is taken, with its bounds."""
    usable_link_share: float = USABLE_LINK_SHARE
    """Share of a link's bandwidth that plans may take together."""
    seed: int = 0
    """Of the solver."""


EXACT_UP_TO = 40
"""Queries that the exact solver chooses for by itself, mostly within a second."""

DEFAULT_MATCH_SETTINGS = MatchSettings()


def plan_all(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    running: Running | None = None,
) -> tuple[Matching, Mapping[str, Frontier]]:
    """Plan every query alone, then match them all.

    Args:
        specification: with an infrastructure.
        profiles: pipeline name -> what was measured of it.
        search: how each query's plans are searched.
        settings: how they are matched; the usable share of links is taken from `search`.
        running: see `match`.

    Raises:
        PlanningError: no infrastructure, a profile is missing or too uncertain, or numbers without meaning.
    """
    frontiers = plan_queries(specification, profiles, search)
    infrastructure = specification.infrastructure
    assert infrastructure is not None  # `plan_queries` has refused a specification without one
    network = Network(infrastructure)

    unexplained = replace(search, near_misses=0, max_margin_plans=0)

    def replan(query: Query) -> Frontier:
        pipeline = specification.pipelines[query.pipeline]
        return plan_query(query, pipeline, profiles[query.pipeline], network, unexplained)

    plans = ProfiledPlans(specification, profiles, search.usable_link_share)
    matching = match(
        frontiers,
        infrastructure,
        plans.reestimate,
        compose=plans.composed,
        replan=replan,
        settings=MatchSettings(settings.time_limit_s, search.usable_link_share, settings.seed),
        running=running,
    )
    return matching, frontiers


def match(
    frontiers: Mapping[str, Frontier],
    infrastructure: Infrastructure,
    reestimate: Reestimate,
    *,
    compose: Compose | None = None,
    replan: Replan | None = None,
    solver: Solver | None = None,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    clock: Callable[[], float] = time.monotonic,
    running: Running | None = None,
) -> Matching:
    """Choose at most one plan for each query: satisfied weight first, total cost second.

    Args:
        frontiers: query name -> its plans; their order is that of the answer.
        infrastructure: the pools and links.
        reestimate: how a chosen plan is estimated under the merged load.
        compose: how a query is planned on given deployments; without it, only the frontiers' plans are considered.
        replan: how a rejected query is planned under relaxed objectives; without it, only relaxations that are on its
            frontier are found.
        solver: by default the exact one, and that by prices for more than `EXACT_UP_TO` queries.
        settings: time, links, seed.
        clock: for the time limit.
        running: what runs already; it stays where nothing is gained by a change. The answer is never worse than to keep
            what can be kept: of no less weight, and then of no more cost with what changes count.

    Raises:
        PlanningError: names or numbers without meaning (see `compile_problem`).
    """
    queries = tuple(frontier.query for frontier in frontiers.values())
    deadline_s = clock() + settings.time_limit_s

    def compile_candidates(candidates: Candidates) -> Problem:
        problem = compile_problem(queries, candidates, infrastructure, usable_link_share=settings.usable_link_share)
        return problem if running is None else running.marked(problem)

    with ExitStack() as opened:
        chosen_by = solver or _solver(len(queries), settings.seed, clock, opened)

        def solve(problem: Problem, start: IntArray | None = None) -> State:
            state = State(
                problem=problem,
                queries=queries,
                infrastructure=infrastructure,
                usable_link_share=settings.usable_link_share,
                reestimate=reestimate,
                solver=chosen_by,
                deadline_s=clock() + max(deadline_s - clock(), 0.0) * (1.0 if compose is None else 0.5),
                attempted=start,
                many=len(queries) > EXACT_UP_TO,
            )
            if running is None:
                return run_passes(state, clock=clock)
            begun, held = running.begun(state)
            return no_worse(run_passes(begun, clock=clock), held)

        candidates: Candidates = {name: frontier.candidates for name, frontier in frontiers.items()}
        if running is not None:
            candidates = running.offered(candidates, queries, compose)
        if compose is None:
            state = solve(compile_candidates(candidates))
        else:
            state = solve_with_reuse(candidates, queries, compose, compile_candidates, solve)
    return _matching(state, frontiers, replan, settings.seed)


def _solver(queries: int, seed: int, clock: Callable[[], float], opened: ExitStack) -> Solver:
    """The solver for so many queries; what it needs is closed with `opened`."""
    if queries <= EXACT_UP_TO:
        return ExactSolver(seed=seed, clock=clock)
    apart = EndableSolver()
    opened.callback(apart.close)
    if os.name == "posix":
        with suppress(OSError):  # without another process it is solved in this one
            apart.warm()
            return PriceSolver(seed=seed, clock=clock, minimise=apart.minimise)
    return PriceSolver(seed=seed, clock=clock)


def _matching(state: State, frontiers: Mapping[str, Frontier], replan: Replan | None, seed: int) -> Matching:
    assert state.usage is not None
    problem = state.problem
    ranks = problem.ranks
    total_weight, satisfied = float(ranks.own_weight.sum()), ranks.own_weight_of(chosen_of(state))
    known = relaxed(problem, chosen_of(state), seed)
    # The state's bound is of costs with what changes count: of costs alone, without the most that could count.
    least_usd_per_h = state.cost_bound_usd_per_h - problem.most_change_usd_per_h
    return Matching(
        assignments=assignments(state, frontiers),
        rejections=rejections(state, frontiers, replan),
        deployments=_sized(state),
        satisfied_weight=satisfied,
        total_weight=total_weight,
        cost_usd_per_h=state.usage.cost_usd_per_h,
        weight_bound=max(
            min(ranks.own_bound(chosen_of(state), state.weight_bound), known.weight_bound, total_weight), satisfied
        ),
        optimal=state.optimal,
        cost_bound_usd_per_h=min(max(least_usd_per_h, known.cost_bound_usd_per_h), state.usage.cost_usd_per_h),
        prices=known.prices,
    )


def _sized(state: State) -> tuple[SizedDeployment, ...]:
    """The deployments in use, in the order of their names."""
    problem, usage, nodes = state.problem, state.usage, state.nodes
    assert usage is not None
    assert nodes is not None
    assert state.sizing is not None
    sized = []
    for index in np.flatnonzero(usage.used):
        deployment = problem.deployments[index]
        sized.append(
            SizedDeployment(
                deployment=deployment,
                demand=problem.demand_of(int(index)),
                nodes=nodes[int(index)],
                utilization=state.sizing.conditions.deployments[deployment].utilization,
            )
        )
    return tuple(sized)
