"""Backfill of a matching: adds unserved queries that still fit next to the sized deployments."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.cuts import ChurnCut
from circinus.matching.feasibility import FeasibleSolution, Infeasibility, check_feasibility, repair
from circinus.matching.match_run import Answer
from circinus.matching.plan_set import SizedDeployment
from circinus.matching.problem import Problem
from circinus.matching.settings import MATCHING
from circinus.planning import Frontier
from circinus.planning.frontier import query_kind

Selection = Callable[[Iterable[PlanCandidate]], Sequence[PlanCandidate]]
"""Returns some of the given plans."""


def sized_deployments(problem: Problem, solution: FeasibleSolution) -> tuple[SizedDeployment, ...]:
    """Return the deployments in use, sorted by name."""
    paid_usd_per_h = problem.paid_usd_per_h(solution.usage.replicas, solution.usage.nodes)
    return tuple(
        SizedDeployment(
            deployment=problem.deployments[index],
            demand=problem.demand_of(int(index)),
            nodes=solution.nodes[int(index)],
            utilization=solution.sizing.conditions.deployments[problem.deployments[index]].utilization,
            paid_usd_per_h=problem.paid_whole(int(index), paid_usd_per_h),
        )
        for index in np.flatnonzero(solution.usage.used)
    )


def running_state(answer: Answer) -> AdmissionControl:
    """Prepare the plans of an answer for the admission of one more query."""
    problem, run = answer.problem, answer.run
    served = list(problem.served(answer.chosen))
    return AdmissionControl(
        [run.queries[query] for query, _ in served],
        {problem.queries[query]: problem.candidates[candidate] for query, candidate in served},
        sized_deployments(problem, answer.solution),
        run.infrastructure,
        run.reestimate,
    )


def backfill(answer: Answer) -> Answer:
    """Add unserved queries that fit next to the sized deployments, heaviest first.

    If time or whole replicas prevented a good choice, queries were dropped from it until the rest was feasible, which
    may leave capacity.
    """
    if answer.optimal or answer.problem.priority_levels.is_sufficient(answer.chosen):
        return answer
    problem, run = answer.problem, answer.run
    deadline_s = run.deadline_of(MATCHING.backfill_time_share)
    running = running_state(answer)
    unserved = [query for query in np.flatnonzero(answer.chosen < 0).tolist() if len(problem.candidates_of(query))]
    failed, importance = set[object](), problem.priority_levels.importance
    for query in sorted(unserved, key=lambda query: (-importance[query], query)):
        if run.clock() >= deadline_s:
            break
        candidates = problem.candidates_of(query)
        plans, slos = tuple(problem.candidates[candidate].plan for candidate in candidates), run.slos[query]
        kind = query_kind(run.queries[query]), plans
        if kind in failed:
            continue
        prepared = running.prepare(run.queries[query], [problem.candidates[candidate] for candidate in candidates])
        for position in prepared.cheapest_first[: MATCHING.max_backfill_plans]:
            if not isinstance(running.try_candidate(prepared, position, slos), AdmissionFit):
                continue
            chosen = answer.chosen.copy()
            chosen[query] = candidates.start + position
            extended = with_choice(answer, chosen)
            if extended is not None:
                answer, failed = extended, set()
                running = running_state(answer)
                break
        else:
            failed.add(kind)
    return answer


def with_choice(answer: Answer, chosen: IntArray) -> Answer | None:
    """Return the answer with another choice (Q,) of its candidates, without proofs, or None if it is infeasible."""
    problem, run = answer.problem, answer.run
    outcome = check_feasibility(problem, chosen, run.slos, run.reestimate, widely=answer.is_large)
    if isinstance(outcome, Infeasibility):
        return None
    change_limits = (cut for cut in answer.cuts if isinstance(cut, ChurnCut))
    if not all(cut.is_satisfied(problem, chosen, outcome.usage) for cut in change_limits):
        return None
    return answer.with_solution(outcome)  # the cost bound was proved for another weight


def refilled(
    answer: Answer, offered: Mapping[str, Frontier], refuted: Collection[str], without_excluded: Selection
) -> Answer:
    """Return the answer without plans that were excluded, after a backfill.

    Args:
        answer: before.
        offered: frontiers without the excluded plans.
        refuted: queries whose plans were excluded.
        without_excluded: selects plans that are not excluded.
    """
    run = replace(answer.run, frontiers=offered, deadline_s=math.inf)
    remaining = {name: without_excluded(listed) for name, listed in answer.candidates.items()}
    answer = replace(answer, run=run, reference=None, cuts=(), optimal=False, cost_bound_usd_per_h=0.0)
    served = {answer.problem.queries[query]: candidate for query, candidate in answer.problem.served(answer.chosen)}
    plans = {name: answer.problem.candidates[own].plan for name, own in served.items() if name not in refuted}
    problem = answer.problem_of(remaining)
    solution = repair(problem, problem.choice_of(plans), run.slos, run.reestimate, widely=answer.is_large)
    return backfill(replace(answer, problem=problem, solution=solution, solver_choice=solution.chosen))
