"""Matchings that are built up from nothing at the final sizes, for few queries.

Requests wait less on a deployment that several queries share than on one for each at its utilization target. So plans
may be fast enough together only. A matching of plans that are fast enough alone misses those, and so do exchanges of
one plan at a time. With this pass, 3 of 300 random instances of 1 to 3 queries are worse than the optimum, instead of
33 (`python -m benchmarks possible --only enumerated`), and 11 where all deployments were built at three common targets.
Planning takes about 1.5 times the processor time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.feasibility import FeasibleSolution, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.problem import Problem
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import objective_key
from circinus.matching.target_fitting import fitted_target, retargeted
from circinus.specification import Deployment, Query, QueryPlan, SloKind


def rebuild(answer: Answer) -> Answer:
    """Return the best of an answer and of those to which queries were added one by one at the final sizes.

    Each query comes first once, the others in order of their weight. All plans have the highest utilization target, so
    that they share deployments, and these get further replicas while a query is late. At last, targets are those that
    take as many replicas.
    """
    run, best = answer.run, answer
    has_latency = any(query.slos.latency is not None for query in run.queries)
    is_possible = run.settings.fits_targets and run.incumbent is None and has_latency
    if not is_possible or run.source is None or not 0 < len(run.queries) <= MATCHING.max_rebuilt_queries:
        return answer
    deadline_s = run.deadline_of(MATCHING.fitting_time_share)
    heaviest_first = sorted(run.queries, key=lambda query: (-query.priority, -query.weight, query.name))
    for first in heaviest_first:
        if run.clock() >= deadline_s:
            break
        order = [first, *(query for query in heaviest_first if query != first)]
        built = _Build(answer, run.source).answer(order, _key(best))
        if built is not None:
            best = replace(built, reference=answer.reference or answer)
    return best


def _key(answer: Answer) -> tuple[float, ...]:
    return objective_key(answer.problem, answer.chosen, answer.solution.usage)


class _Build:
    """Plans at the highest utilization target, and replicas beyond those that it takes."""

    def __init__(self, answer: Answer, source: CandidateSource) -> None:
        self._answer, self._run, self._source = answer, answer.run, source
        self._limit = answer.run.infrastructure.utilization_limit
        self._plans: dict[str, PlanCandidate] = {}
        """Query -> its plan."""
        self._replicas: dict[Deployment, int] = {}

    def answer(self, order: Sequence[Query], to_beat: tuple[float, ...]) -> Answer | None:
        """Return the answer to which queries were added in an order, or None if its key is not better than another."""
        for number, query in enumerate(order):
            problem = self._add(query)
            if self._best_key(problem, order[number + 1 :]) <= to_beat:
                return None
        for query in order if len(order) > 1 else ():
            self._exchange(query)
        plans = self._at_fitted_targets()
        problem = self._answer.problem_with({name: (plan,) for name, plan in plans.items()})
        choice = problem.choice_of({name: candidate.plan for name, candidate in plans.items()})
        outcome = check_feasibility(problem, choice, self._run.slos, self._run.reestimate)
        if not isinstance(outcome, FeasibleSolution):
            return None
        built = replace(self._answer, problem=problem, solution=outcome, solver_choice=outcome.chosen, cuts=())
        return built if _key(built) > to_beat else None

    def _add(self, query: Query) -> Problem:
        """Give a query its cheapest plan with which all SLOs hold beside the other plans; return a problem with it."""
        before = self._problem(())
        load = before.running_load(self._choice(before), self._min_replicas(before))
        # Those of the frontier may spare the others what shared replicas cost them.
        listed = (*self._source.sized_plans(query, load), *self._run.frontiers[query.name].candidates)
        offered = dict.fromkeys(self._retargeted(candidate.plan) for candidate in listed)
        plans = tuple(filter(None, (self._source.sized_candidate(query, plan) for plan in offered)))
        problem = self._problem(plans)
        choice, index = self._choice(problem), problem.queries.index(query.name)
        replicas, keys = self._min_replicas(problem), dict[int, tuple[float, ...]]()
        for candidate in problem.candidates_of(index):
            choice[index] = candidate
            keys[candidate] = objective_key(problem, choice, problem.usage_of(choice, replicas))
        best: tuple[tuple[float, ...], int, FeasibleSolution] | None = None
        for candidate in sorted(keys, key=keys.__getitem__, reverse=True)[: MATCHING.max_rebuilt_plans]:
            if best is not None and keys[candidate] <= best[0]:
                break
            choice[index] = candidate
            outcome = self._with_enough_replicas(problem, choice.copy(), replicas)
            if outcome is not None:
                key = objective_key(problem, outcome.chosen, outcome.usage)
                best = (key, candidate, outcome) if best is None or key > best[0] else best
        if best is not None:
            _, candidate, outcome = best
            self._plans[query.name] = problem.candidates[candidate]
            self._note_replicas(problem, outcome)
        return problem

    def _exchange(self, query: Query) -> None:
        """Give a query another plan, and all deployments only as many replicas as they take, if that is better."""
        before = self._plans, self._replicas
        problem = self._problem(())
        key = self._best_key(problem, ())
        self._plans = {name: plan for name, plan in self._plans.items() if name != query.name}
        self._replicas = {}
        outcome = self._with_enough_replicas(problem, self._choice(problem), self._min_replicas(problem))
        if outcome is not None:
            self._note_replicas(problem, outcome)
            if self._best_key(self._add(query), ()) > key:
                return
        self._plans, self._replicas = before

    def _note_replicas(self, problem: Problem, solution: FeasibleSolution) -> None:
        counts = zip(problem.deployments, solution.usage.replicas.tolist(), strict=True)
        self._replicas = {deployment: count for deployment, count in counts if count}

    def _with_enough_replicas(self, problem: Problem, choice: IntArray, replicas: IntArray) -> FeasibleSolution | None:
        """Return a choice with as many replicas as its SLOs take, or None if that fails."""
        run = self._run
        for _ in range(MATCHING.max_added_replicas + 1):
            outcome = check_feasibility(problem, choice, run.slos, run.reestimate, min_replicas=replicas)
            if isinstance(outcome, FeasibleSolution):
                return outcome
            waits_s = dict[int, float]()
            if not all(SloKind.LATENCY in violation.slos for violation in outcome.violations):
                return None
            for violation in outcome.violations:
                for stage in violation.sized.estimate.stages:
                    column = problem.deployments.index(violation.sized.plan.deployment_of(stage.operator))
                    waits_s[column] = max(waits_s.get(column, 0.0), stage.wait_s)
            replicas = problem.usage_of(choice, replicas).replicas
            columns = sorted(waits_s, key=waits_s.__getitem__, reverse=True)
            trials = (replicas + (np.arange(len(replicas)) == column) for column in columns)
            grown = next((trial for trial in trials if problem.fits(problem.usage_of(choice, trial))), None)
            if grown is None:
                return None
            replicas = grown
        return None

    def _at_fitted_targets(self) -> dict[str, PlanCandidate]:
        """Return the plans with targets that take as many replicas; those that this fails for are left out."""
        problem = self._problem(())
        usage = problem.usage_of(self._choice(problem))
        plans = {name: candidate.plan for name, candidate in self._plans.items()}
        for column in np.flatnonzero(usage.used).tolist():
            deployment = problem.deployments[column]
            count = self._replicas[deployment]
            if count > usage.replicas[column]:
                busy = float(usage.fractional_load[column]) * self._limit
                target = fitted_target(busy / (count - problem.spare_replicas[column]), self._limit)
                plans = {name: retargeted(plan, (deployment,), target) for name, plan in plans.items()}
        queries = {query.name: query for query in self._run.queries}
        fitted = {name: self._source.sized_candidate(queries[name], plan) for name, plan in plans.items()}
        return {name: candidate for name, candidate in fitted.items() if candidate is not None}

    def _problem(self, offered: Sequence[PlanCandidate]) -> Problem:
        """Return the problem of the present plans, and of some for one more query."""
        plans: dict[str, Sequence[PlanCandidate]] = {query.name: () for query in self._run.queries}
        plans |= {name: (plan,) for name, plan in self._plans.items()}
        plans |= {candidate.query: offered for candidate in offered[:1]}
        return self._answer.problem_of(plans)

    def _choice(self, problem: Problem) -> IntArray:
        return problem.choice_of({name: candidate.plan for name, candidate in self._plans.items()})

    def _min_replicas(self, problem: Problem) -> IntArray:
        return np.array([self._replicas.get(deployment, 0) for deployment in problem.deployments], dtype=np.int64)

    def _best_key(self, problem: Problem, others: Sequence[Query]) -> tuple[float, ...]:
        """Return the key if all other queries are served at no cost: replicas never become fewer."""
        chosen = self._choice(problem)
        usage = problem.usage_of(chosen, self._min_replicas(problem))
        weights_of, cost = problem.priority_levels.weights_of, objective_key(problem, chosen, usage)[-1]
        chosen[[problem.queries.index(query.name) for query in others]] = 0
        return *weights_of(chosen), cost

    def _retargeted(self, plan: QueryPlan) -> QueryPlan:
        allocations = ((name, replace(own, utilization_target=self._limit)) for name, own in plan.allocations)
        return replace(plan, allocations=tuple(allocations))
