"""Finding prices for problems of any size: first for some of the queries, then for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.matching.lagrangian.dual import (
    DualObjective,
    Prices,
    dual_bound,
    reduced_profits,
    softmax_shares,
    value_scale,
)
from circinus.matching.lagrangian.newton import minimize_dual
from circinus.matching.lagrangian.relaxed_problem import RelaxedProblem
from circinus.matching.solvers.highs import LpModel, solve_lp


@dataclass(frozen=True, eq=False)
class LpPrices:
    """The best that queries may do that are divided over plans."""

    prices: Prices
    taken: FloatArray
    """(C, P) queries of each class that take each plan. At a corner of what is possible hardly more classes than there
    are resources without room have fractions."""


def solve_lp_prices(problem: RelaxedProblem, objective: DualObjective, *, time_limit_s: float = 1.0) -> LpPrices | None:
    """The optimum; None where the solver does not find it in time."""
    row, plan = np.nonzero(np.isfinite(problem.cost_usd_per_h))
    if not len(row):
        return LpPrices(Prices.zero(problem), np.zeros(problem.cost_usd_per_h.shape))
    programme = LpModel(upper=[np.inf] * len(row))
    for one in np.unique(row):
        columns = np.flatnonzero(row == one)
        programme.add_row(columns, np.ones(len(columns)), -np.inf, float(problem.multiplicity[one]))
    own = problem.site[:, None] * problem.local + np.arange(problem.local)
    shared = np.broadcast_to(
        problem.sites * problem.local + np.arange(problem.shared), (problem.classes, problem.shared)
    )
    resources = np.concatenate([own, shared], axis=1)[row]
    amounts = problem.amounts[row, plan].astype(np.float64)
    first = len(programme.row_lower)
    for resource in range(problem.sites * problem.local + problem.shared):
        column, slot = np.nonzero((resources == resource) & (amounts > 0))
        programme.add_row(column, amounts[column, slot], -np.inf, 1.0)
    if objective.least_weight is not None:
        programme.add_row(np.arange(len(row)), problem.weight[row], objective.least_weight, np.inf)
    worth = objective.weight * problem.weight[row] - objective.cost * problem.cost_usd_per_h[row, plan]
    found = solve_lp(programme, -worth, time_limit_s=time_limit_s)
    if found is None:
        return None
    values, duals = found
    prices = np.maximum(-duals[first : first + problem.sites * problem.local + problem.shared], 0.0)
    local = prices[: problem.sites * problem.local].reshape(problem.sites, problem.local)
    weight = 0.0 if objective.least_weight is None else max(float(duals[-1]), 0.0)
    taken = np.zeros(problem.cost_usd_per_h.shape)
    taken[row, plan] = np.maximum(values, 0.0)
    return LpPrices(Prices(local, prices[problem.sites * problem.local :], weight), taken)


_WARM, _COOLING = 0.2, 0.2
"""First temperature, as a share of what a query is usually worth, and factor from one to the next."""
_COLD = 1e-3
"""The last one: well above it queries are divided, below it prices stand at kinks where many plans pay equally well."""
_SHARP = 2e-4, 4e-5
"""Temperatures at which prices are sharpened for a bound."""
_FEW_QUERIES = 8_000
"""Where there are more, a single one hardly matters, and prices are sharp enough."""
EXACT_UP_TO = 500
"""Classes up to which the linear programme itself is solved for a bound: in some hundredths of a second."""
_ROUGHLY, _CLOSELY = 1e-2, 1e-4
"""Share of a capacity by which demand may miss supply at all but the last temperature, and at the last."""
_FEW, _TIMES = 2_000, 5
"""Classes a site of the smallest sample, and how many times more the next one has."""
_ROUNDING, _AMPLY = 1e-9, 1e-3
"""Shares by which sums of weights may differ, and by which a price is more than enough."""
_MOST = 1.0 - 1e-3
"""Of the weight that a sample could serve at most, what is asked of it: prices run away where it is all."""


class DualSolver:
    """Prices that nearly minimise the dual: its kinks are smoothed at a small share of what a query is usually worth.

    Prices found for a sample of the queries with capacities to match are close to those of all, so that few steps are
    taken with all of them.
    """

    def __init__(self, problem: RelaxedProblem, rng: np.random.Generator) -> None:
        """Draw the samples.

        Args:
            problem: with at least one class.
            rng: of the samples.
        """
        self._problem = problem
        self._samples = _samples(problem, rng)
        self._most: list[float] = []
        """Weight that each sample may serve at most, where it was asked."""

    def maximize_weight(self, objective: DualObjective, start: Prices | None = None) -> Prices:
        """Prices where no least weight is asked for.

        Args:
            objective: what is maximised.
            start: prices to begin with; these make samples and high temperatures unnecessary.
        """
        usual = value_scale(self._problem, objective)
        if start is not None:
            return self._cooled(self._problem, objective, start, [_COLD * usual], _CLOSELY)
        prices, temperatures = None, _cooling()
        self._most = []
        for sample in self._samples:
            prices = self._cooled(sample, objective, prices, [t * usual for t in temperatures])
            temperatures = [_COLD]
            self._most.append(dual_bound(sample, replace(objective, cost=0.0), prices) / objective.weight)
        return self._cooled(self._problem, objective, prices, [t * usual for t in temperatures], _CLOSELY)

    def minimize_cost(self, weight: float, most: float, start: Prices | None = None) -> Prices:
        """Prices in US dollars per hour at which a weight is served at least cost.

        Args:
            weight: that must be served.
            most: that may be served at most.
            start: prices to begin with.
        """
        objective = DualObjective(0.0, 1.0, weight)
        usual = value_scale(self._problem, objective)
        if start is not None:
            return self._paid_for(weight, self._cooled(self._problem, objective, start, [_COLD * usual], _CLOSELY))
        prices, temperatures = None, _cooling()
        for sample, most_here in zip(self._samples, self._most, strict=False):
            asked = most_here if weight >= self._problem.total_weight else min(weight / most, _MOST) * most_here
            asked = min(asked, sample.total_weight)
            prices = self._cooled(
                sample, replace(objective, least_weight=asked), prices, [t * usual for t in temperatures]
            )
            temperatures = [_COLD]
        found = self._cooled(self._problem, objective, prices, [t * usual for t in temperatures], _CLOSELY)
        return self._paid_for(weight, found)

    def _paid_for(self, weight: float, prices: Prices) -> Prices:
        """Where all are to be served, the price of weight as high as the dearest of them needs it: that is no loss."""
        problem, needed = self._problem, 0.0
        planned = np.asarray(np.isfinite(problem.cost_usd_per_h).any(axis=1))
        if weight < float(problem.multiplicity[planned] @ problem.weight[planned]) * (1 - _ROUNDING):
            return prices
        bare = replace(prices, weight=0.0)
        for rows, values in reduced_profits(problem, DualObjective(0.0, 1.0), bare):
            least = -values.max(axis=1)[planned[rows]] / problem.weight[rows][planned[rows]]
            needed = max(needed, float(least.max(initial=0.0)))
        return replace(prices, weight=max(prices.weight, needed * (1 + _AMPLY)))

    def polish(self, objective: DualObjective, prices: Prices) -> Prices:
        """Prices for a tighter bound: of the prices found and colder ones those that give the tightest."""
        exact = solve_lp_prices(self._problem, objective) if self._problem.classes <= EXACT_UP_TO else None
        if exact is not None:
            return min(prices, exact.prices, key=lambda found: dual_bound(self._problem, objective, found))
        if self._problem.queries > _FEW_QUERIES:
            return prices
        usual, tried = value_scale(self._problem, objective), [prices]
        for temperature in _SHARP:
            tried.append(self._cooled(self._problem, objective, tried[-1], [temperature * usual], _CLOSELY))
        return min(tried, key=lambda found: dual_bound(self._problem, objective, found))

    def fractional_primal(self, objective: DualObjective, prices: Prices) -> FloatArray:
        """(C, P) queries of each class that take each plan where queries may be divided, at best or nearly so."""
        problem = self._problem
        exact = solve_lp_prices(problem, objective) if problem.classes <= EXACT_UP_TO else None
        if exact is not None:
            return exact.taken
        temperature = _COLD * value_scale(problem, objective)
        return softmax_shares(problem, objective, prices, temperature) * problem.multiplicity[:, None]

    @staticmethod
    def _cooled(
        problem: RelaxedProblem,
        objective: DualObjective,
        prices: Prices | None,
        temperatures: Sequence[float],
        tolerance: float = _ROUGHLY,
    ) -> Prices:
        found = Prices.zero(problem) if prices is None else prices
        for temperature in temperatures:
            last = temperature == temperatures[-1]
            found = minimize_dual(problem, objective, found, temperature, tolerance=tolerance if last else _ROUGHLY)
        return found


def _cooling() -> list[float]:
    temperatures = [_WARM]
    while temperatures[-1] > _COLD:
        temperatures.append(max(temperatures[-1] * _COOLING, _COLD))
    return temperatures


def _samples(problem: RelaxedProblem, rng: np.random.Generator) -> tuple[RelaxedProblem, ...]:
    """Smaller problems with the same prices, about; none where the problem is small itself."""
    found, size = [], _FEW * problem.sites
    while size * _TIMES <= problem.classes:
        kept = np.sort(rng.choice(problem.classes, size, replace=False))
        part = problem.part(kept)
        found.append(replace(part, multiplicity=part.multiplicity * (problem.queries / part.queries)))
        size *= _TIMES
    return tuple(found)
