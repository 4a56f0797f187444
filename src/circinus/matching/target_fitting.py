"""Plans and utilization targets that fit the load, decided at the final sizes like admissions to running plans.

A plan search computes latencies at a few utilization targets, and deployments with different targets share nothing. A
plan that is too slow there may be fast enough at the utilization that its deployments will really have, and all queries
may meet their SLOs with fewer replicas.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.column_generation import add_columns
from circinus.matching.feasibility import FeasibleSolution, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.search import moved
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import objective_key
from circinus.specification import Deployment, PlanShare, QueryPlan

_TARGET_DIGITS = 3
"""Digits of fitted targets."""


def fit_plans(answer: Answer) -> Answer:
    """Give queries cheaper plans that meet the SLOs beside the other queries' plans, though not at their targets.

    It ends when no query gains by another plan.
    """
    run = answer.run
    if run.source is None or answer.is_large or not _is_possible(answer):
        return answer
    deadline_s, best, before = run.deadline_of(MATCHING.fitting_time_share), answer, None
    while best is not before:
        before = best
        shares = {query: best.problem.cost_share_usd_per_h(c, best.solution.usage) for query, c in _served(best)}
        for query in sorted(shares, key=lambda query: (-shares[query], query)):
            if run.clock() >= deadline_s:
                return best
            best = _with_fitted_plan(best, query, run.source)
    return best


def _with_fitted_plan(best: Answer, query: int, source: CandidateSource) -> Answer:
    """Return the answer with another plan of a query if one is better at the final sizes."""
    run, others = best.run, best.chosen.copy()
    others[query] = -1
    plans = source.sized_plans(run.queries[query], best.problem.running_load(others))
    problem = best.problem_with({best.problem.queries[query]: plans})
    start = moved(best, problem)
    keys, current = dict[int, tuple[float, ...]](), objective_key(problem, start)
    for candidate in problem.candidates_of(query):
        choice = start.copy()
        choice[query] = candidate
        keys[candidate] = objective_key(problem, choice)
    for candidate in sorted(keys, key=keys.__getitem__, reverse=True)[: MATCHING.max_fitted_plans]:
        if keys[candidate] <= current:
            break
        choice = start.copy()
        choice[query] = candidate
        outcome = check_feasibility(problem, choice, run.slos, run.reestimate)
        if isinstance(outcome, FeasibleSolution):
            reference = best.reference or best
            return replace(best, problem=problem, solution=outcome, solver_choice=choice, cuts=(), reference=reference)
    return best


def fit_targets(answer: Answer) -> Answer:
    """Raise utilization targets, and merge deployments that differ in them only, where that saves replicas.

    Cheaper plans may fit beside these replicas.
    """
    is_small = len(answer.run.queries) <= MATCHING.max_fitted_queries  # each trial computes the load of all
    if answer.run.source is None or not is_small or not _is_possible(answer):
        return answer
    fitted = _Fitting(answer, answer.run.source).answer()
    return answer if fitted is answer else fit_plans(fitted)


def _is_possible(answer: Answer) -> bool:
    return answer.run.settings.fits_targets and not answer.has_limited_changes


def _key(answer: Answer) -> tuple[float, ...]:
    return objective_key(answer.problem, answer.chosen, answer.solution.usage)


def _served(answer: Answer) -> Iterator[tuple[int, int]]:
    return answer.problem.served(answer.chosen)


class _Fitting:
    def __init__(self, answer: Answer, source: CandidateSource) -> None:
        self._answer, self._run, self._source = answer, answer.run, source
        self._deadline_s = self._run.deadline_of(MATCHING.fitting_time_share)
        problem = answer.problem
        self._running = [] if problem.incumbent is None else list(problem.served(problem.incumbent.chosen))
        self._plans = {problem.queries[query]: problem.candidates[c] for query, c in problem.served(answer.chosen)}

    def answer(self) -> Answer:
        """Return the answer with fitted targets."""
        best, plans = self._answer, self._plans
        for family in self._families(best):
            for target in self._targets(best, family):
                if self._run.clock() >= self._deadline_s:
                    break
                fitted = self._fitted(plans, family, target)
                trial = self._checked(fitted, lists_others=False) if fitted else None
                if trial is not None and _key(trial) > _key(best):
                    best, plans = trial, fitted
                    break
        return self._answer if plans is self._plans else self._checked(plans) or self._answer

    @staticmethod
    def _families(answer: Answer) -> list[frozenset[Deployment]]:
        """Return the used deployments, grouped by those that differ in their target only, dearest first."""
        problem, usage = answer.problem, answer.solution.usage
        families: dict[Deployment, set[Deployment]] = defaultdict(set)
        cost: dict[Deployment, float] = defaultdict(float)
        for column in np.flatnonzero(usage.used).tolist():
            deployment = problem.deployments[column]
            key = at_target(deployment, 0.0)
            families[key].add(deployment)
            cost[key] += float(problem.price_usd_per_h[column] * usage.replicas[column])
        return [frozenset(families[key]) for key in sorted(families, key=lambda key: (-cost[key], key))]

    @staticmethod
    def _targets(answer: Answer, family: frozenset[Deployment]) -> Iterator[float]:
        """Yield targets at which the load of a family takes fewer replicas, fewest first."""
        problem, usage, limit = answer.problem, answer.solution.usage, answer.run.infrastructure.utilization_limit
        columns = [problem.deployments.index(deployment) for deployment in family if deployment in problem.deployments]
        replicas = int(usage.replicas[columns].sum() - problem.spare_replicas[columns].sum())
        busy = sum(
            float(usage.fractional_load[c]) * problem.deployments[c].allocation.utilization_target for c in columns
        )
        fewest = max(math.ceil(busy / limit), 1)
        for count in range(fewest, replicas):
            yield fitted_target(busy / count, limit)

    def _fitted(
        self, plans: Mapping[str, PlanCandidate], family: frozenset[Deployment], target: float
    ) -> dict[str, PlanCandidate]:
        """Return the plans with another target of a family; none if one misses an SLO other than latency."""
        queries = {query.name: query for query in self._run.queries}
        fitted = dict(plans)
        for name, candidate in plans.items():
            plan = retargeted(candidate.plan, family, target)
            if plan != candidate.plan:
                estimated = self._source.sized_candidate(queries[name], plan)
                if estimated is None:
                    return {}
                fitted[name] = estimated
        return fitted

    def _checked(self, plans: Mapping[str, PlanCandidate], *, lists_others: bool = True) -> Answer | None:
        """Return the answer with other plans, or None if it is infeasible.

        Args:
            plans: by query name.
            lists_others: whether all candidates stay listed, which explanations need and trials do not.
        """
        before, run = self._answer, self._run
        columns = {query.name: (plans[query.name],) if query.name in plans else () for query in run.queries}
        if lists_others:
            problem = before.problem_with(columns)
        else:  # running plans count, as their changes have a price
            running = {before.problem.queries[q]: (before.problem.candidates[c],) for q, c in self._running}
            problem = before.problem_of(add_columns(columns, running))
        choice = problem.choice_of({name: candidate.plan for name, candidate in plans.items()})
        outcome = check_feasibility(problem, choice, run.slos, run.reestimate, widely=before.is_large)
        if not isinstance(outcome, FeasibleSolution):
            return None
        return replace(
            before,
            problem=problem,
            solution=outcome,
            solver_choice=choice,
            cuts=(),
            reference=before.reference or before,
        )


def fitted_target(utilization: float, limit: float) -> float:
    """Return the lowest rounded target for a utilization, up to a limit."""
    step = 10.0**-_TARGET_DIGITS
    return round(min(math.ceil(utilization / step) * step, limit), _TARGET_DIGITS)


def at_target(deployment: Deployment, target: float) -> Deployment:
    """Return a deployment with another utilization target."""
    return replace(deployment, allocation=replace(deployment.allocation, utilization_target=target))


def without_targets(plan: QueryPlan) -> QueryPlan:
    """Return a plan with targets of 0, to be compared."""
    return retargeted(plan, plan.deployments, 0.0)


def retargeted(plan: QueryPlan, family: Collection[Deployment], target: float) -> QueryPlan:
    """Return the plan with another target of the deployments of a family."""

    def changed(part: QueryPlan) -> QueryPlan:
        allocations = tuple(
            (operator, replace(allocation, utilization_target=target))
            if part.deployment_of(operator) in family
            else (operator, allocation)
            for operator, allocation in part.allocations
        )
        return replace(part, allocations=allocations)

    if not plan.is_split:
        return changed(plan)
    return QueryPlan.split(PlanShare(part.share, changed(part.plan)) for part in plan.parts)
