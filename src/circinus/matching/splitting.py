"""Division of queries' requests among several plans, where that serves more weight or costs less (decision 24).

A mixed-integer program divides requests at will: shares of plans are continuous, replicas whole. Its answer becomes
one candidate for each divided query, which is then checked like any other: its SLOs in isolation, packing on nodes,
the SLOs of all queries at the final sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import Candidates, CandidateSource
from circinus.matching.column_generation import add_columns
from circinus.matching.feasibility import FeasibleSolution, check_feasibility
from circinus.matching.match_run import Answer
from circinus.matching.problem import Problem
from circinus.matching.search import cheapest_deployments, have_equal_replicas, moved, used_deployments
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import objective_key
from circinus.matching.solvers.split_milp import Divisibility, SplitBounds, SplitSolution, solve_split
from circinus.matching.tolerances import COST_GAP_TOLERANCE
from circinus.specification import Deployment, PlanShare, QueryPlan, SloKind


def divide_requests(answer: Answer) -> Answer:
    """Divide requests of queries among several plans, as far as that is better and there is time."""
    run = answer.run
    if not any(query.split for query in run.queries):
        return answer
    has_limited_changes = run.incumbent is not None and run.incumbent.max_changes is not None
    if run.source is None or not run.settings.divides_requests or answer.is_large or has_limited_changes:
        return replace(answer, covers_divided_requests=False)
    return _Splitting(answer, run.source).answer()


class _Splitting:
    def __init__(self, answer: Answer, source: CandidateSource) -> None:
        self._answer, self._run, self._source = answer, answer.run, source
        self._deadline_s = self._run.clock() + MATCHING.splitting_time_share * self._run.limit_s
        self._fixed = [source.fixed_operators(query) for query in self._run.queries]
        self._excluded: set[tuple[str, QueryPlan]] = set()
        """(query, plan) of the plans that are not parts of a split plan, as one with it missed an SLO."""
        self._whole: set[str] = set()
        """Queries that are not divided, as their cost share exceeded an SLO."""
        tenants = {tenant.name for tenant in self._run.infrastructure.tenants if tenant.at_least > 0}
        self._guaranteed = {query.name for query in self._run.queries if query.tenant in tenants} & answer.served
        self._kept_out: set[str] = set()
        """Queries that are not served."""

    def answer(self) -> Answer:
        """Return the best answer found, with bounds of all plans if they are proved."""
        parts, are_all = self._parts()
        wide = self._answer.problem_with(parts)
        start = moved(self._answer, wide)
        first = self._solve(wide, start)
        better = self._tried(wide, first)
        if better is None and (self._excluded or self._whole):
            better = self._tried_again(wide, start)
        if better is None and wide.priority_levels.weights_of(start) < first.bounds.weights:
            self._kept_out = set(wide.queries) - self._answer.served
            better = self._tried_again(wide, start)
        is_divided = np.isin(np.arange(len(wide.queries)), list(first.shares))
        weights = wide.priority_levels.weights_of(np.where(is_divided, 0, -1))
        are_all = are_all and have_equal_replicas(add_columns(self._answer.candidates, parts))
        return self._bounded(better or self._answer, first.bounds, weights, covers_all_plans=are_all)

    def _solve(self, wide: Problem, start: IntArray) -> SplitSolution:
        limit_s = max(self._deadline_s - self._run.clock(), MATCHING.min_step_s)
        return solve_split(wide, self._divisibility(wide), start, limit_s=limit_s, seed=self._run.settings.seed)

    def _tried_again(self, wide: Problem, start: IntArray) -> Answer | None:
        """Return a better answer of a few divisions, each without the parts that were at fault in those before."""
        for _ in range(MATCHING.max_splitting_rounds):
            excluded = len(self._excluded) + len(self._whole)
            better = self._tried(wide, self._solve(wide, start))
            if better is not None or len(self._excluded) + len(self._whole) == excluded:
                return better
        return None

    def _parts(self) -> tuple[Candidates, bool]:
        """Return plans for parts of each query's requests, and whether they are all."""
        used = used_deployments(self._answer.problem, self._answer.chosen)
        offered = list(dict.fromkeys(chain(used, *cheapest_deployments(self._answer.candidates))))
        return self._source.parts(self._run.queries, offered)

    def _divisibility(self, problem: Problem) -> Divisibility:
        """Return which candidates may be parts."""
        slos = self._run.slos
        margin, may_be_part = np.zeros(len(problem.candidates)), np.ones(len(problem.candidates), dtype=bool)
        for index, candidate in enumerate(problem.candidates):
            accuracy = slos[problem.query_of[index]].accuracy
            if accuracy is not None:
                margin[index] = accuracy.margin(accuracy.worst(candidate.estimate.accuracy))
            is_excluded = (candidate.query, candidate.plan) in self._excluded
            may_be_part[index] = not (candidate.plan.is_split or is_excluded)
        queries = np.array([query.split and query.name not in self._whole for query in self._run.queries], dtype=bool)
        kept_out = np.array([query in self._kept_out for query in problem.queries], dtype=bool)
        fixed, groups = self._fixed_sets(problem)
        return Divisibility(queries, margin, may_be_part, kept_out, fixed, groups)

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

    def _tried(self, wide: Problem, solution: SplitSolution) -> Answer | None:
        """Return the answer with shares of plans if it is feasible and better; else exclude parts that are at fault."""
        run, columns = self._run, dict[str, Sequence[PlanCandidate]]()
        for query, parts in solution.shares.items():
            candidates = [(share, wide.candidates[candidate]) for candidate, share in parts]
            name, chosen = wide.queries[query], candidates[0][1]
            if len(candidates) > 1:
                plan = QueryPlan.split(PlanShare(share, candidate.plan) for share, candidate in candidates)
                mixture = self._source.sized_candidate(run.queries[query], plan)
                if mixture is None:
                    self._excluded.add((name, plan.parts[-1].plan))
                    continue
                chosen = mixture
            columns[name] = (chosen,)
        if len(columns) < len(solution.shares) or not self._guaranteed <= set(columns):
            return None
        problem = self._answer.problem_with(columns)
        choice = problem.choice_of({name: candidates[0].plan for name, candidates in columns.items()})
        if objective_key(problem, choice) <= objective_key(problem, moved(self._answer, problem)):
            return None
        outcome = check_feasibility(problem, choice, run.slos, run.reestimate)
        if isinstance(outcome, FeasibleSolution):
            return replace(
                self._answer, problem=problem, solution=outcome, solver_choice=choice, cuts=(), is_revised=True
            )
        divided = {name: column[0] for name, column in columns.items() if column[0].plan.is_split}
        at_fault = [violation for violation in outcome.violations if problem.queries[violation.query] in divided]
        for violation in at_fault:
            name = problem.queries[violation.query]
            if SloKind.COST in violation.slos:
                self._whole.add(name)
            else:  # without its slowest part
                slowest = max(violation.sized.parts, key=lambda part: part.estimate.latency_s.upper)
                self._excluded.add((name, slowest.plan))
        if outcome.violations and not at_fault:  # a divided query slows down one that is not: without their smallest
            self._excluded |= {(name, candidate.plan.parts[-1].plan) for name, candidate in divided.items()}
        return None

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
        problem, usage = answer.problem, answer.solution.usage
        weights = problem.priority_levels.weights_of(answer.chosen)
        cost_usd_per_h = bounds.cost_usd_per_h if weights >= of else 0.0
        is_best = weights >= bounds.weights and usage.cost_usd_per_h <= bounds.cost_usd_per_h * (1 + COST_GAP_TOLERANCE)
        return replace(
            answer,
            weight_bounds=bounds.weights,
            cost_bound_usd_per_h=cost_usd_per_h + problem.max_change_usd_per_h,
            optimal=is_best,
            covers_all_plans=True,
            covers_divided_requests=True,
        )
