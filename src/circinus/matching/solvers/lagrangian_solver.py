"""The solver for many queries: Lagrangian prices, then whole replicas, then an exact model over undecided queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.matching.cuts import ChurnCut, Cut
from circinus.matching.lagrangian.dual import DualObjective
from circinus.matching.lagrangian.primal_rounding import ReducedProfits
from circinus.matching.lagrangian.relaxation import RelaxedView, capacity_scaling, cost_prices, replica_scaling
from circinus.matching.lagrangian.solve import RelaxedSolution, solve_relaxed
from circinus.matching.pool_packing import packed_part
from circinus.matching.priority_levels import PriorityLevels
from circinus.matching.problem import Problem
from circinus.matching.settings import MATCHING
from circinus.matching.solvers.greedy import greedy, is_feasible, local_search, objective_key
from circinus.matching.solvers.highs import SolveMilp, solve_milp
from circinus.matching.solvers.milp_solver import MilpSolver
from circinus.matching.solvers.solver import Solution
from circinus.matching.solvers.viable_candidates import viable_candidates
from circinus.matching.tolerances import COST_GAP_TOLERANCE, WEIGHT_TOLERANCE

_MAX_ROUNDS = 8
"""Maximum number of slope scaling rounds."""
_SHARE = 0.6
"""Share of the time for prices and whole replicas, and of the remaining time for a partial exact model."""
_INITIAL_UNDECIDED, _GROWTH = 24, 2
"""Number of undecided queries in the first exact model, and its growth factor."""
_SUFFICIENT_UNDECIDED, _MIN_SAVING = 48, 1e-3
"""Number of undecided queries from which on a larger model follows only if some query is not served, or after this
relative saving. On four matchings of 100 served queries, a model of all saved at most 0.1 % within its time limit."""
_MAX_EXACT_QUERIES = 2_000
"""Maximum number of queries with an exact model."""
_HIGHER_LEVEL_FACTORS = (30.0, 1e3, 1e5)
"""Factors on the weight of higher levels when a lower one is chosen, tried until no weight is lost there."""


@dataclass(frozen=True, eq=False)
class _LevelResult:
    """The result for one priority level together with the higher ones."""

    best: IntArray
    """Best choice over all levels so far."""
    view: RelaxedView
    relaxed: RelaxedSolution
    reduced_profits: ReducedProfits
    higher: IntArray
    """Queries of higher levels."""
    higher_factor: float
    """Factor on the weight of higher levels."""

    def bound(self, ranks: PriorityLevels, chosen: IntArray) -> float:
        """Bound this level's user weight, for choices that serve as much of the higher levels as `chosen`."""
        return self.relaxed.weight_bound - self.higher_factor * _own_weight(ranks, chosen, self.higher)


class LagrangianSolver:
    """Solver by Lagrangian relaxation: replicas are divisible in it, but its bounds hold for whole ones, too."""

    def __init__(
        self, *, seed: int = 0, clock: Callable[[], float] = time.monotonic, minimise: SolveMilp = solve_milp
    ) -> None:
        """Set the seed of samples and exact models, and the solver of the exact models."""
        self._seed = seed
        self._clock = clock
        self._exact = MilpSolver(seed=seed, clock=clock, minimise=minimise)

    def solve(
        self, problem: Problem, cuts: Sequence[Cut], time_limit_s: float, starts: Sequence[IntArray] = ()
    ) -> Solution:
        """Return the best choice within the time limit; see `Solver`."""
        start_s = self._clock()
        deadline_s, num_levels = start_s + time_limit_s, problem.priority_levels.count
        stops_s = start_s + _SHARE * time_limit_s * np.arange(1, num_levels + 1) / max(num_levels, 1)

        def should_stop(position: int = 0) -> bool:
            return bool(self._clock() >= stops_s[position])

        usable = viable_candidates(problem, cuts)
        starting_points = [local_search(problem, start, cuts, should_stop=should_stop) for start in starts]
        if cuts or not starts:
            starting_points.append(greedy(problem, cuts, should_stop=should_stop))
        best = max(starting_points, key=partial(objective_key, problem))
        levels: list[_LevelResult] = []
        for position in range(num_levels):
            level = self._solve_level(problem, cuts, usable, position, best, partial(should_stop, position))
            levels, best = [*levels, level], level.best
        safe = best if is_feasible(problem, best, cuts) else np.full(len(best), -1, dtype=np.int64)
        choice = Solution(best, safe, problem.priority_levels.total_weights, 0.0, optimal=False)
        if not levels or not (view := levels[-1].view).queries:
            return replace(choice, weight_bounds=(0.0,) * num_levels)
        choice = self._with_bounds(problem, levels, choice)
        if choice.optimal or len(problem.queries) > _MAX_EXACT_QUERIES:
            return choice
        if len(problem.queries) <= MATCHING.max_packed_queries and not any(isinstance(cut, ChurnCut) for cut in cuts):
            choice = self._packed(problem, cuts, choice, deadline_s)
            return choice if choice.optimal else self._with_bounds(problem, levels, choice)
        undecided = _undecided_queries(problem, view, levels[-1].reduced_profits, best)
        count = _INITIAL_UNDECIDED
        while not choice.optimal and (remaining_s := deadline_s - self._clock()) > 0:
            complete = count >= len(undecided)
            eligible = None if complete else _eligible(problem, choice.feasible_incumbent, undecided[:count], usable)
            limit_s = remaining_s if complete else remaining_s * _SHARE
            solution = self._exact.solve(problem, cuts, limit_s, [choice.feasible_incumbent], eligible=eligible)
            previous, choice = choice, _better(problem, choice, solution, complete)
            is_sufficient = count >= _SUFFICIENT_UNDECIDED and bool((choice.chosen[undecided] >= 0).all())
            if complete or (is_sufficient and not _is_clearly_better(problem, choice.chosen, previous.chosen)):
                break
            count *= _GROWTH
        return choice if choice.optimal else self._with_bounds(problem, levels, choice)

    def _packed(self, problem: Problem, cuts: Sequence[Cut], choice: Solution, deadline_s: float) -> Solution:
        """Return the best choice of one program of all queries, whose replicas pack; or the given one, if it has none.

        The given one may be heavier, but not pack.
        """
        start, remaining_s = packed_part(problem, choice.feasible_incumbent, cuts), deadline_s - self._clock()
        solution = self._exact.solve(problem, cuts, max(remaining_s, 0.0), [start], is_large=True)
        bounds = min(choice.weight_bounds, solution.weight_bounds)
        is_found = objective_key(problem, solution.chosen) > objective_key(problem, start)
        if not is_found and not np.array_equal(start, choice.feasible_incumbent):
            return replace(choice, weight_bounds=bounds)
        return replace(solution, weight_bounds=bounds)

    def _solve_level(
        self,
        problem: Problem,
        cuts: Sequence[Cut],
        usable: BoolArray,
        position: int,
        best: IntArray,
        should_stop: Callable[[], bool],
    ) -> _LevelResult:
        """Solve one priority level together with the higher ones, at its own prices."""
        ranks = problem.priority_levels
        eligible = usable & (ranks.rank[problem.query_of] >= ranks.count - 1 - position)
        higher = np.concatenate([np.zeros(0, dtype=np.int64), *ranks.descending[:position]])
        for higher_factor in _HIGHER_LEVEL_FACTORS:
            view = RelaxedView.of(problem, ranks.level_weight(position, higher_factor), eligible)
            relaxed = solve_relaxed(view.scaled(np.ones(len(problem.deployments))), seed=self._seed)
            required = _own_weight(ranks, best, higher)
            if should_stop() or _own_weight(ranks, view.candidates(relaxed.chosen), higher) >= required * (
                1 - WEIGHT_TOLERANCE
            ):
                break
        best, reduced_profits = self._slope_scaling(problem, cuts, view, relaxed, best, should_stop)
        return _LevelResult(best, view, relaxed, reduced_profits, higher, higher_factor)

    def _slope_scaling(
        self,
        problem: Problem,
        cuts: Sequence[Cut],
        view: RelaxedView,
        relaxed: RelaxedSolution,
        best: IntArray,
        should_stop: Callable[[], bool],
    ) -> tuple[IntArray, ReducedProfits]:
        """Return (the best choice over some rounds of slope scaling, reduced profits at the last prices)."""
        answer = relaxed
        load_factor: FloatArray = np.ones(len(problem.deployments))
        available_fraction = capacity_scaling(problem, cuts)
        # If not all queries are served, cost hardly matters, but takes as long as everything else.
        is_scarce = relaxed.weight < relaxed.problem.total_weight * (1 - WEIGHT_TOLERANCE)
        best_key, start = objective_key(problem, best), None
        for _ in range(_MAX_ROUNDS):
            previous, start = start, view.candidates(answer.chosen)
            if previous is not None and np.array_equal(start, previous):
                break  # a fixed point: further rounds repeat this one
            chosen = local_search(problem, start, cuts, should_stop=should_stop)
            key = objective_key(problem, chosen)
            if key > best_key:
                best, best_key = chosen, key
            if should_stop():
                break
            usage = problem.usage_of(chosen)
            load_factor = replica_scaling(problem, usage.fractional_load, usage.replicas, load_factor)
            paid_usd_per_h = problem.paid_usd_per_h(usage.replicas, usage.nodes)
            paid_usd_per_h = np.where(problem.divided_usd_per_h > 0, paid_usd_per_h, 0.0)
            answer = solve_relaxed(
                view.scaled(load_factor, available_fraction, paid_usd_per_h),
                seed=self._seed,
                start=answer.prices,
                weight_only=is_scarce,
            )
        return best, ReducedProfits.at(answer.problem, DualObjective(1.0, answer.cost_counts), answer.prices)

    def _with_bounds(self, problem: Problem, levels: Sequence[_LevelResult], choice: Solution) -> Solution:
        """Return the choice with the relaxation's bounds on its weight and cost."""
        ranks, cost = problem.priority_levels, problem.cost_with_churn_usd_per_h(problem.usage_of(choice.chosen))
        satisfied = ranks.weights_of(choice.chosen)
        level_bounds = [level.bound(ranks, choice.chosen) for level in levels]
        relaxation_bounds = ranks.lexicographic_bound(
            bounds=level_bounds,
            proved=[w >= bound * (1 - WEIGHT_TOLERANCE) for w, bound in zip(satisfied, level_bounds, strict=True)],
            max_weights=ranks.total_weights,
        )
        weight_bounds = max(min(relaxation_bounds, choice.weight_bounds), satisfied)
        weight, cost_bound = ranks.weight_of(choice.chosen), choice.cost_bound_usd_per_h
        own_bound = ranks.bound(choice.chosen, weight_bounds)
        if weight > 0:
            view, relaxed = levels[-1].view, levels[-1].relaxed.problem
            _, bound = cost_prices(replace(relaxed, weight=ranks.weight[view.first]), weight, self._seed)
            cost_bound = min(max(bound + problem.fixed_usd_per_h, cost_bound), cost)
        proved = weight >= own_bound * (1 - WEIGHT_TOLERANCE) and cost - cost_bound <= COST_GAP_TOLERANCE * cost
        return replace(
            choice,
            weight_bounds=weight_bounds,
            cost_bound_usd_per_h=cost_bound,
            optimal=choice.optimal or bool(proved),
        )


def _own_weight(ranks: PriorityLevels, chosen: IntArray, queries: IntArray) -> float:
    """Return the satisfied user weight of some queries."""
    return float(ranks.weight[queries[chosen[queries] >= 0]].sum())


def _undecided_queries(
    problem: Problem, view: RelaxedView, reduced_profits: ReducedProfits, best: IntArray
) -> IntArray:
    """Return the queries with a usable candidate, least decided first."""
    margin: FloatArray = np.full(len(problem.queries), np.inf)
    for row, queries in enumerate(view.queries):
        options = reduced_profits.reduced[row]
        current = np.where(best[queries] >= 0, best[queries] - problem.block[queries], len(options) - 1)
        # Queries with a suboptimal option rank before all others: they are the most promising.
        margin[queries] = reduced_profits.second[row] - 2 * (options.max() - options[current])
    order = np.argsort(margin, kind="stable")
    return np.asarray(order[np.isfinite(margin[order])], dtype=np.int64)


def _eligible(problem: Problem, best: IntArray, undecided: IntArray, usable: BoolArray) -> BoolArray:
    """Return (P,) the usable candidates of undecided queries, and the current ones of the others."""
    eligible = np.zeros(len(usable), dtype=bool)
    eligible[best[best >= 0]] = True
    for query in undecided.tolist():
        span = slice(problem.block[query], problem.block[query + 1])
        eligible[span] = usable[span]
    return eligible


def _is_clearly_better(problem: Problem, chosen: IntArray, previous: IntArray) -> bool:
    """Return whether a choice has more weight than the previous one, or saves enough to look for more."""
    (*weights, value), (*previous_weights, previous_value) = (objective_key(problem, c) for c in (chosen, previous))
    return (weights, value) > (previous_weights, previous_value + _MIN_SAVING * abs(previous_value))


def _better(problem: Problem, current: Solution, candidate: Solution, complete: bool) -> Solution:
    """Return the better choice of two with the tightest bounds; bounds over a subset of candidates do not count."""
    safe = max(current.feasible_incumbent, candidate.feasible_incumbent, key=partial(objective_key, problem))
    levels = problem.priority_levels
    weights = levels.weights_of(safe)
    # Bounds on cost hold for one weight only.
    cost_bound = current.cost_bound_usd_per_h if weights == levels.weights_of(current.feasible_incumbent) else 0.0
    if not complete:
        return replace(current, chosen=safe, feasible_incumbent=safe, cost_bound_usd_per_h=cost_bound, optimal=False)
    weight_bounds = max(min(current.weight_bounds, candidate.weight_bounds), weights)
    chosen = candidate.chosen if objective_key(problem, candidate.chosen) > objective_key(problem, safe) else safe
    if levels.weights_of(candidate.chosen) == weights:
        cost_bound = max(cost_bound, candidate.cost_bound_usd_per_h)
    return Solution(chosen, safe, weight_bounds, cost_bound, optimal=candidate.optimal)
