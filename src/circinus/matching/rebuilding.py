"""Matchings that are built up from nothing at the final sizes, for few queries.

Requests wait less on a deployment that several queries share than on one for each at its utilization target. So plans
may be fast enough together only. A matching of plans that are fast enough alone misses those, and so do exchanges of
one plan at a time. With this pass, 11 of 300 random instances of 1 to 3 queries are worse than the optimum, instead of
33 (`python -m benchmarks possible --only enumerated`). Planning takes 1.5 times the processor time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import CandidateSource
from circinus.matching.feasibility import FeasibleSolution, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.problem import Problem
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import objective_key
from circinus.specification import Query, QueryPlan


def rebuild(answer: Answer) -> Answer:
    """Return the best of an answer and of those to which queries were added one by one at the final sizes.

    Queries come in order of their weight, or the lightest first, all with the same utilization target, so that they
    share deployments; `fit_targets` then raises targets.
    """
    run, best = answer.run, answer
    has_latency = any(query.slos.latency is not None for query in run.queries)
    is_possible = run.settings.fits_targets and run.incumbent is None and has_latency
    if not is_possible or run.source is None or not 0 < len(run.queries) <= MATCHING.max_rebuilt_queries:
        return answer
    deadline_s = run.clock() + MATCHING.fitting_time_share * run.limit_s
    heaviest_first = sorted(run.queries, key=lambda query: (-query.priority, -query.weight, query.name))
    orders = [heaviest_first, heaviest_first[::-1]][: len(run.queries)]
    limit = run.infrastructure.utilization_limit
    targets = dict.fromkeys(min(target, limit) for target in MATCHING.rebuilt_targets)
    for order, target in product(orders, targets):
        if run.clock() >= deadline_s:
            break
        built = _Build(answer, run.source, target).answer(order, _key(best))
        if built is not None:
            best = replace(built, reference=answer.reference or answer)
    return best


def _key(answer: Answer) -> tuple[float, ...]:
    return objective_key(answer.problem, answer.chosen, answer.solution.usage)


class _Build:
    def __init__(self, answer: Answer, source: CandidateSource, target: float) -> None:
        self._answer, self._run, self._source, self._target = answer, answer.run, source, target
        self._plans: dict[str, PlanCandidate] = {}
        """Query -> its plan."""

    def answer(self, order: Sequence[Query], to_beat: tuple[float, ...]) -> Answer | None:
        """Return the answer to which queries were added in an order, or None if its key is not better than another."""
        problem = self._problem(())
        for number, query in enumerate(order):
            problem = self._add(query, problem)
            if self._best_key(problem, order[number + 1 :]) <= to_beat:
                return None
        problem = self._answer.problem_with({name: (plan,) for name, plan in self._plans.items()})
        outcome = check_feasibility(problem, self._choice(problem), self._run.slos, self._run.reestimate)
        if not isinstance(outcome, FeasibleSolution):
            return None
        return replace(self._answer, problem=problem, solution=outcome, solver_choice=outcome.chosen, cuts=())

    def _add(self, query: Query, before: Problem) -> Problem:
        """Give a query its cheapest plan with which all SLOs hold beside the other plans; return a problem with it."""
        load = before.running_load(self._choice(before))
        offered = dict.fromkeys(self._retargeted(candidate.plan) for candidate in self._source.sized_plans(query, load))
        plans = tuple(filter(None, (self._source.sized_candidate(query, plan) for plan in offered)))
        problem = self._problem(plans)
        choice, index = self._choice(problem), problem.queries.index(query.name)
        keys = dict[int, tuple[float, ...]]()
        for candidate in problem.candidates_of(index):
            choice[index] = candidate
            keys[candidate] = objective_key(problem, choice)
        for candidate in sorted(keys, key=keys.__getitem__, reverse=True)[: MATCHING.max_rebuilt_plans]:
            choice[index] = candidate
            if isinstance(check_feasibility(problem, choice, self._run.slos, self._run.reestimate), FeasibleSolution):
                self._plans[query.name] = problem.candidates[candidate]
                break
        return problem

    def _problem(self, offered: Sequence[PlanCandidate]) -> Problem:
        """Return the problem of the present plans, and of some for one more query."""
        plans: dict[str, Sequence[PlanCandidate]] = {query.name: () for query in self._run.queries}
        plans |= {name: (plan,) for name, plan in self._plans.items()}
        plans |= {candidate.query: offered for candidate in offered[:1]}
        return self._answer.problem_of(plans)

    def _choice(self, problem: Problem) -> IntArray:
        return problem.choice_of({name: candidate.plan for name, candidate in self._plans.items()})

    def _best_key(self, problem: Problem, others: Sequence[Query]) -> tuple[float, ...]:
        """Return the key if all other queries are served at no cost: replicas never become fewer."""
        chosen = self._choice(problem)
        weights_of, cost = problem.priority_levels.weights_of, objective_key(problem, chosen)[-1]
        chosen[[problem.queries.index(query.name) for query in others]] = 0
        return *weights_of(chosen), cost

    def _retargeted(self, plan: QueryPlan) -> QueryPlan:
        allocations = ((name, replace(own, utilization_target=self._target)) for name, own in plan.allocations)
        return replace(plan, allocations=tuple(allocations))
