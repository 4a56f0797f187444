"""Solution of a relaxed matching from prices to whole queries, with bounds: satisfied weight first, then cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.matching.lagrangian.annealing import anneal_sites
from circinus.matching.lagrangian.dual import DualObjective, Prices, dual_bound
from circinus.matching.lagrangian.local_search import swap_search
from circinus.matching.lagrangian.lp_prices import solve_lp_prices
from circinus.matching.lagrangian.primal_rounding import (
    ReducedProfits,
    greedy_fill,
    repair_overload,
    round_fractional,
)
from circinus.matching.lagrangian.relaxed_problem import NOT_SERVED, RelaxedProblem
from circinus.matching.lagrangian.sifting import LpPrices
from circinus.matching.priority_levels import IntegerWeights
from circinus.matching.tolerances import WEIGHT_TOLERANCE

_MAX_SHARE_OF_LIGHTEST = 0.1
"""Maximum objective value of the most expensive plan's cost, as a share of the lightest query's weight."""
_COST_SHARE = 1e-5
"""Objective value of all plans' costs, as a share of the satisfied weight: enough to break ties."""
_ANNEALED_FROM, _MOVES = 10_000, 2_000
"""Number of classes on sites from which annealing pays, and moves for each query: it replaces rounding."""
_BLOCKS, _ELASTICITY = 20, 4.0
"""Number of parts into which sites are divided, and relative change of a price by a unit of relative usage."""
_UNIT_TOLERANCE = 1e-6
"""Relative rounding tolerance of a unit of weight."""


@dataclass(frozen=True, eq=False)
class RelaxedSolution:
    """Choice of at most one plan for every query, with bounds."""

    problem: RelaxedProblem
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
    problem: RelaxedProblem, *, seed: int = 0, start: Prices | None = None, weight_only: bool = False
) -> RelaxedSolution:
    """Choose plans by prices.

    Args:
        problem: the relaxed problem.
        seed: of samples.
        start: initial prices in units of weight.
        weight_only: whether to skip the minimization of cost and its bound.
    """
    return RelaxedSearch(problem, seed).answer(start, weight_only=weight_only)


class RelaxedSearch:
    """Search for a choice by prices: of maximum weight, and then of minimum cost at that weight."""

    def __init__(self, problem: RelaxedProblem, seed: int = 0) -> None:
        self.problem, self.seed = problem, seed
        self.weights = IntegerWeights.of(problem.weight)
        self._many_sites = problem.sites > 1 and problem.classes > _ANNEALED_FROM

    def answer(self, start: Prices | None = None, *, weight_only: bool = False) -> RelaxedSolution:
        """Return the choice with its bounds; see `solve_relaxed`."""
        if not self.problem.classes:
            empty, zero = np.zeros(0, dtype=np.int64), Prices.zero(self.problem)
            return RelaxedSolution(self.problem, empty, 0.0, 0.0, 0.0, 0.0, zero, zero, 0.0)
        objective = DualObjective(1.0, cost_tiebreak_weight(self.problem))
        optimum = solve_lp_prices(self.problem, objective, start=start, seed=self.seed)
        chosen, weight_bound = self.maximize_weight(objective, optimum)
        cost_prices, cost_bound = Prices.zero(self.problem), 0.0
        if not weight_only:
            chosen, cost_prices, cost_bound = self.minimize_cost(objective, chosen, weight_bound)
        cost = self.problem.cost_usd_per_h_of(chosen)
        return RelaxedSolution(
            problem=self.problem,
            chosen=chosen,
            weight=self.problem.weight_of(chosen),
            weight_bound=weight_bound,
            cost_usd_per_h=cost,
            cost_bound_usd_per_h=min(max(cost_bound, 0.0), cost),
            prices=optimum.prices,
            cost_prices=cost_prices,
            cost_counts=objective.cost,
        )

    def maximize_weight(self, objective: DualObjective, optimum: LpPrices) -> tuple[IntArray, float]:
        """Return (a choice near the fractional optimum, a bound on the weight)."""
        reduced_profits = ReducedProfits.at(self.problem, objective, optimum.prices)
        if self._many_sites:
            start = self._annealed(objective, optimum.prices)
        else:
            start = round_fractional(self.problem, optimum.selected)
        chosen = self.completed(reduced_profits, start, objective)
        weight_bound = tighten_weight_bound(
            self.problem, dual_bound(self.problem, DualObjective(1.0, 0.0), optimum.prices), self.weights
        )
        return chosen, max(weight_bound, self.problem.weight_of(chosen))

    def _annealed(self, objective: DualObjective, prices: Prices) -> IntArray:
        """Return a choice that annealing finds for some sites at a time, which nearly fits what all sites share.

        Shared resources that the sites so far use beyond their share cost more for the next sites.
        """
        problem, chosen = self.problem, np.full(len(self.problem.class_of), NOT_SERVED, dtype=np.int64)
        used, factor = np.zeros(problem.shared), np.ones(problem.shared)
        for sites in np.array_split(np.arange(problem.sites), _BLOCKS):
            classes = np.arange(*np.searchsorted(problem.site, [sites[0], sites[-1] + 1]))
            queries = slice(problem.site_starts[sites[0]], problem.site_starts[sites[-1] + 1])
            part, current = problem.part(classes), replace(prices, shared=prices.shared * factor)
            chosen[queries] = anneal_sites(part, objective, current, moves=_MOVES, seed=self.seed)
            used += part.usage_of(chosen[queries])[problem.sites * problem.local :]
            rest = 1.0 - (sites[-1] + 1) / problem.sites
            if rest > 0:
                factor = np.clip(1.0 + _ELASTICITY * (used + rest - 1.0) / rest, 0.5, 2.0)
        return chosen

    def completed(self, reduced_profits: ReducedProfits, start: IntArray, objective: DualObjective) -> IntArray:
        """Return a choice without overload, filled and improved by single moves."""
        filled = greedy_fill(self.problem, reduced_profits, repair_overload(self.problem, reduced_profits, start))
        return swap_search(self.problem, reduced_profits, filled, objective)

    def minimize_cost(
        self, objective: DualObjective, chosen: IntArray, max_weight: float
    ) -> tuple[IntArray, Prices, float]:
        """Return (a choice of no less weight, prices of cost, a bound on the cost of the weight)."""
        problem = self.problem
        weight = problem.weight_of(chosen)
        optimum = solve_lp_prices(problem, DualObjective(0.0, 1.0, weight), max_weight=max_weight, seed=self.seed)
        reduced_profits = cost_profits(problem, optimum.prices)
        chosen = max(chosen, self.completed(reduced_profits, chosen, objective), key=self.key)
        if not self._many_sites:  # rounding loses more weight on many sites than it can make up for
            rounded = self.completed(reduced_profits, round_fractional(problem, optimum.selected), objective)
            chosen = max(chosen, rounded, key=self.key)
        cost_bound = -dual_bound(problem, DualObjective(0.0, 1.0, weight), optimum.prices)
        gained = problem.weight_of(chosen)
        if gained > weight * (1 + WEIGHT_TOLERANCE):  # the bound for less weight holds, but is loose
            cost_bound = max(cost_bound, -dual_bound(problem, DualObjective(0.0, 1.0, gained), optimum.prices))
        return chosen, optimum.prices, cost_bound

    def key(self, chosen: IntArray) -> tuple[float, float]:
        """Return the key by which choices are compared: weight, then negative cost."""
        return round(self.problem.weight_of(chosen), 9), -self.problem.cost_usd_per_h_of(chosen)


def cost_profits(problem: RelaxedProblem, prices: Prices) -> ReducedProfits:
    """Return the reduced profits at prices of cost, in which a price of weight is the value of a served query."""
    return ReducedProfits.at(problem, DualObjective(prices.weight, 1.0), replace(prices, weight=0.0))


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
    bound = min(bound, problem.servable_weight)
    weights = IntegerWeights.of(problem.weight) if weights is None else weights
    if weights.rounding or not math.isfinite(bound):
        return bound
    return math.floor(bound / weights.unit + _UNIT_TOLERANCE) * weights.unit
