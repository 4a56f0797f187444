"""Answer of a matching on levels: plans whose utilization targets give exactly the replicas that were chosen."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.column_generation import add_columns
from circinus.matching.feasibility import FeasibleSolution, check_feasibility
from circinus.matching.levels.compiled_plans import compiled_plans
from circinus.matching.levels.planner import LevelAnswer, LevelPlanner
from circinus.matching.match_run import Answer, MatchRun
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.problem import round_up_replicas
from circinus.matching.problem_builder import build_problem
from circinus.matching.settings import MATCHING
from circinus.matching.target_fitting import at_target
from circinus.specification import Deployment, QueryPlan, Specification

_TARGET_DIGITS = range(3, 12)
"""Digits of targets, as few as give the replicas."""


def answer_on_levels(run: MatchRun, specification: Specification, estimates: PlanEstimates) -> Answer | None:
    """Return the answer of a run on levels, or None if its plans do not fit together as `Problem` has them.

    Args:
        run: without running plans.
        specification: of its queries.
        estimates: of their plans.
    """
    queries, infrastructure = run.queries, run.infrastructure
    levels = PriorityLevels.of(queries)
    planner = LevelPlanner(
        queries,
        compiled_plans(replace(specification, queries=queries), estimates),
        infrastructure,
        levels,
        time_limit_s=max(run.deadline_s - run.clock(), MATCHING.min_step_s),
        seed=run.settings.seed,
        clock=run.clock,
    )
    answer = planner.answer()
    chosen = _candidates(answer, run, estimates)
    listed = {name: frontier.candidates for name, frontier in run.frontiers.items()}
    problem = build_problem(queries, add_columns(listed, {name: (c,) for name, c in chosen.items()}), infrastructure)
    choice = problem.choice_of({name: candidate.plan for name, candidate in chosen.items()})
    outcome = check_feasibility(problem, choice, run.slos, run.reestimate)
    if not isinstance(outcome, FeasibleSolution):
        return None
    return Answer(
        run=run,
        problem=problem,
        solution=outcome,
        solver_choice=choice,
        cuts=(),
        weight_bounds=(answer.weight_bound,),
        cost_bound_usd_per_h=answer.cost_bound_usd_per_h,
        optimal=False,
        is_on_levels=True,
        is_large=len(queries) > MATCHING.max_exact_queries,
    )


def _candidates(answer: LevelAnswer, run: MatchRun, estimates: PlanEstimates) -> dict[str, PlanCandidate]:
    """Return the estimates of the answer's plans in isolation, at targets that give its replicas."""
    targets = _targets(answer, run.infrastructure.utilization_targets)
    queries = {query.name: query for query in run.queries}
    candidates = dict[str, PlanCandidate]()
    for name, compiled in answer.plans.items():
        candidate = estimates.sized_candidate(queries[name], _at_targets(compiled.plan, targets))
        if candidate is not None:
            candidates[name] = candidate
    return candidates


def _targets(answer: LevelAnswer, usual: Sequence[float]) -> dict[Deployment, float]:
    """Return a target for each deployment, at which its load takes exactly its replicas: a usual one, if possible."""
    busy, spare = defaultdict[Deployment, float](float), dict[Deployment, int]()
    for plan in answer.plans.values():
        for use in plan.deployments:
            busy[use.deployment] += use.busy_replicas
            spare[use.deployment] = max(use.demand.spare_replicas, spare.get(use.deployment, 0))
    targets = dict[Deployment, float]()
    for deployment, load in busy.items():
        count, limit = answer.replicas[deployment] - spare[deployment], deployment.allocation.utilization_target
        fitted = (min(math.ceil(load / count * 10**digits) / 10**digits, limit) for digits in _TARGET_DIGITS)
        eligible = (target for target in (*sorted(usual, reverse=True), *fitted) if 0 < target <= limit)
        targets[deployment] = next((target for target in eligible if _replicas(load / target) == count), limit)
    return targets


def _replicas(fractional: float) -> int:
    none = np.zeros(1, dtype=np.int64)
    return int(round_up_replicas(np.array([fractional]), np.ones(1, dtype=bool), none)[0])


def _at_targets(plan: QueryPlan, targets: Mapping[Deployment, float]) -> QueryPlan:
    allocations = tuple(
        (operator, at_target(plan.deployment_of(operator), targets[plan.deployment_of(operator)]).allocation)
        for operator, _ in plan.allocations
    )
    return replace(plan, allocations=allocations)
