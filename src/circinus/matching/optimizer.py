"""Matching of all queries: a search, passes that improve its answer, and explanations of the last answer."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Final

import numpy as np

from circinus.errors import PlanningError
from circinus.matching.admission import AdmissionPlanner
from circinus.matching.backfill import backfill, refilled, sized_deployments
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.consolidation import consolidate
from circinus.matching.cuts import ChurnCut
from circinus.matching.explanation.assignment_explanations import explain_assignments
from circinus.matching.explanation.rejections import rejections
from circinus.matching.explanation.shadow_prices import RelaxationBounds, shadow_prices
from circinus.matching.guarantees import enforce_pins, enforce_tenant_shares, pins_error, with_others_rejected
from circinus.matching.incumbent import Incumbent
from circinus.matching.match_run import Answer, MatchRun, Observer
from circinus.matching.phases import phase
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import Matching, larger_weight, tenant_shares
from circinus.matching.plan_space_bounds import are_reached, plan_space_bounds
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.rebuilding import rebuild
from circinus.matching.search import search
from circinus.matching.second_look import second_look, without_plans
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS, MATCHING, MatchSettings
from circinus.matching.simulation_check import check_by_simulation, exclude_refuted, simulation_inputs
from circinus.matching.sizing import Reestimate
from circinus.matching.solvers.highs_subprocess import HighsSubprocess
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solver
from circinus.matching.splitting import divide_requests
from circinus.matching.startup_times import add_startup_times
from circinus.matching.target_fitting import fit_plans, fit_targets
from circinus.matching.tie_breaking import break_ties
from circinus.matching.tolerances import WEIGHT_TOLERANCE
from circinus.planning import Frontier, plan_queries
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.queueing.event_block import load_kernels
from circinus.specification import Infrastructure, Network, Specification

_log = logging.getLogger(__name__)

PASSES: Final[tuple[Callable[[Answer], Answer], ...]] = (
    enforce_pins,  # served, or an error that names a minimal conflict
    enforce_tenant_shares,  # guaranteed shares, as far as possible
    backfill,  # unserved queries that still fit next to whole replicas
    divide_requests,  # among several plans, where that is better
    rebuild,  # plans that are fast enough together only
    fit_plans,  # cheaper ones that are fast enough as sized
    fit_targets,  # fewer replicas where all SLOs still hold as sized
    break_ties,  # plans of equal cost, as a person would choose
)
"""Passes after the search, in order."""


def log_pass(name: str, answer: Answer) -> None:
    """Log an answer as that of a pass."""
    cost = answer.solution.usage.cost_usd_per_h
    _log.debug("%s: %d of %d queries at $%.4g/h", name, len(answer.served), len(answer.run.queries), cost)


def optimize(run: MatchRun) -> Answer:
    """Return the answer of all passes.

    1. `search` collects candidates: of frontiers, running plans, columns at dual prices, plans on deployments of an
       answer. A solver chooses among them on linear capacities, exactly (`MilpSolver`) or at prices
       (`LagrangianSolver`). `check_feasibility` packs replicas on nodes and estimates plans under the merged load; what
       turns out infeasible is cut off in the next round.
    2. `PASSES` then enforce guarantees and use what capacity is left.

    Args:
        run: the inputs.
    """
    answer = search(run)
    run.observer(search.__name__, answer)
    for improve in PASSES:
        answer = improve(answer)
        run.observer(improve.__name__, answer)
    return answer


def plan_all_queries(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    incumbent: Incumbent | None = None,
    explain_rejections: Collection[str] | None = None,
    frontiers: Mapping[str, Frontier] | None = None,
    estimates: PlanEstimates | None = None,
    observer: Observer = log_pass,
    time_left_s: float | None = None,
) -> tuple[Matching, Mapping[str, Frontier]]:
    """Plan every query alone, then match all queries.

    If a plan violates its SLOs in a simulation of all queries together, it is excluded and all queries are matched
    again; of many queries, only those whose plans were excluded. Rejected queries then get a second look. If others
    leave no room for a pinned one, pinned queries are planned alone, and a second look adds the others: 5 of 19 random
    pinned queries that are served as sized only need that.

    Args:
        specification: with an infrastructure.
        profiles: pipeline name -> profile.
        search: settings of the plan search.
        settings: settings of the matching.
        incumbent: see `match`.
        explain_rejections: queries to compute SLO relaxations for if they are rejected; default all. A relaxation takes
            some tens of admissions.
        frontiers: query name -> its plans; by default they are searched for.
        estimates: cached ones of the same queries and profiles.
        observer: see `MatchRun`.
        time_left_s: of the time limit, which all matchings share; each gets a small share of the limit at least. By
            default all is left.

    Raises:
        PlanningError: no infrastructure, a profile is missing or too uncertain, invalid numbers, or pinned queries that
            cannot be served.
    """
    infrastructure = specification.required_infrastructure
    limit_s = settings.limit_s(len(specification.queries))
    left_s = limit_s if time_left_s is None else time_left_s
    plans = estimates or PlanEstimates(specification, profiles, search=search)
    if frontiers is None:
        with phase("planned each query alone"):
            frontiers = plan_queries(specification, profiles, search, plans.compiled)
    plans.adopt(frontiers)
    is_revised = False

    def note_revised(name: str, answer: Answer) -> None:
        nonlocal is_revised
        observer(name, answer)
        is_revised = is_revised or (not answer.is_large and (answer.is_revised or answer.reference is not None))

    def match_offered(offered: Mapping[str, Frontier], *, requires_pins: bool = False) -> Answer:
        nonlocal left_s
        started_s, min_s = time.monotonic(), MATCHING.min_time_share * limit_s
        answer = _answer(
            offered,
            infrastructure,
            plans.reestimate,
            source=plans,
            settings=replace(settings, requires_pins=requires_pins, time_limit_s=max(left_s, min_s)),
            incumbent=incumbent,
            observer=note_revised,
        )
        left_s -= time.monotonic() - started_s
        return answer

    matching, offered = _match_confirmed(match_offered, specification, profiles, settings.seed, frontiers, plans)
    planner = AdmissionPlanner.of(specification, profiles, matching, search, plans.without_exclusions())
    shrink = partial(consolidate, frontiers=frontiers, settings=settings, incumbent=incumbent)
    if matching.rejections and matching.satisfied_weight < settings.required_weight * (1.0 - WEIGHT_TOLERANCE):
        if settings.time_limit_s is not None:
            load_kernels()
        again = partial(
            plan_all_queries,
            profiles=profiles,
            search=search,
            settings=settings,
            explain_rejections=(),
            observer=observer,
            time_left_s=left_s,
        )

        def look(planner: AdmissionPlanner) -> AdmissionPlanner:
            with phase("tried rejected queries again"):
                return second_look(planner, frontiers, incumbent, limit_s=settings.second_look_limit_s)

        planner = look(planner)
        pinned = tuple(query for query in specification.queries if query.pin is not None)
        names = {query.name for query in pinned}
        refused = [rejection for rejection in planner.matching.rejections if rejection.query in names]
        may_change = incumbent is None or incumbent.max_changes is None
        if refused and len(pinned) < len(frontiers) and may_change and not infrastructure.tenants:
            of_pinned = {query.name: frontiers[query.name] for query in pinned}
            pinned_only, _ = again(replace(specification, queries=pinned), incumbent=incumbent, frontiers=of_pinned)
            planner = look(planner.with_matching(with_others_rejected(pinned_only, specification)))
        elif refused:
            of_listed = {name: frontier for name, frontier in offered.items() if frontier.candidates}
            raise pins_error(refused, of_listed, partial(match_offered, requires_pins=True))
        # Which plans are chosen at utilization targets decides whom a second look can add.
        few = replace(settings, considers_all_plans=False, divides_requests=False, fits_targets=False)
        of_candidates = partial(again, settings=few, incumbent=incumbent, estimates=plans.without_exclusions())
        runs = incumbent is not None and bool(incumbent.plans) and not infrastructure.tenants
        nothing = without_plans(planner)
        ways: tuple[tuple[bool, Callable[[], Matching]], ...] = (
            (is_revised, lambda: of_candidates(specification, frontiers=frontiers)[0]),
            # `circinus admit` promises queries beside running plans as sized, and the next plan holds what it promises.
            (runs, lambda: look(nothing).matching),
            (runs and may_change, lambda: again(specification, frontiers=frontiers)[0]),
        )
        for is_possible, plan in ways:
            if is_possible and _may_serve_more(planner):
                with suppress(PlanningError):  # pinned queries may need all plans, or fit only as they run
                    planner = _heavier(planner, plan())
        smaller = shrink(planner)
        planner = look(smaller) if smaller is not planner and _may_serve_more(smaller) else smaller
        matching = replace(
            planner.matching,
            rejections=tuple(
                planner.with_relaxation(rejection)
                if explain_rejections is None or rejection.query in explain_rejections
                else rejection
                for rejection in planner.matching.rejections
            ),
        )
    else:
        matching = shrink(planner).matching
    deployments = add_startup_times(matching.deployments, profiles, infrastructure)
    return plans.with_latest_starts(replace(matching, deployments=deployments)), frontiers


def _match_confirmed(
    match_offered: Callable[[Mapping[str, Frontier]], Answer],
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    seed: int,
    frontiers: Mapping[str, Frontier],
    plans: PlanEstimates,
) -> tuple[Matching, Mapping[str, Frontier]]:
    """Match until a simulation refutes no plan; return the matching and the frontiers without the refuted plans."""
    network, offered = Network(specification.required_infrastructure), frontiers
    with phase("matched all queries"):
        answer = match_offered(offered)
        first = matching = _matching(answer)
    for trial in count(1):
        with phase("simulated their plans"):
            planned = simulation_inputs(specification, profiles, matching)
            result = check_by_simulation(matching, planned, network, seed=seed)
        if not result.violated:
            break
        is_last = trial >= MATCHING.max_simulated_plans
        for name, violating in result.violated.items():
            if violating.plan.is_split:
                plans.exclude_part(name, None if is_last else result.late_parts.get(name))
            else:
                plans.exclude(name, None if is_last else violating.plan)
        refuted = {
            name: exclude_refuted(offered[name], plan, result.violated, plans) for name, plan in result.violated.items()
        }
        offered = {name: refuted.get(name, frontier) for name, frontier in offered.items()}
        with phase("matched queries again"):
            if answer.is_large and not answer.has_limited_changes:
                answer = refilled(answer, offered, refuted, plans.without_excluded)
            else:
                answer = match_offered(offered)
            matching = _matching(answer)
    return (result.matching if trial == 1 else _with_bounds(result.matching, first)), offered


def _may_serve_more(planner: AdmissionPlanner) -> bool:
    """Return whether any rejected query has a configuration that is accurate enough."""
    rejected = {rejection.query for rejection in planner.matching.rejections}
    queries = planner.specification.queries
    return any(query.name in rejected and planner.plans.has_accurate(query) for query in queries)


def _heavier(planner: AdmissionPlanner, other: Matching) -> AdmissionPlanner:
    """Return the planner, or one of another matching that serves more weight."""
    queries, matching = planner.specification.queries, planner.matching
    levels = PriorityLevels.of(queries)

    def weights(candidate: Matching) -> tuple[float, ...]:
        served = candidate.served
        return levels.weights_of(np.array([0 if query.name in served else -1 for query in queries]))

    return planner if weights(other) <= weights(matching) else planner.with_matching(_with_bounds(other, matching))


def _with_bounds(matching: Matching, first: Matching) -> Matching:
    """Return a matching without some plans with the bounds of the first one, of all plans.

    A plan that a simulation refuted next to some plans may meet its SLOs next to others.
    """
    cost_bound_usd_per_h = first.cost_bound_usd_per_h if matching.satisfied_weight >= first.satisfied_weight else 0.0
    return replace(
        matching,
        weight_bound=max(first.weight_bound, matching.satisfied_weight),
        optimal=False,
        cost_at_targets_usd_per_h=None,
        cost_bound_usd_per_h=min(cost_bound_usd_per_h, matching.cost_usd_per_h),
    )


def match(
    frontiers: Mapping[str, Frontier],
    infrastructure: Infrastructure,
    reestimate: Reestimate,
    *,
    source: CandidateSource | None = None,
    solver: Solver | None = None,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    clock: Callable[[], float] = time.monotonic,
    incumbent: Incumbent | None = None,
    observer: Observer = log_pass,
) -> Matching:
    """Choose at most one plan for each query: satisfied weight first, total cost second.

    Pinned queries come first, then guaranteed shares of tenants, then queries by priority.

    Args:
        frontiers: query name -> its plans, in the order of the result.
        infrastructure: the pools and links.
        reestimate: estimates a chosen plan under the merged load.
        source: of further plans; without it, only the frontiers' plans are considered.
        solver: by default the exact one, or the Lagrangian one for more than `MATCHING.max_exact_queries` queries.
        settings: time limit, seed.
        clock: for the time limit.
        incumbent: running plans. The result is lexicographically never worse than keeping them: total weight first,
            then cost including churn.
        observer: see `MatchRun`.

    Raises:
        PlanningError: invalid amounts of plans (see `build_problem`), or pinned queries that cannot be served.
    """
    return _matching(
        _answer(
            frontiers,
            infrastructure,
            reestimate,
            source=source,
            settings=settings,
            incumbent=incumbent,
            observer=observer,
            solver=solver,
            clock=clock,
        )
    )


def _answer(
    frontiers: Mapping[str, Frontier],
    infrastructure: Infrastructure,
    reestimate: Reestimate,
    *,
    source: CandidateSource | None,
    settings: MatchSettings,
    incumbent: Incumbent | None,
    observer: Observer,
    solver: Solver | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Answer:
    """Return the answer of a matching; the arguments are those of `match`."""
    with ExitStack() as resources:
        run = MatchRun(
            frontiers=frontiers,
            infrastructure=infrastructure,
            reestimate=reestimate,
            source=source,
            solver=solver or _solver(len(frontiers), settings.seed, clock, resources),
            settings=settings,
            clock=clock,
            incumbent=incumbent,
            deadline_s=clock() + settings.limit_s(len(frontiers)),
            observer=observer,
        )
        return optimize(run)


def _solver(queries: int, seed: int, clock: Callable[[], float], resources: ExitStack) -> Solver:
    """Return the solver for a number of queries; `resources` closes its subprocess."""
    if queries <= MATCHING.max_exact_queries:
        return MilpSolver(seed=seed, clock=clock)
    subprocess_solver = HighsSubprocess()
    resources.callback(subprocess_solver.close)
    if os.name == "posix":
        with suppress(OSError):  # without a subprocess, solve in this process
            subprocess_solver.start()
            return LagrangianSolver(seed=seed, clock=clock, minimise=subprocess_solver.minimise)
    return LagrangianSolver(seed=seed, clock=clock)


def _matching(answer: Answer) -> Matching:
    problem, run, usage = answer.problem, answer.run, answer.solution.usage
    levels = problem.priority_levels
    relaxation = shadow_prices(problem, answer.chosen, run.settings.seed)
    satisfied = levels.weight_of(answer.chosen)
    cost_at_targets_usd_per_h: float | None = None
    if answer.reference is None:
        weight_bound, cost_bound_usd_per_h, optimal = _bounds(answer, relaxation)
    else:  # it has plans for which no bounds hold
        reference = answer.reference
        of_reference = shadow_prices(reference.problem, reference.chosen, run.settings.seed)
        weight_bound, reference_usd_per_h, _ = _bounds(reference, of_reference)
        is_comparable = satisfied >= levels.weight_of(reference.chosen)
        if is_comparable and usage.cost_usd_per_h < reference_usd_per_h:
            cost_at_targets_usd_per_h = min(reference_usd_per_h, reference.solution.usage.cost_usd_per_h)
        weight_bound, cost_bound_usd_per_h, optimal = max(weight_bound, satisfied), 0.0, False
    return Matching(
        assignments=explain_assignments(answer),
        rejections=rejections(answer),
        deployments=sized_deployments(problem, answer.solution),
        satisfied_weight=satisfied,
        total_weight=float(levels.weight.sum()),
        cost_usd_per_h=usage.cost_usd_per_h,
        weight_bound=weight_bound,
        optimal=optimal,
        cost_bound_usd_per_h=min(cost_bound_usd_per_h, usage.cost_usd_per_h),
        prices=relaxation.prices,
        covers_divided_requests=answer.covers_divided_requests is not False,
        cost_at_targets_usd_per_h=cost_at_targets_usd_per_h,
        tenants=tenant_shares(run.queries, answer.served, run.infrastructure.tenants),
        weight_with_more_changes=larger_weight(answer.weight_with_more_changes, satisfied),
        nodes=problem.chosen_nodes(usage.nodes),
    )


def _bounds(answer: Answer, relaxation: RelaxationBounds) -> tuple[float, float, bool]:
    """Return bounds of the weight and of the cost of all matchings, and whether the answer is proved to be the best.

    Where not all plans are covered by the answer's bounds, or its priorities have several levels, the bounds are those
    of `plan_space_bounds`.
    """
    levels, are_candidates = answer.problem.priority_levels, answer.covers_all_plans and answer.run.source is None
    satisfied, total_weight = levels.weight_of(answer.chosen), float(levels.weight.sum())
    # With limited changes, the answer's bounds hold for answers within the limit only; others hold for all answers.
    covers = answer.covers_all_plans and not any(isinstance(cut, ChurnCut) for cut in answer.cuts)
    if covers and answer.covers_divided_requests:  # the bounds of `plan_space_bounds` are of undivided requests
        weight_bound, cost_bound_usd_per_h = total_weight, 0.0
    elif are_candidates:
        weight_bound, cost_bound_usd_per_h = relaxation.weight_bound, relaxation.cost_bound_usd_per_h
    else:
        weight_bound, cost_bound_usd_per_h = plan_space_bounds(answer)
    if covers and (are_candidates or levels.count == 1 or answer.covers_divided_requests):
        weight_bound = min(weight_bound, levels.bound(answer.chosen, answer.weight_bounds))
        # The answer's bound includes churn: subtract the maximum churn to bound the cost alone.
        own_usd_per_h = answer.cost_bound_usd_per_h - answer.problem.max_change_usd_per_h
        cost_bound_usd_per_h = max(cost_bound_usd_per_h, own_usd_per_h)
    weight_bound = max(min(weight_bound, total_weight), satisfied)
    reaches = not (are_candidates or answer.covers_divided_requests) and are_reached(
        answer, weight_bound, cost_bound_usd_per_h
    )
    return weight_bound, cost_bound_usd_per_h, reaches or (covers and answer.optimal)
