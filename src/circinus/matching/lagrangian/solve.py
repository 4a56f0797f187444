"""A fluid matching from prices to a whole answer with a certificate: satisfied weight first, then cost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.dual_ascent import EXACT_UP_TO, DualSolver
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

_OF_LIGHTEST = 0.1
"""Of the lightest query's weight, what the dearest plan counts at most."""
_COST_COUNTS = 1e-5
"""Of the satisfied weight, what all plans' costs together count beside it: enough to choose between equals."""
_IN_DOUBT = 64
"""Queries that the exact model chooses for at once."""
_ALL_IN_DOUBT = 160
"""The same where these are all."""
_WINDOWS = 0.5, 1.0
"""Where all queries are in doubt: regrets that are looked at, as shares of the greatest that need be. Small models find
good choices soon, and these make the large one smaller."""
_FEWEST, _FEW = 24, 2_000
"""Queries from and up to which answers are also sought at prices that are a little off: single ones matter there."""
_RESTARTS, _OFF = 100, 0.02
"""Such answers at most, and by how much prices are off: the deviation of their logarithms."""
_SHARE = 0.5
"""Of the time left that one exact model may take."""
_ROUNDINGS = 32
"""Operations that a regret comes of, each rounded."""
_CLOSE, _WHOLE = 1e-9, 1e-6
"""Shares that are rounding: of sums, and of a unit of weight."""
_ALIKE = 1.5
"""Queries of a class on average from which on their classes are divided over plans, and not each query by itself."""
_ATTEMPTS = 2
"""Times that whole plans are sought by the prices of cost."""


@dataclass(frozen=True, eq=False)
class RelaxedSolution:
    """At most one plan for every query, and how good that is at least."""

    members: ExpandedQueries
    chosen: IntArray
    """(N,) plan of each query, -1 for none."""
    weight: float
    weight_bound: float
    """No choice satisfies more weight, not even one that divides queries over plans."""
    cost_usd_per_h: float
    cost_bound_usd_per_h: float
    """No choice that satisfies this weight costs less."""
    prices: Prices
    """In units of weight for whole capacities: what a little more of each would be worth."""
    cost_prices: Prices
    """In US dollars per hour, at the weight that is satisfied; `weight` is what one more unit of weight would cost."""
    cost_counts: float
    """Units of weight that a US dollar per hour counted as: next to nothing."""

    @property
    def weight_gap(self) -> float:
        """Share of the bound that may be missing at most."""
        return 1.0 - self.weight / self.weight_bound if self.weight_bound > 0 else 0.0

    @property
    def cost_gap(self) -> float:
        """Share of the cost that may be too much at most, at the weight satisfied."""
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
    """Choose plans by prices, then for the queries in doubt by an exact model.

    Args:
        problem: what to choose from.
        minimise: the exact model's solver; None: there is none.
        time_limit_s: until when exact models are solved; what comes before is done in any case.
        seed: of samples and of the solver.
        start: prices in units of weight to begin with.
        weight_only: not to look for less cost of the same weight, nor for a bound on it.
        clock: for the time limit.

    Raises:
        PlanningError: see `FluidProblem.checked`.
    """
    problem.checked()
    deadline_s = clock() + time_limit_s
    members = ExpandedQueries.of(problem)
    if not problem.classes:
        nothing, zero = np.zeros(0, dtype=np.int64), Prices.zero(problem)
        return RelaxedSolution(members, nothing, 0.0, 0.0, 0.0, 0.0, zero, zero, 0.0)
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
        self._alike = len(members.class_of) >= _ALIKE * self._problem.classes

    def answer(self, start: Prices | None, *, weight_only: bool) -> RelaxedSolution:
        search = DualSolver(self._problem, np.random.default_rng(self._seed))
        objective = DualObjective(1.0, cost_tiebreak_weight(self._problem))
        prices = search.maximize_weight(objective, start)
        chosen, limit = self._most_weight(search, objective, prices)
        cost_prices, least_cost = Prices.zero(self._problem), 0.0
        if not weight_only:
            chosen, cost_prices, least_cost = self._least_cost(search, objective, chosen, limit)
        cost = self._members.cost_usd_per_h(chosen)
        return RelaxedSolution(
            members=self._members,
            chosen=chosen,
            weight=self._members.weight(chosen),
            weight_bound=limit,
            cost_usd_per_h=cost,
            cost_bound_usd_per_h=min(max(least_cost, 0.0), cost),
            prices=prices,
            cost_prices=cost_prices,
            cost_counts=objective.cost,
        )

    def _most_weight(self, search: DualSolver, objective: DualObjective, prices: Prices) -> tuple[IntArray, float]:
        """(a choice, a bound on the weight)"""
        problem, members = self._problem, self._members
        regrets = ReducedProfits.at(problem, objective, prices)
        chosen = self._rounded(search, regrets, objective, prices, objective)
        sharp = search.polish(objective, prices)
        limit = tighten_weight_bound(problem, dual_bound(problem, DualObjective(1.0, 0.0), sharp), self._weights)
        if _FEWEST <= len(chosen) <= _FEW:
            chosen = self._restarted(objective, prices, chosen, limit)
        if members.weight(chosen) < limit - _CLOSE * limit:
            regrets = regrets if sharp is prices else ReducedProfits.at(problem, objective, sharp)
            unit = 0.0 if self._weights.rounding else self._weights.unit
            # The prices count costs, too, though next to nothing; one that is better is better by a unit.
            slack = objective.cost * max_cost_usd_per_h(problem)
            distance = dual_bound(problem, objective, sharp) - members.worth(chosen, objective) + slack - unit
            chosen, proved = self._settled(regrets, chosen, DualObjective(1.0, 0.0), distance, unit=unit)
            limit = min(limit, tighten_weight_bound(problem, proved, self._weights))
        return chosen, max(limit, members.weight(chosen))

    def _rounded(
        self,
        search: DualSolver,
        regrets: ReducedProfits,
        asked: DualObjective,
        prices: Prices,
        objective: DualObjective,
    ) -> IntArray:
        """Whole queries near the prices of what is `asked`: the better of what each prefers and of a divided answer."""
        members, found = self._members, []
        if not self._alike:
            found.append(choose_best_plans(members, regrets))
        if self._alike or self._problem.classes <= EXACT_UP_TO:
            found.append(round_fractional(members, search.fractional_primal(asked, prices)))
        whole = [greedy_fill(members, regrets, repair_overload(members, regrets, start)) for start in found]
        return max((swap_search(members, regrets, chosen, objective) for chosen in whole), key=self._goodness)

    def _restarted(self, objective: DualObjective, prices: Prices, chosen: IntArray, limit: float) -> IntArray:
        """The best choice at prices that are off a little, each time by something else: rounding ends elsewhere."""
        members, rng, best = self._members, np.random.default_rng(self._seed), chosen
        until_s = self._clock() + (self._deadline_s - self._clock()) * _SHARE
        for _ in range(_RESTARTS):
            if self._clock() >= until_s or members.weight(best) >= limit - _CLOSE * limit:
                break
            off = Prices(
                prices.local * np.exp(rng.normal(0, _OFF, prices.local.shape)),
                prices.shared * np.exp(rng.normal(0, _OFF, prices.shared.shape)),
            )
            regrets = ReducedProfits.at(self._problem, objective, off)
            found = greedy_fill(
                members, regrets, repair_overload(members, regrets, choose_best_plans(members, regrets))
            )
            best = max(best, swap_search(members, regrets, found, objective), key=self._goodness)
        return best

    def _least_cost(
        self, search: DualSolver, objective: DualObjective, chosen: IntArray, limit: float
    ) -> tuple[IntArray, Prices, float]:
        """(a choice of no less weight, prices of cost, a bound on what the weight costs)"""
        problem, members = self._problem, self._members
        weight = members.weight(chosen)
        asked = DualObjective(0.0, 1.0, weight)
        prices = search.minimize_cost(weight, limit)
        chosen = self._cheaper(search, chosen, objective, prices, limit)
        prices = search.polish(asked, prices)
        least, cost = -dual_bound(problem, asked, prices), members.cost_usd_per_h(chosen)
        if members.weight(chosen) > weight * (1 + _CLOSE):  # a bound for less holds for more, but loosely
            asked = replace(asked, least_weight=members.weight(chosen))
            least = max(least, -dual_bound(problem, asked, prices))
        if cost > least + _CLOSE * cost:
            regrets = ReducedProfits.at(problem, DualObjective(prices.weight, 1.0), replace(prices, weight=0.0))
            chosen, proved = self._settled(regrets, chosen, DualObjective(0.0, 1.0), cost - least, asked.least_weight)
            least = max(least, -proved)
        return chosen, prices, least

    def _cheaper(
        self, search: DualSolver, chosen: IntArray, objective: DualObjective, prices: Prices, limit: float
    ) -> IntArray:
        """A choice of no less weight that costs less, if there is any near the prices of cost.

        Rounding loses a little of the weight, so that as much more is asked for the second time.
        """
        members = self._members
        best, regrets = chosen, None
        asked = members.weight(chosen)
        for _ in range(_ATTEMPTS):
            regrets = ReducedProfits.at(self._problem, DualObjective(prices.weight, 1.0), replace(prices, weight=0.0))
            best = max(best, swap_search(members, regrets, best, objective), key=self._goodness)
            other = self._rounded(search, regrets, DualObjective(0.0, 1.0, asked), prices, objective)
            lost = members.weight(best) - members.weight(other)
            best = max(best, other, key=self._goodness)
            more = min(asked + lost, (asked + limit) / 2)
            if lost <= 0 or more - asked <= _CLOSE * asked or self._clock() > self._deadline_s:
                break
            asked = more
            prices = search.minimize_cost(asked, limit, prices)
        return best

    def _settled(
        self,
        regrets: ReducedProfits,
        chosen: IntArray,
        objective: DualObjective,
        distance: float,
        least_weight: float | None = None,
        unit: float = 0.0,
    ) -> tuple[IntArray, float]:
        """(a choice at least as good, a bound on the objective) by the exact model."""
        found, limit = chosen, math.inf
        before = self._members.worth(chosen, objective)
        few = len(chosen) <= _ALL_IN_DOUBT
        until_s = self._clock() + (self._deadline_s - self._clock()) * _SHARE
        windows = _WINDOWS if few else (1.0,)
        for number, window in enumerate(windows):
            left_s = (until_s - self._clock()) / (len(windows) - number)
            if self._minimise is None or left_s <= 0:
                break
            # What was gained meanwhile need not be looked for any more.
            near = distance - (self._members.worth(found, objective) - before)
            settled = solve_restricted(
                self._members, regrets, found, objective, window * near + self._rounding(regrets),
                self._minimise, most=len(chosen) if few else _IN_DOUBT, time_limit_s=left_s, seed=self._seed,
                least_weight=least_weight, unit=unit,
            )  # fmt: skip
            found = max((found, settled.chosen), key=self._goodness)
            if window == 1.0:
                limit = settled.bound
        return found, limit

    @staticmethod
    def _rounding(regrets: ReducedProfits) -> float:
        """By which regrets may be off in their precision."""
        worth = regrets.reduced[np.isfinite(regrets.reduced)]
        return _ROUNDINGS * float(np.finfo(regrets.reduced.dtype).eps) * float(np.abs(worth).max(initial=0.0))

    def _goodness(self, chosen: IntArray) -> tuple[float, float]:
        return round(self._members.weight(chosen), 9), -self._members.cost_usd_per_h(chosen)


def cost_tiebreak_weight(problem: RelaxedProblem) -> float:
    """Units of weight for a US dollar per hour: enough to choose between equals, never worth a query."""
    cost = problem.cost_usd_per_h[np.isfinite(problem.cost_usd_per_h)]
    most = float(cost.max(initial=0.0))
    if most <= 0:
        return 0.0
    counts = _COST_COUNTS * problem.total_weight / max_cost_usd_per_h(problem)
    return min(counts, _OF_LIGHTEST * float(problem.weight.min()) / most)


def max_cost_usd_per_h(problem: RelaxedProblem) -> float:
    """If every query had its dearest plan."""
    cost = problem.cost_usd_per_h
    dearest: FloatArray = np.where(np.isfinite(cost), cost, 0.0).max(axis=1, initial=0.0)
    return float(problem.multiplicity @ dearest)


def tighten_weight_bound(problem: RelaxedProblem, limit: float, weights: IntegerWeights | None = None) -> float:
    """A bound on the weight made tighter: by what has a plan that fits at all, and down to a sum of whole weights."""
    fits = (
        np.isfinite(problem.cost_usd_per_h) & (problem.amounts.max(axis=2, initial=0.0) <= 1.0 + 2 * TOLERANCE)
    ).any(axis=1)
    limit = min(limit, float((problem.multiplicity * problem.weight)[fits].sum()))
    weights = IntegerWeights.of(problem.weight) if weights is None else weights
    if weights.rounding or not math.isfinite(limit):
        return limit
    return math.floor(limit / weights.unit + _WHOLE) * weights.unit
