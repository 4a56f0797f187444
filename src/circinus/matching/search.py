"""Search for an answer: candidates from all sources, then rounds of choosing, checking and cutting off.

Each round checks a solver's choice on linear capacities for packing on nodes and for SLOs under the merged load. What
turns out infeasible is cut off in the next round.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from heapq import nsmallest
from itertools import count

import numpy as np

from circinus.arrays import IntArray
from circinus.estimation import PlanCandidate
from circinus.matching.candidate_source import Candidates, CandidateSource
from circinus.matching.column_generation import add_columns, generate_columns
from circinus.matching.cuts import Cut, share_cut, sizing_cut
from circinus.matching.feasibility import FeasibleSolution, check_feasibility, repair
from circinus.matching.incumbent import Incumbent
from circinus.matching.match_run import Answer, MatchRun
from circinus.matching.plan_space_bounds import reaches_bounds
from circinus.matching.problem import Problem, meets_cost_slo
from circinus.matching.problem_builder import build_problem
from circinus.matching.settings import MATCHING
from circinus.matching.sizing import SloViolation
from circinus.matching.solvers.greedy import greedy, local_search, objective_key
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solver
from circinus.matching.tolerances import COST_GAP_TOLERANCE
from circinus.specification import Deployment, SloKind
from circinus.specification.formatting import format_usd_per_h

_FIRST_SHARE, _FIRST_SHARE_LARGE = 0.5, 0.8
"""Share of the remaining time for a choice after which plans on its deployments are offered."""
_EXACT_ROUNDS, _EXACT_ROUNDS_LARGE = 40, 8
"""Rounds that cut off infeasible answers only; later, a plan that violates an SLO is dropped. The second for many
queries."""


def search(
    run: MatchRun,
    *,
    guaranteed: Collection[str] = (),
    preferred: Collection[str] = (),
    restrict_to: Collection[str] | None = None,
    limit_s: float | None = None,
) -> Answer:
    """Return an answer within the time limit.

    Args:
        run: the inputs.
        guaranteed: names of queries of the highest priority (see `PriorityLevels.of`).
        preferred: names of queries of the next priority.
        restrict_to: names of the queries that may be served, without an incumbent; None: all.
        limit_s: time limit; None: that of the settings.
    """
    return _Search(run, guaranteed, preferred, restrict_to, run.search_limit_s if limit_s is None else limit_s).answer()


class _Search:
    def __init__(
        self,
        run: MatchRun,
        guaranteed: Collection[str],
        preferred: Collection[str],
        restrict_to: Collection[str] | None,
        limit_s: float,
    ) -> None:
        servable = run.frontiers if restrict_to is None else restrict_to
        self._run, self._guaranteed, self._preferred = run, guaranteed, preferred
        self._shared_demands = None if restrict_to is None else run.shared_demands
        self._incumbent = run.incumbent if restrict_to is None else None
        self._queries = tuple(query for query in run.queries if query.name in servable)
        self._listed: Candidates = {n: f.candidates if n in servable else () for n, f in run.frontiers.items()}
        self._is_large = len(servable) > MATCHING.max_exact_queries
        self._is_restricted = bool(guaranteed or preferred) or restrict_to is not None
        self._completes = run.settings.considers_all_plans and not (self._is_large or self._is_restricted)
        is_small_subset = not self._is_large and len(run.frontiers) > MATCHING.max_exact_queries
        self._solver = MilpSolver(seed=run.settings.seed, clock=run.clock) if is_small_subset else run.solver
        self._started_s = run.clock()
        self._deadline_s = self._started_s + limit_s
        self._columns_deadline_s = self._deadline_s - (1.0 - MATCHING.column_generation_share) * limit_s

    def answer(self) -> Answer:
        """Return the answer from scratch or, if plans run, the best answer at the price of changing them.

        Running plans take part in the last choice only. In an earlier one they would stay wherever other plans are
        equally good, and then no plan would be offered on the deployments of a heavier answer.
        """
        run, source, candidates = self._run, self._run.source, self._listed
        if source is None:
            answer = self._solve(self._problem(candidates, self._incumbent), None, 1.0, self._incumbent)
            is_listed = all(run.frontiers[query.name].unlisted is None for query in self._queries)
            return replace(answer, covers_all_plans=is_listed)
        first = self._first(candidates) if self._is_large and not self._is_restricted else None
        candidates = generate_columns(
            candidates,
            run.frontiers,
            source.feasible_estimate,
            self._problem,
            should_stop=lambda: run.clock() > self._columns_deadline_s,
            seed=run.settings.seed,
        )
        fresh, candidates = self._of_all_plans(candidates, source, first) or self._completed(
            *self._reuse(candidates, source, first=first), source
        )
        if self._incumbent is None:
            return fresh
        return self._change_running(self._incumbent, fresh, candidates, source)

    def _problem(self, candidates: Candidates, incumbent: Incumbent | None = None) -> Problem:
        problem = build_problem(
            self._run.queries,
            candidates,
            self._run.infrastructure,
            shared_demands=self._shared_demands,
            guaranteed=self._guaranteed,
            preferred=self._preferred,
        )
        levels = replace(problem.priority_levels, required_weight=self._run.settings.required_weight)
        problem = replace(problem, priority_levels=levels)
        return problem if incumbent is None else incumbent.mark(problem)

    def _solve(self, problem: Problem, start: IntArray | None, share: float, incumbent: Incumbent | None) -> Answer:
        """Return an answer within a share of the remaining time."""
        now_s = self._run.clock()
        deadline_s = now_s + max(self._deadline_s - now_s, 0.0) * share
        return solve_in_rounds(self._run, problem, self._solver, start, incumbent, deadline_s, is_large=self._is_large)

    def _is_late(self) -> bool:
        return self._run.clock() >= self._deadline_s

    def _first(self, candidates: Candidates) -> Answer:
        """Return a heuristic answer, at once."""
        problem = self._problem(candidates)
        solution = repair(problem, greedy(problem), self._run.slos, self._run.reestimate, widely=True)
        answer = Answer(
            run=self._run,
            problem=problem,
            solution=solution,
            solver_choice=solution.chosen,
            cuts=(),
            weight_bounds=problem.priority_levels.total_weights,
            cost_bound_usd_per_h=0.0,
            optimal=False,
            is_large=True,
        )
        self._run.observer("first answer", answer)
        return answer

    def _of_all_plans(
        self, candidates: Candidates, source: CandidateSource, first: Answer | None
    ) -> tuple[Answer, Candidates] | None:
        """Return the answer among all plans of many queries, and these, or None if they are too many."""
        is_considered = self._run.settings.considers_all_plans and self._is_large and not self._is_restricted
        if not is_considered or len(self._queries) > MATCHING.max_packed_queries:
            return None
        plans = self._all_plans(source, MATCHING.column_generation_share)
        if plans is None or sum(map(len, plans.values())) > MATCHING.max_all_columns:
            return None
        extended = add_columns(candidates, plans)
        problem = self._problem(extended)
        answer = self._solve(problem, None if first is None else moved(first, problem), 1.0, None)
        return replace(answer, covers_all_plans=have_equal_replicas(extended)), extended

    def _completed(self, answer: Answer, candidates: Candidates, source: CandidateSource) -> tuple[Answer, Candidates]:
        """Return the best answer of all plans, as far as there is time, and the candidates with its plans.

        The other plans do not become candidates of the answer, as explanations compare each candidate.
        """
        if not self._completes or reaches_bounds(answer):
            return answer, candidates
        plans = self._all_plans(source, MATCHING.enumeration_share)
        if plans is None:
            return answer, candidates
        extended = add_columns(candidates, plans)
        wider = self._problem(extended)
        start = moved(answer, wider)
        is_solved = answer.optimal and len(wider.candidates) == len(answer.problem.candidates)
        whole = answer if is_solved else self._solve(wider, start, 1.0, None)
        if objective_key(wider, whole.chosen) > objective_key(wider, start):
            answer, candidates = self._narrowed(whole, candidates, answer)
        weights_of, cost_usd_per_h = wider.priority_levels.weights_of, whole.solution.usage.cost_usd_per_h
        if weights_of(answer.chosen) != weights_of(whole.chosen) or not have_equal_replicas(extended):
            return answer, candidates
        is_cheapest = answer.solution.usage.cost_usd_per_h <= cost_usd_per_h * (1.0 + COST_GAP_TOLERANCE)
        proved = replace(
            answer,
            weight_bounds=whole.weight_bounds,
            cost_bound_usd_per_h=whole.cost_bound_usd_per_h,
            optimal=whole.optimal and is_cheapest,
            covers_all_plans=True,
        )
        return proved, candidates

    def _narrowed(self, whole: Answer, candidates: Candidates, otherwise: Answer) -> tuple[Answer, Candidates]:
        """Return an answer with the given candidates and its own plans alone, and these; or the other if that fails."""
        plans = {whole.problem.queries[q]: whole.problem.candidates[c] for q, c in whole.problem.served(whole.chosen)}
        extended = add_columns(candidates, {name: (plan,) for name, plan in plans.items()})
        problem = self._problem(extended)
        chosen = problem.choice_of({name: candidate.plan for name, candidate in plans.items()})
        solution = check_feasibility(problem, chosen, self._run.slos, self._run.reestimate)
        if not isinstance(solution, FeasibleSolution):
            return otherwise, candidates
        narrowed = replace(whole, problem=problem, solution=solution, solver_choice=chosen, cuts=(), is_revised=True)
        return narrowed, extended

    def _all_plans(self, source: CandidateSource, time_share: float) -> Candidates | None:
        """Return all plans of the queries that have any, or None if that takes more than a share of the time left."""
        run, now_s = self._run, self._run.clock()
        stop_s = now_s + time_share * (self._deadline_s - now_s)
        with_plans = [q for q in self._queries if (f := run.frontiers[q.name]).candidates or f.unlisted is not None]
        return source.all_plans(with_plans, lambda: run.clock() >= stop_s)

    def _change_running(
        self, incumbent: Incumbent, fresh: Answer, candidates: Candidates, source: CandidateSource
    ) -> Answer:
        """Return the best answer at the price of changes; unless they are limited, of no less weight than `fresh`.

        Args:
            incumbent: running plans.
            fresh: answer from scratch.
            candidates: of that answer.
            source: of further plans.
        """
        problem = incumbent.mark(fresh.problem)
        fresh = replace(fresh, problem=problem, solution=replace(fresh.solution, usage=problem.usage_of(fresh.chosen)))
        if incumbent.is_kept_by(problem, fresh.chosen):
            return fresh
        limit_s = MATCHING.change_time_share * (self._deadline_s - self._started_s)
        self._deadline_s = max(self._deadline_s, self._run.clock() + limit_s)
        running = incumbent.deployments_of(self._queries)
        candidates = add_columns(candidates, incumbent.unlisted_plans(candidates, self._queries, source.running_plan))
        on_running = {query.name: source.on_deployments(query, running) for query in self._queries}
        answer, _ = self._reuse(add_columns(candidates, on_running), source, incumbent, fresh)
        weights_of = problem.priority_levels.weights_of
        if weights_of(answer.chosen) >= weights_of(fresh.chosen):
            return answer
        if incumbent.max_changes is None:
            return fresh
        return replace(answer, weight_with_more_changes=problem.priority_levels.weight_of(fresh.chosen))

    def _reuse(
        self,
        candidates: Candidates,
        source: CandidateSource,
        incumbent: Incumbent | None = None,
        first: Answer | None = None,
    ) -> tuple[Answer, Candidates]:
        """Solve, and solve again while plans on the answer's deployments improve it; return the candidates, too.

        The frontiers' plans alone are solved first. The deployments of a heuristic answer to them are offered, too, as
        they differ from those of the best one.

        Args:
            candidates: by query name.
            source: of further plans.
            incumbent: running plans.
            first: answer to start from, whose candidates are the first of each query's; None: a heuristic one.
        """
        share = _FIRST_SHARE_LARGE if self._is_large else _FIRST_SHARE
        problem = self._problem(candidates, incumbent)
        quick = greedy(problem) if first is None else moved(first, problem)
        answer = self._solve(problem, quick, share, incumbent)
        running = used_deployments(problem, quick)
        cheapest = () if self._is_large or first is not None else cheapest_deployments(candidates)
        for _ in range(MATCHING.max_reuse_rounds):
            problem, chosen = answer.problem, answer.chosen
            running = list(dict.fromkeys([*running, *used_deployments(problem, chosen, answer.solver_choice)]))
            columns: dict[str, list[PlanCandidate]] = {}
            for query in self._queries:
                if self._is_late():
                    break
                offers = (running, *cheapest)
                columns[query.name] = [plan for offer in offers for plan in source.on_deployments(query, offer)]
            extended, cheapest = add_columns(candidates, columns), ()
            if all(len(plans) == len(candidates[name]) for name, plans in extended.items()) or self._is_late():
                break
            wider = self._problem(extended, incumbent)
            start = moved(answer, wider)
            key = partial(objective_key, wider)
            quick = max(local_search(wider, start), greedy(wider), key=key)
            if self._is_large and answer.optimal and key(quick) <= key(start):
                break
            next_answer = self._solve(wider, quick, share, incumbent)
            if key(next_answer.chosen) <= key(start):
                break
            candidates, answer = extended, next_answer
        return answer, candidates


def moved(answer: Answer, wider: Problem) -> IntArray:
    """Return (Q,) the choice of an answer in a problem with further candidates behind those of each query."""
    chosen = answer.chosen
    return np.where(chosen >= 0, chosen - answer.problem.block[:-1] + wider.block[:-1], -1)


def have_equal_replicas(candidates: Candidates) -> bool:
    """Return whether all plans take the same of a deployment's replica; else fewer plans may take less."""
    uses = {(use.deployment, use.demand) for plans in candidates.values() for plan in plans for use in plan.deployments}
    return len(uses) == len({deployment for deployment, _ in uses})


def used_deployments(problem: Problem, *choices: IntArray) -> list[Deployment]:
    """Return the deployments used by any of the choices."""
    used = np.logical_or.reduce([problem.usage_of(chosen).used for chosen in choices])
    return [problem.deployments[column] for column in np.flatnonzero(used)]


def cheapest_deployments(candidates: Candidates) -> Sequence[Sequence[Deployment]]:
    """Return the distinct deployment sets of each query's cheapest plans in isolation."""
    cheapest = (
        plan
        for plans in candidates.values()
        for plan in nsmallest(MATCHING.offered_plans, plans, key=_isolated_usd_per_h)
    )
    return list(dict.fromkeys(tuple(use.deployment for use in plan.deployments) for plan in cheapest))


def _isolated_usd_per_h(plan: PlanCandidate) -> float:
    replicas = (max(1, math.ceil(use.fractional_replicas)) + use.demand.spare_replicas for use in plan.deployments)
    costs = (count * use.demand.cost_usd_per_h for count, use in zip(replicas, plan.deployments, strict=True))
    return sum(costs) + plan.transfer_cost_usd_per_h


def solve_in_rounds(
    run: MatchRun,
    problem: Problem,
    solver: Solver,
    start: IntArray | None,
    incumbent: Incumbent | None,
    deadline_s: float,
    *,
    is_large: bool,
) -> Answer:
    """Choose and cut off until a choice is feasible; if rounds or time run out, repair the last one.

    Args:
        run: the inputs.
        problem: of some candidates.
        solver: chooses on linear capacities and cuts.
        start: (Q,) warm start.
        incumbent: running plans; the answer is never worse than the feasible part of them.
        deadline_s: on the clock of the run.
        is_large: whether there are too many queries to cut off infeasible choices individually.
    """
    key = partial(objective_key, problem)

    def repaired(chosen: IntArray) -> FeasibleSolution:
        return repair(problem, chosen, run.slos, run.reestimate, widely=is_large)

    kept = None if incumbent is None or problem.incumbent is None else repaired(problem.incumbent.chosen)
    churn_cuts = [] if incumbent is None or kept is None else incumbent.churn_cuts(kept.chosen)
    cuts: list[Cut] = [*churn_cuts]
    starts = [choice for choice in (start, None if kept is None else kept.chosen) if choice is not None]
    fallback: FeasibleSolution | None = None
    weight_bounds = problem.priority_levels.total_weights
    for number in count(1):
        limit_s = max(deadline_s - run.clock(), 0.1) * (MATCHING.round_share_large if is_large else 1.0)
        choice = solver.solve(problem, cuts, limit_s, starts)
        starts = [choice.chosen, choice.feasible_incumbent]
        exact = all(cut.valid for cut in cuts)
        weight_bounds = min(weight_bounds, choice.weight_bounds) if exact else weight_bounds
        outcome = check_feasibility(problem, choice.chosen, run.slos, run.reestimate, widely=is_large)
        if isinstance(outcome, FeasibleSolution):
            solution, optimal = outcome, choice.optimal and exact
            cost_bound = choice.cost_bound_usd_per_h if exact else 0.0  # valid for this weight only
            break
        cuts_individually = number <= (_EXACT_ROUNDS_LARGE if is_large else _EXACT_ROUNDS)
        added: list[Cut] = [*outcome.packing_cuts]
        for violation in outcome.violations:
            added += _slo_cuts(problem, choice.chosen, violation, exact=cuts_individually)
        assert added, f"the solver's choice {outcome.reason}"
        cuts += added
        if is_large:  # time allows few rounds, and later choices, among fewer candidates, may be worse
            current = repaired(choice.chosen)
            fallback = current if fallback is None or key(current.chosen) > key(fallback.chosen) else fallback
        if number >= MATCHING.max_rounds or run.clock() >= deadline_s:
            improved = (local_search(problem, start, cuts) for start in starts)
            repairs = repaired(max(improved, key=key)), repaired(choice.chosen)
            solution, optimal, cost_bound = max(repairs, key=lambda result: key(result.chosen)), False, 0.0
            break
    answer = Answer(
        run=run,
        problem=problem,
        solution=solution,
        solver_choice=choice.chosen,
        cuts=tuple(cuts),
        weight_bounds=weight_bounds,
        cost_bound_usd_per_h=cost_bound,
        optimal=optimal,
        is_large=is_large,
    )
    if fallback is not None and key(fallback.chosen) > key(solution.chosen):
        answer = answer.with_solution(fallback)
    if kept is not None and (
        not all(cut.is_satisfied(problem, answer.chosen, answer.solution.usage) for cut in churn_cuts)
        or key(answer.chosen) < key(kept.chosen)
    ):
        answer = answer.with_solution(kept)
    return answer


def _slo_cuts(problem: Problem, chosen: IntArray, violation: SloViolation, *, exact: bool) -> Iterator[Cut]:
    """Yield the cuts for a violated SLO; unless `exact`, the plan is excluded with any neighbours."""
    columns, _ = problem.fractional_load.row(violation.candidate)
    pays_nodes = bool((problem.node_price_usd_per_h[problem.pool_of[columns]] > 0).any())
    if not exact or pays_nodes or violation.slos != (SloKind.COST,):
        yield sizing_cut(problem, chosen, violation.candidate, violation.reason, exact=exact)
        return
    # With the same neighbours, the query's other plans mostly cost too much as well: cut them off in one round.
    trial = chosen.copy()
    for candidate in problem.candidates_of(violation.query):
        trial[violation.query] = candidate
        usage = problem.usage_of(trial)
        share = problem.cost_share_usd_per_h(candidate, usage)
        if candidate == violation.candidate:
            yield share_cut(problem, usage, candidate, violation.reason)
        elif not meets_cost_slo(share, float(problem.cost_limit_usd_per_h[violation.query])):
            yield share_cut(
                problem, usage, candidate, f"its cost share with the other queries would be {format_usd_per_h(share)}"
            )
