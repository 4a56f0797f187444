"""Matching all queries: compile, choose, pack, size, explain."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count

from circinus.matching.backfill import backfill, sized_deployments
from circinus.matching.column_generation import Compose, Promise
from circinus.matching.cuts import ChurnCut
from circinus.matching.explanation.assignment_explanations import explain_assignments
from circinus.matching.explanation.rejections import rejection_reason, rejections
from circinus.matching.explanation.shadow_prices import shadow_prices
from circinus.matching.explanation.slo_relaxation import Replan
from circinus.matching.guarantees import enforce_pins, enforce_tenant_shares, served_queries
from circinus.matching.incumbent import Incumbent
from circinus.matching.match_run import DEFAULT_MATCH_SETTINGS, MAX_EXACT_QUERIES, MatchRun, MatchSettings
from circinus.matching.passes import MatchState, assignment_of
from circinus.matching.plan_estimates import PlanEstimates, add_startup_times
from circinus.matching.plan_set import Matching, tenant_shares
from circinus.matching.simulation_check import MOST_PLANS, check_by_simulation, exclude_refuted, simulation_inputs
from circinus.matching.sizing import Reestimate
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solver
from circinus.matching.solvers.solver_subprocess import SubprocessSolver
from circinus.planning import Frontier, plan_queries, plan_query
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Infrastructure, Network, Query, Specification

_LETTING_IN_SHARE = 0.5
"""Of the time limit, beside it, for letting in whoever still fits."""


def plan_all_queries(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    incumbent: Incumbent | None = None,
    explain_rejections: Collection[str] | None = None,
) -> tuple[Matching, Mapping[str, Frontier]]:
    """Plan every query alone, then match them all.

    Where a simulation of all queries together does not keep what formulas promise, all are matched again without the
    plans that it found too slow, until it keeps all.

    Args:
        specification: with an infrastructure.
        profiles: pipeline name -> what was measured of it.
        search: how each query's plans are searched.
        settings: how they are matched; the usable share of links is taken from `search`.
        incumbent: see `match`.
        explain_rejections: see `match`.

    Raises:
        PlanningError: no infrastructure, a profile is missing or too uncertain, or numbers without meaning.
    """
    frontiers = plan_queries(specification, profiles, search)
    infrastructure = specification.infrastructure
    assert infrastructure is not None  # `plan_queries` has refused a specification without one
    network = Network(infrastructure)

    unexplained = replace(search, near_misses=0, max_margin_plans=0)

    plans = PlanEstimates(specification, profiles, search.usable_link_share)

    def replan(query: Query) -> Frontier:
        pipeline = specification.pipelines[query.pipeline]
        frontier = plan_query(query, pipeline, profiles[query.pipeline], network, unexplained)
        return replace(frontier, candidates=plans.without_excluded(frontier.candidates))

    offered = frontiers
    for attempt in count(1):
        matching = match(
            offered,
            infrastructure,
            plans.reestimate,
            compose=plans.on_deployments,
            promise=plans.feasible_estimate,
            replan=replan,
            settings=MatchSettings(settings.time_limit_s, search.usable_link_share, settings.seed),
            incumbent=incumbent,
            monotone_waits=True,
            explain_rejections=explain_rejections,
        )
        found = check_by_simulation(
            matching, simulation_inputs(specification, profiles, matching), network, seed=settings.seed
        )
        if not found.violated:
            break
        for missed in found.violated.values():
            plans.exclude(missed.query, None if attempt >= MOST_PLANS else missed.plan)
        offered = {
            name: exclude_refuted(frontier, found.violated[name], found.violated, plans)
            if name in found.violated
            else frontier
            for name, frontier in offered.items()
        }
    deployments = add_startup_times(found.matching.deployments, profiles, infrastructure)
    return replace(found.matching, deployments=deployments), frontiers


def match(
    frontiers: Mapping[str, Frontier],
    infrastructure: Infrastructure,
    reestimate: Reestimate,
    *,
    compose: Compose | None = None,
    promise: Promise | None = None,
    replan: Replan | None = None,
    solver: Solver | None = None,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    clock: Callable[[], float] = time.monotonic,
    incumbent: Incumbent | None = None,
    monotone_waits: bool = False,
    explain_rejections: Collection[str] | None = None,
) -> Matching:
    """Choose at most one plan for each query: satisfied weight first, total cost second.

    Pinned queries come before all, then what tenants were promised, then queries of higher priority.

    Args:
        frontiers: query name -> its plans; their order is that of the answer.
        infrastructure: the pools and links.
        reestimate: how a chosen plan is estimated under the merged load.
        compose: how a query is planned on given deployments; without it, only the frontiers' plans are considered.
        promise: how a plan that a frontier does not list is estimated; without it, none enters at prices.
        replan: how a rejected query is planned under relaxed objectives; without it, only relaxations that are on its
            frontier are found.
        solver: by default the exact one, and that by prices for more than `MAX_EXACT_QUERIES` queries.
        settings: time, links, seed.
        clock: for the time limit.
        incumbent: what runs already; it stays where nothing is gained by a change. The answer is never worse than to keep
            what can be kept: of no less weight, and then of no more cost with what changes count.
        monotone_waits: whether `reestimate` is as of `Estimator`, so that how much waits grow is known without it.
        explain_rejections: queries of which is found, if they are rejected, what change of their objectives would let them in; None:
            of all. It takes longer than to match them.

    Raises:
        PlanningError: names or numbers without meaning (see `compile_problem`), or pinned queries that cannot run.
    """
    with ExitStack() as opened:
        answer = MatchRun(
            frontiers=frontiers,
            infrastructure=infrastructure,
            reestimate=reestimate,
            compose=compose,
            promise=promise,
            solver=solver or _solver(len(frontiers), settings.seed, clock, opened),
            settings=settings,
            clock=clock,
            running=incumbent,
            estimated=monotone_waits,
        )
        state = answer()
        state = enforce_pins(state, frontiers, answer, rejection_reason)
        state = enforce_tenant_shares(state, infrastructure.tenants, answer)
        if not state.optimal:
            until_s = clock() + _LETTING_IN_SHARE * settings.limit_s(len(frontiers))
            state = backfill(state, enough=lambda: clock() >= until_s)
    return _matching(state, frontiers, replan, explain_rejections, settings.seed)


def _solver(queries: int, seed: int, clock: Callable[[], float], opened: ExitStack) -> Solver:
    """The solver for so many queries; what it needs is closed with `opened`."""
    if queries <= MAX_EXACT_QUERIES:
        return MilpSolver(seed=seed, clock=clock)
    apart = SubprocessSolver()
    opened.callback(apart.close)
    if os.name == "posix":
        with suppress(OSError):  # without another process it is solved in this one
            apart.start()
            return LagrangianSolver(seed=seed, clock=clock, minimise=apart.minimise)
    return LagrangianSolver(seed=seed, clock=clock)


def _matching(
    state: MatchState,
    frontiers: Mapping[str, Frontier],
    replan: Replan | None,
    explain_rejections: Collection[str] | None,
    seed: int,
) -> Matching:
    assert state.usage is not None
    problem = state.problem
    ranks = problem.priority_levels
    total_weight, satisfied = float(ranks.user_weight.sum()), ranks.own_weight_of(assignment_of(state))
    known = shadow_prices(problem, assignment_of(state), seed)
    # The state's bound is of costs with what changes count: of costs alone, without the most that could count. Where
    # only so many changes were allowed, what it proved is of answers with so few; what prices say is of all.
    few = any(isinstance(cut, ChurnCut) for cut in state.cuts)
    least_usd_per_h = 0.0 if few else state.cost_bound_usd_per_h - problem.most_change_usd_per_h
    most_weight = total_weight if few else ranks.own_bound(assignment_of(state), state.weight_bound)
    return Matching(
        assignments=explain_assignments(state, frontiers),
        rejections=rejections(state, frontiers, replan, explain_rejections),
        deployments=sized_deployments(state),
        satisfied_weight=satisfied,
        total_weight=total_weight,
        cost_usd_per_h=state.usage.cost_usd_per_h,
        weight_bound=max(min(most_weight, known.weight_bound, total_weight), satisfied),
        optimal=state.optimal and not few,
        cost_bound_usd_per_h=min(max(least_usd_per_h, known.cost_bound_usd_per_h), state.usage.cost_usd_per_h),
        prices=known.prices,
        tenants=tenant_shares(state.queries, served_queries(state), state.infrastructure.tenants),
    )
