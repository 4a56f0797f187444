"""Solution of a relaxed matching from prices to whole queries, with bounds: satisfied weight first, then cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.dual_ascent import MAX_EXACT_CLASSES, DualSolver
from circinus.matching.lagrangian.local_search import swap_search
from circinus.matching.lagrangian.primal_rounding import (
    ReducedProfits,
    choose_best_plans,
    greedy_fill,
    repair_overload,
    round_fractional,
)
from circinus.matching.lagrangian.query_expansion import ExpandedQueries
from circinus.matching.lagrangian.relaxed_problem import TOLERANCE, RelaxedProblem
from circinus.matching.lagrangian.restricted_milp import solve_restricted
from circinus.matching.priority_levels import IntegerWeights
from circinus.matching.solvers.highs import SolveMilp

_MAX_SHARE_OF_LIGHTEST = 0.1
"""Maximum objective value of the most expensive plan's cost, as a share of the lightest query's weight."""
_COST_SHARE = 1e-5
"""Objective value of all plans' costs, as a share of the satisfied weight: enough to break ties."""
_MAX_UNDECIDED = 64
"""Maximum number of queries in the exact model."""
_MAX_ALL_UNDECIDED = 160
"""Maximum number of queries in the exact model if it contains all queries."""
_WINDOWS = 0.5, 1.0
"""Maximum regrets, as shares of the optimality gap, of successive exact models over all queries. Small models find good
choices soon, which shrink the large one."""
_MIN_PERTURBED, _MAX_PERTURBED = 24, 2_000
"""Range of the number of queries for which perturbed prices are tried, as single queries matter there."""
_RESTARTS, _PERTURBATION = 100, 0.02
"""Maximum number of perturbations, and standard deviation of the logarithm of prices."""
_EXACT_SHARE = 0.5
"""Share of the remaining time for one exact model."""
_ROUNDINGS = 32
"""Number of rounded operations in a regret."""
_SUM_TOLERANCE, _UNIT_TOLERANCE = 1e-9, 1e-6
"""Relative rounding tolerances of sums, and of a unit of weight."""
_MIN_CLASS_SIZE = 1.5
"""Average class size from which classes are divided over plans, instead of rounding each query by itself."""
_ATTEMPTS = 2
"""Maximum number of roundings at the prices of cost."""


@dataclass(frozen=True, eq=False)
class RelaxedSolution:
    """Choice of at most one plan for every query, with bounds."""

    members: ExpandedQueries
    chosen: IntArray
    """(N,) plan of each query, -1 for none."""
    weight: float
    weight_bound: float
    """Upper bound on the weight of any choice, even of divisible queries."""
    cost_usd_per_h: float
    cost_bound_usd_per_h: float
    """Lower bound on the cost of any choice with this weight."""
    prices: Prices
    """Marginal value of each whole capacity, in units of weight."""
    cost_prices: Prices
    """Marginal value in US dollars per hour at the satisfied weight; `weight` is the marginal cost of weight."""
    cost_counts: float
    """Tie-breaking weight of a US dollar per hour: nearly 0."""

    @property
    def weight_gap(self) -> float:
        """Optimality gap of the weight, as a share of its bound."""
        return 1.0 - self.weight / self.weight_bound if self.weight_bound > 0 else 0.0

    @property
    def cost_gap(self) -> float:
        """Optimality gap of the cost at the satisfied weight, as a share of the cost."""
        return 1.0 - self.cost_bound_usd_per_h / self.cost_usd_per_h if self.cost_usd_per_h > 0 else 0.0


def solve_relaxed(
    problem: RelaxedProblem,
    *,
    minimise: SolveMilp | None = None,
    time_limit_s: float = 1.0,
    seed: int = 0,
    start: Prices | None = None,
    weight_only: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> RelaxedSolution:
    """Choose plans by prices, then for the undecided queries by an exact model.

    Args:
        problem: the relaxed problem.
        minimise: solver of the exact model; None: without one.
        time_limit_s: time limit of exact models; all other steps always run.
        seed: of samples and of the solver.
        start: initial prices in units of weight.
        weight_only: whether to skip the minimization of cost and its bound.
        clock: for the time limit.
    """
    deadline_s = clock() + time_limit_s
    members = ExpandedQueries.of(problem)
    if not problem.classes:
        empty, zero = np.zeros(0, dtype=np.int64), Prices.zero(problem)
        return RelaxedSolution(members, empty, 0.0, 0.0, 0.0, 0.0, zero, zero, 0.0)
    search = _Search(members, minimise, deadline_s, clock, seed)
    return search.answer(start, weight_only=weight_only)


class _Search:
    def __init__(
        self,
        members: ExpandedQueries,
        minimise: SolveMilp | None,
        deadline_s: float,
        clock: Callable[[], float],
        seed: int,
    ) -> None:
        self._members, self._problem = members, members.problem
        self._minimise, self._deadline_s, self._clock, self._seed = minimise, deadline_s, clock, seed
        self._weights = IntegerWeights.of(self._problem.weight)
        self._has_large_classes = len(members.class_of) >= _MIN_CLASS_SIZE * self._problem.classes

    def answer(self, start: Prices | None, *, weight_only: bool) -> RelaxedSolution:
        search = DualSolver(self._problem, np.random.default_rng(self._seed))
        objective = DualObjective(1.0, cost_tiebreak_weight(self._problem))
        prices = search.maximize_weight(objective, start)
        chosen, weight_bound = self._maximize_weight(search, objective, prices)
        cost_prices, cost_bound = Prices.zero(self._problem), 0.0
        if not weight_only:
            chosen, cost_prices, cost_bound = self._minimize_cost(search, objective, chosen, weight_bound)
        cost = self._members.cost_usd_per_h(chosen)
        return RelaxedSolution(
            members=self._members,
            chosen=chosen,
            weight=self._members.weight(chosen),
            weight_bound=weight_bound,
            cost_usd_per_h=cost,
            cost_bound_usd_per_h=min(max(cost_bound, 0.0), cost),
            prices=prices,
            cost_prices=cost_prices,
            cost_counts=objective.cost,
        )

    def _maximize_weight(self, search: DualSolver, objective: DualObjective, prices: Prices) -> tuple[IntArray, float]:
        """Return (a choice, a bound on the weight)."""
        problem, members = self._problem, self._members
        reduced_profits = ReducedProfits.at(problem, objective, prices)
        chosen = self._rounded(search, reduced_profits, objective, prices, objective)
        polished = search.polish(objective, prices)
        weight_bound = tighten_weight_bound(
            problem, dual_bound(problem, DualObjective(1.0, 0.0), polished), self._weights
        )
        if _MIN_PERTURBED <= len(chosen) <= _MAX_PERTURBED:
            chosen = self._perturbed(objective, prices, chosen, weight_bound)
        if members.weight(chosen) < weight_bound - _SUM_TOLERANCE * weight_bound:
            reduced_profits = reduced_profits if polished is prices else ReducedProfits.at(problem, objective, polished)
            unit = 0.0 if self._weights.rounding else self._weights.unit
            # The prices include a small weight of costs; a better choice is better by at least a unit.
            slack = objective.cost * max_cost_usd_per_h(problem)
            distance = dual_bound(problem, objective, polished) - members.value(chosen, objective) + slack - unit
            chosen, exact_bound = self._solve_undecided(
                reduced_profits, chosen, DualObjective(1.0, 0.0), distance, unit=unit
            )
            weight_bound = min(weight_bound, tighten_weight_bound(problem, exact_bound, self._weights))
        return chosen, max(weight_bound, members.weight(chosen))

    def _rounded(
        self,
        search: DualSolver,
        reduced_profits: ReducedProfits,
        primal_objective: DualObjective,
        prices: Prices,
        objective: DualObjective,
    ) -> IntArray:
        """Return the better choice of rounding each query at the prices and of rounding the fractional solution."""
        members, starts = self._members, []
        if not self._has_large_classes:
            starts.append(choose_best_plans(members, reduced_profits))
        if self._has_large_classes or self._problem.classes <= MAX_EXACT_CLASSES:
            starts.append(round_fractional(members, search.fractional_primal(primal_objective, prices)))
        filled = [
            greedy_fill(members, reduced_profits, repair_overload(members, reduced_profits, start)) for start in starts
        ]
        return max((swap_search(members, reduced_profits, chosen, objective) for chosen in filled), key=self._key)

    def _perturbed(self, objective: DualObjective, prices: Prices, chosen: IntArray, weight_bound: float) -> IntArray:
        """Return the best choice over randomly perturbed prices, as rounding ends elsewhere at each."""
        members, rng, best = self._members, np.random.default_rng(self._seed), chosen
        deadline_s = self._clock() + (self._deadline_s - self._clock()) * _EXACT_SHARE
        for _ in range(_RESTARTS):
            if self._clock() >= deadline_s or members.weight(best) >= weight_bound - _SUM_TOLERANCE * weight_bound:
                break
            perturbed = Prices(
                prices.local * np.exp(rng.normal(0, _PERTURBATION, prices.local.shape)),
                prices.shared * np.exp(rng.normal(0, _PERTURBATION, prices.shared.shape)),
            )
            reduced_profits = ReducedProfits.at(self._problem, objective, perturbed)
            filled = greedy_fill(
                members,
                reduced_profits,
                repair_overload(members, reduced_profits, choose_best_plans(members, reduced_profits)),
            )
            best = max(best, swap_search(members, reduced_profits, filled, objective), key=self._key)
        return best

    def _minimize_cost(
        self, search: DualSolver, objective: DualObjective, chosen: IntArray, weight_bound: float
    ) -> tuple[IntArray, Prices, float]:
        """Return (a choice of no less weight, prices of cost, a bound on the cost of the weight)."""
        problem, members = self._problem, self._members
        weight = members.weight(chosen)
        cost_objective = DualObjective(0.0, 1.0, weight)
        prices = search.minimize_cost(weight, weight_bound)
        chosen = self._reduce_cost(search, chosen, objective, prices, weight_bound)
        prices = search.polish(cost_objective, prices)
        cost_bound, cost = -dual_bound(problem, cost_objective, prices), members.cost_usd_per_h(chosen)
        if members.weight(chosen) > weight * (1 + _SUM_TOLERANCE):  # the bound for less weight holds, but is loose
            cost_objective = replace(cost_objective, min_weight=members.weight(chosen))
            cost_bound = max(cost_bound, -dual_bound(problem, cost_objective, prices))
        if cost > cost_bound + _SUM_TOLERANCE * cost:
            reduced_profits = ReducedProfits.at(problem, DualObjective(prices.weight, 1.0), replace(prices, weight=0.0))
            chosen, exact_bound = self._solve_undecided(
                reduced_profits, chosen, DualObjective(0.0, 1.0), cost - cost_bound, cost_objective.min_weight
            )
            cost_bound = max(cost_bound, -exact_bound)
        return chosen, prices, cost_bound

    def _reduce_cost(
        self, search: DualSolver, chosen: IntArray, objective: DualObjective, prices: Prices, weight_bound: float
    ) -> IntArray:
        """Return a cheaper choice of no less weight, if there is any near the prices of cost.

        Rounding loses some weight, so the target is raised by the loss in the second attempt.
        """
        members = self._members
        best, reduced_profits = chosen, None
        target_weight = members.weight(chosen)
        for _ in range(_ATTEMPTS):
            reduced_profits = ReducedProfits.at(
                self._problem, DualObjective(prices.weight, 1.0), replace(prices, weight=0.0)
            )
            best = max(best, swap_search(members, reduced_profits, best, objective), key=self._key)
            rounded = self._rounded(search, reduced_profits, DualObjective(0.0, 1.0, target_weight), prices, objective)
            lost_weight = members.weight(best) - members.weight(rounded)
            best = max(best, rounded, key=self._key)
            raised_target = min(target_weight + lost_weight, (target_weight + weight_bound) / 2)
            if (
                lost_weight <= 0
                or raised_target - target_weight <= _SUM_TOLERANCE * target_weight
                or self._clock() > self._deadline_s
            ):
                break
            target_weight = raised_target
            prices = search.minimize_cost(target_weight, weight_bound, prices)
        return best

    def _solve_undecided(
        self,
        reduced_profits: ReducedProfits,
        chosen: IntArray,
        objective: DualObjective,
        gap: float,
        min_weight: float | None = None,
        unit: float = 0.0,
    ) -> tuple[IntArray, float]:
        """Return (a choice at least as good, a bound on the objective) by the exact model."""
        best, bound = chosen, math.inf
        initial_value = self._members.value(chosen, objective)
        small = len(chosen) <= _MAX_ALL_UNDECIDED
        deadline_s = self._clock() + (self._deadline_s - self._clock()) * _EXACT_SHARE
        windows = _WINDOWS if small else (1.0,)
        for index, window in enumerate(windows):
            window_s = (deadline_s - self._clock()) / (len(windows) - index)
            if self._minimise is None or window_s <= 0:
                break
            # Gains so far reduce the regrets that need to be considered.
            remaining_gap = gap - (self._members.value(best, objective) - initial_value)
            window_gap = window * remaining_gap + self._rounding(reduced_profits)
            solution = solve_restricted(
                self._members, reduced_profits, best, objective, window_gap, self._minimise,
                max_undecided=len(chosen) if small else _MAX_UNDECIDED, time_limit_s=window_s, seed=self._seed,
                min_weight=min_weight, unit=unit,
            )  # fmt: skip
            best = max((best, solution.chosen), key=self._key)
            if window == 1.0:
                bound = solution.bound
        return best, bound

    @staticmethod
    def _rounding(reduced_profits: ReducedProfits) -> float:
        """Return the rounding error of regrets in their precision."""
        values = reduced_profits.reduced[np.isfinite(reduced_profits.reduced)]
        return _ROUNDINGS * float(np.finfo(reduced_profits.reduced.dtype).eps) * float(np.abs(values).max(initial=0.0))

    def _key(self, chosen: IntArray) -> tuple[float, float]:
        return round(self._members.weight(chosen), 9), -self._members.cost_usd_per_h(chosen)


def cost_tiebreak_weight(problem: RelaxedProblem) -> float:
    """Return the weight of a US dollar per hour: enough to break ties, never worth a query."""
    cost = problem.cost_usd_per_h[np.isfinite(problem.cost_usd_per_h)]
    max_cost = float(cost.max(initial=0.0))
    if max_cost <= 0:
        return 0.0
    cost_weight = _COST_SHARE * problem.total_weight / max_cost_usd_per_h(problem)
    return min(cost_weight, _MAX_SHARE_OF_LIGHTEST * float(problem.weight.min()) / max_cost)


def max_cost_usd_per_h(problem: RelaxedProblem) -> float:
    """Return the total cost if every query had its most expensive plan."""
    cost = problem.cost_usd_per_h
    max_cost: FloatArray = np.where(np.isfinite(cost), cost, 0.0).max(axis=1, initial=0.0)
    return float(problem.multiplicity @ max_cost)


def tighten_weight_bound(problem: RelaxedProblem, bound: float, weights: IntegerWeights | None = None) -> float:
    """Tighten a weight bound: count only queries with a fitting plan, and round down to the weight unit."""
    fits = (
        np.isfinite(problem.cost_usd_per_h) & (problem.amounts.max(axis=2, initial=0.0) <= 1.0 + 2 * TOLERANCE)
    ).any(axis=1)
    bound = min(bound, float((problem.multiplicity * problem.weight)[fits].sum()))
    weights = IntegerWeights.of(problem.weight) if weights is None else weights
    if weights.rounding or not math.isfinite(bound):
        return bound
    return math.floor(bound / weights.unit + _UNIT_TOLERANCE) * weights.unit
