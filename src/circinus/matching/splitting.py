"""Division of queries' requests among several plans, where that serves more weight or costs less (decision 24).

A mixed-integer program divides requests at will: shares of plans are continuous, replicas whole. Its answer becomes
one candidate for each divided query, which is then checked like any other: its SLOs in isolation, packing on nodes,
the SLOs of all queries at the final sizes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import Candidates, CandidateSource
from circinus.matching.column_generation import add_columns
from circinus.matching.feasibility import FeasibleSolution, Infeasibility, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.problem import Problem
from circinus.matching.search import cheapest_deployments, have_equal_replicas, moved, used_deployments
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import objective_key
from circinus.matching.solvers.split_milp import Divisibility, Shares
from circinus.matching.solvers.split_solver import SplitBounds, SplitSolution, solve_split
from circinus.matching.tolerances import COST_GAP_TOLERANCE
from circinus.specification import Deployment, PlanShare, QueryPlan, SloKind


def divide_requests(answer: Answer) -> Answer:
    """Divide requests of queries among several plans, as far as that is better and there is time."""
    run = answer.run
    if not any(query.split for query in run.queries):
        return answer
    has_spot_nodes = any(pool.spot is not None for pool in run.infrastructure.pools)  # spare replicas are not divided
    is_possible = run.settings.divides_requests and not (
        answer.is_large or answer.has_limited_changes or has_spot_nodes
    )
    if run.source is None or not is_possible:
        return replace(answer, covers_divided_requests=False)
    return _Splitting(answer, run.source).answer()


class _Splitting:
    def __init__(self, answer: Answer, source: CandidateSource) -> None:
        self._answer, self._run, self._source = answer, answer.run, source
        self._deadline_s = self._run.deadline_of(MATCHING.splitting_time_share)
        self._parts_deadline_s = self._run.deadline_of(MATCHING.splitting_time_share * MATCHING.enumeration_share)
        self._fixed = [source.fixed_operators(query) for query in self._run.queries]
        self._best = answer
        self._shares: Shares = {}
        """Shares of the best answer, in the problem with all parts."""
        self._excluded: set[tuple[str, QueryPlan]] = set()
        """(query, plan) of the plans that are not parts of a split plan any more, as a query missed an SLO."""
        self._unusable: set[tuple[str, QueryPlan]] = set()
        """(query, plan) of the plans that do not take all requests any more."""
        self._priced: set[str] = set()
        """Queries whose undivided plans keep their cost SLO by what others leave to them."""
        self._faults: dict[str, int] = defaultdict(int)
        """Query -> number of its divisions that missed an SLO."""
        self._whole: set[str] = set()
        """Queries that are not divided any more."""
        self._kept_out: set[str] = set()
        """Queries that are not served."""
        tenants = {tenant.name for tenant in self._run.infrastructure.tenants if tenant.at_least > 0}
        self._guaranteed = {query.name for query in self._run.queries if query.tenant in tenants} & answer.served

    def answer(self) -> Answer:
        """Return the best answer found, with bounds of all plans if they are proved."""
        parts, are_all = self._parts()
        are_all = are_all and have_equal_replicas(add_columns(self._answer.candidates, parts))
        wide = self._answer.problem_with(parts)
        self._shares = self._undivided(wide)
        first = self._solve(wide, proves=are_all)
        self._improve(wide, first, proves=are_all)
        if self._best is self._answer and _key(self._answer)[:-1] < first.key[:-1]:
            self._kept_out = set(wide.queries) - self._answer.served
            self._improve(wide, None, proves=are_all)
        return self._bounded(self._best, first.bounds, first.key[:-1], covers_all_plans=are_all)

    def _improve(self, wide: Problem, solution: SplitSolution | None, *, proves: bool) -> None:
        """Improve the best answer by divisions, each without the plans that were at fault in those before."""
        for _ in range(MATCHING.max_splitting_rounds):
            if solution is None:
                if self._run.clock() >= self._deadline_s:
                    break
                solution = self._solve(wide, proves=proves)
            key, best = solution.key, _key(self._best)
            if key[:-1] <= best[:-1] and key[-1] <= best[-1] * (1 - COST_GAP_TOLERANCE):
                break
            before = self._state
            self._try(wide, solution)
            if self._state == before:
                break
            solution = None

    @property
    def _state(self) -> tuple[int, ...]:
        plans, queries = (self._excluded, self._unusable), (self._priced, self._whole, self._kept_out)
        return (*map(len, plans), *map(len, queries))

    def _undivided(self, wide: Problem) -> dict[int, Sequence[tuple[int, float]]]:
        """Return the plans before any division as shares."""
        return {query: [(candidate, 1.0)] for query, candidate in wide.served(moved(self._answer, wide))}

    def _solve(self, wide: Problem, *, proves: bool) -> SplitSolution:
        return solve_split(
            wide,
            self._divisibility(wide),
            self._shares,
            limit_s=max(self._deadline_s - self._run.clock(), MATCHING.min_step_s),
            seed=self._run.settings.seed,
            clock=self._run.clock,
            proves=proves,
        )

    def _parts(self) -> tuple[Candidates, bool]:
        """Return plans for parts of each query's requests, and whether they are all."""
        used = used_deployments(self._answer.problem, self._answer.chosen)
        offered = list(dict.fromkeys(chain(used, *cheapest_deployments(self._answer.candidates))))
        return self._source.parts(self._run.queries, offered, lambda: self._run.clock() >= self._parts_deadline_s)

    def _divisibility(self, problem: Problem) -> Divisibility:
        """Return which candidates may be parts."""
        slos, best = self._run.slos, {(q, c): share for q, parts in self._shares.items() for c, share in parts}
        margin, may_be_part = np.zeros(len(problem.candidates)), np.ones(len(problem.candidates), dtype=bool)
        usable = may_be_part.copy()
        for index, candidate in enumerate(problem.candidates):
            query, name = int(problem.query_of[index]), candidate.query
            accuracy = slos[query].accuracy
            if accuracy is not None:
                margin[index] = accuracy.margin(accuracy.worst(candidate.estimate.accuracy))
            if best.get((query, index), 1.0) < 1.0:
                continue
            is_excluded = candidate.plan.is_split or (name, candidate.plan) in self._excluded or name in self._whole
            may_be_part[index] = not is_excluded and self._source.may_be_part(name, candidate.plan)
            if (query, index) not in best:
                usable[index] = name not in self._kept_out and (name, candidate.plan) not in self._unusable
        queries = np.array([query.split for query in self._run.queries], dtype=bool)
        fixed, groups = self._fixed_sets(problem)
        names = np.array(problem.queries)[problem.query_of] if self._priced else np.zeros(len(usable))
        priced = np.flatnonzero(np.isin(names, list(self._priced))).astype(np.int64)
        return Divisibility(queries, margin, may_be_part, usable, fixed, groups, priced)

    def _fixed_sets(self, problem: Problem) -> tuple[tuple[IntArray, ...], IntArray]:
        """Return the sets of `Divisibility.fixed` and their groups."""
        sets: dict[tuple[int, str, Deployment], list[int]] = {}
        for index, candidate in enumerate(problem.candidates):
            query = int(problem.query_of[index])
            for operator in self._fixed[query]:
                sets.setdefault((query, operator, candidate.plan.deployment_of(operator)), []).append(index)
        numbers: dict[tuple[int, str], int] = {}
        groups = [numbers.setdefault((query, operator), len(numbers)) for query, operator, _ in sets]
        return tuple(np.array(members, dtype=np.int64) for members in sets.values()), np.array(groups, dtype=np.int64)

    def _try(self, wide: Problem, solution: SplitSolution) -> None:
        """Take over a division if it is feasible and better; else exclude plans that are at fault, and mend it.

        To mend it, queries that are at fault get their plans from before.
        """
        run, columns, failed = self._run, dict[str, Sequence[PlanCandidate]](), list[int]()
        for query, parts in solution.shares.items():
            candidate = wide.candidates[parts[0][0]]
            if len(parts) > 1:
                plan = QueryPlan.split(PlanShare(share, wide.candidates[part].plan) for part, share in parts)
                mixture = self._source.sized_candidate(run.queries[query], plan)
                if mixture is None:
                    self._exclude(wide.queries[query], [plan.parts[-1].plan])
                    failed.append(query)
                candidate = mixture or candidate
            columns[wide.queries[query]] = (candidate,)
        problem = self._answer.problem_with(columns)
        before, is_first = moved(self._answer, problem), not failed
        choice = problem.choice_of({name: candidates[0].plan for name, candidates in columns.items()})
        choice[failed] = before[failed]
        while objective_key(problem, choice) > _key(self._best):
            outcome = check_feasibility(problem, choice, run.slos, run.reestimate)
            if isinstance(outcome, FeasibleSolution):
                if self._guaranteed <= {problem.queries[query] for query, _ in problem.served(choice)}:
                    self._best = replace(
                        self._answer, problem=problem, solution=outcome, solver_choice=choice, cuts=(), is_revised=True
                    )
                    shares = self._undivided(wide)
                    divided = (choice >= 0) & (choice != before)
                    self._shares = {
                        query: solution.shares[query] if divided[query] else shares[query]
                        for query, _ in problem.served(choice)
                    }
                return
            reverted = _reverted(problem, choice, before, outcome)
            if is_first:
                self._note(problem, choice, outcome, reverted)
            if not len(reverted):
                return
            choice[reverted], is_first = before[reverted], False

    def _note(self, problem: Problem, choice: IntArray, outcome: Infeasibility, reverted: IntArray) -> None:
        """Exclude plans that are at fault in a choice (Q,), of which some queries are reverted."""
        at_fault = {violation.query: violation for violation in outcome.violations}
        undivided = {query for query, violation in at_fault.items() if not violation.sized.parts}
        unpriced = {problem.queries[q] for q in undivided if SloKind.COST in at_fault[q].slos} - self._priced
        if unpriced:
            self._priced |= unpriced
            return
        self._unusable |= {(problem.queries[query], at_fault[query].sized.plan) for query in undivided}
        for query in ({*at_fault, *reverted.tolist()} - undivided) & set(np.flatnonzero(choice >= 0).tolist()):
            name, violation = problem.queries[query], at_fault.get(query)
            parts = () if violation is None else violation.sized.parts
            late = [part.plan for part in parts if part.estimate.violations(self._run.slos[query], sized=True)]
            if violation is not None and SloKind.COST in violation.slos:
                self._whole.add(name)
            else:
                self._exclude(name, late or [problem.candidates[choice[query]].plan.parts[-1].plan])

    def _exclude(self, query: str, plans: Sequence[QueryPlan]) -> None:
        """Exclude plans of a query; if its divisions are at fault once too often, do not divide it any more."""
        self._excluded |= {(query, plan) for plan in plans}
        self._faults[query] += 1
        if self._faults[query] >= MATCHING.max_division_faults:
            (self._whole if query in self._answer.served else self._kept_out).add(query)

    def _bounded(self, answer: Answer, bounds: SplitBounds, of: tuple[float, ...], *, covers_all_plans: bool) -> Answer:
        """Return the answer with the bounds of all divisions, or without proof if some plans were left out.

        Args:
            answer: to return.
            bounds: of all divisions.
            of: weights by level at which the bound of the cost holds.
            covers_all_plans: whether none were left out.
        """
        if not covers_all_plans:
            reference = None if answer is self._answer else self._answer
            return replace(answer, reference=reference, covers_divided_requests=False)
        problem = answer.problem
        weights, usd_per_h = problem.priority_levels.weights_of(answer.chosen), -_key(answer)[-1]
        return replace(
            answer,
            weight_bounds=bounds.weights,
            cost_bound_usd_per_h=bounds.cost_usd_per_h if weights >= of else 0.0,
            optimal=weights >= bounds.weights and usd_per_h <= bounds.cost_usd_per_h * (1 + COST_GAP_TOLERANCE),
            covers_all_plans=True,
            covers_divided_requests=True,
        )


def _key(answer: Answer) -> tuple[float, ...]:
    return objective_key(answer.problem, answer.chosen, answer.solution.usage)


def _reverted(problem: Problem, choice: IntArray, before: IntArray, outcome: Infeasibility) -> IntArray:
    """Return the queries at fault whose plans of a choice (Q,) differ from before.

    If there are none, others changed what the queries at fault pay or how long they wait: those on their deployments.
    """

    def used(query: int) -> set[int]:
        candidates = [int(chosen[query]) for chosen in (choice, before) if chosen[query] >= 0]
        return {int(column) for candidate in candidates for column in problem.fractional_load.row(candidate)[0]}

    changed, at_fault = np.flatnonzero(choice != before), [violation.query for violation in outcome.violations]
    own = np.intersect1d(changed, at_fault)
    if len(own):
        return own.astype(np.int64)
    deployments = {column for query in at_fault for column in used(query)}
    return np.array([query for query in changed.tolist() if used(query) & deployments], dtype=np.int64)
