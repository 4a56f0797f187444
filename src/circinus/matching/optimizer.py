"""Matching of all queries: a search, passes that improve its answer, and explanations of the last answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Final

from circinus.matching.backfill import backfill, sized_deployments
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.cuts import ChurnCut
from circinus.matching.explanation.assignment_explanations import explain_assignments
from circinus.matching.explanation.rejections import rejections
from circinus.matching.explanation.shadow_prices import RelaxationBounds, shadow_prices
from circinus.matching.guarantees import enforce_pins, enforce_tenant_shares
from circinus.matching.incumbent import Incumbent
from circinus.matching.match_run import Answer, MatchRun, Observer
from circinus.matching.plan_set import Matching, larger_weight, tenant_shares
from circinus.matching.plan_space_bounds import are_reached, plan_space_bounds
from circinus.matching.rebuilding import rebuild
from circinus.matching.search import search
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS, MATCHING, MatchSettings
from circinus.matching.sizing import Reestimate
from circinus.matching.solvers.highs_subprocess import HighsSubprocess
from circinus.matching.solvers.lagrangian_solver import LagrangianSolver
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solver
from circinus.matching.splitting import divide_requests
from circinus.matching.target_fitting import fit_plans, fit_targets
from circinus.matching.tie_breaking import break_ties
from circinus.matching.tolerances import COST_GAP_TOLERANCE
from circinus.planning import Frontier
from circinus.specification import Infrastructure

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
    return matching_of(
        answer_of(
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


def answer_of(
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
    on_levels: Callable[[MatchRun], Answer | None] | None = None,
) -> Answer:
    """Return the answer of a matching; the arguments are those of `match`.

    With `on_levels`, it is that answer, its requests divided, unless there is none.
    """
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
        answer = None if on_levels is None else on_levels(run)
        if answer is None:
            return optimize(run)
        observer("on levels", answer)
        return answer


def _solver(queries: int, seed: int, clock: Callable[[], float], resources: ExitStack) -> Solver:
    """Return the solver for a number of queries; `resources` closes its subprocess."""
    if queries <= MATCHING.max_exact_queries:
        return MilpSolver(seed=seed, clock=clock)
    subprocess_solver = HighsSubprocess()
    resources.callback(subprocess_solver.close)
    with suppress(OSError):  # without a subprocess, solve in this process
        subprocess_solver.start()
        return LagrangianSolver(seed=seed, clock=clock, minimise=subprocess_solver.minimise)
    return LagrangianSolver(seed=seed, clock=clock)


def matching_of(answer: Answer) -> Matching:
    """Return an answer's plans with their bounds and prices, explained."""
    problem, run, usage = answer.problem, answer.run, answer.solution.usage
    levels = problem.priority_levels
    relaxation = shadow_prices(problem, answer.chosen, run.settings.seed)
    satisfied = levels.weight_of(answer.chosen)
    cost_at_targets_usd_per_h: float | None = None
    if answer.is_on_levels:
        weight_bound = max(min(answer.weight_bounds[0], float(levels.weight.sum())), satisfied)
        is_heaviest = satisfied >= weight_bound - levels.integer_weights[0].unit / 2
        # A cheaper answer may be lighter only if this one is not the heaviest.
        cost_bound_usd_per_h = answer.cost_bound_usd_per_h if is_heaviest else 0.0
        optimal = is_heaviest and usage.cost_usd_per_h <= cost_bound_usd_per_h * (1 + COST_GAP_TOLERANCE)
    elif answer.reference is None:
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
        covers_divided_requests=answer.is_on_levels or answer.covers_divided_requests is not False,
        covers_all_utilizations=answer.is_on_levels,
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
