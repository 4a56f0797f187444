"""Dual ascent for problems of any size: prices of samples first, then of all queries."""

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
from circinus.matching.solvers.highs import LpModel, LpRelaxation
from circinus.matching.tolerances import WEIGHT_TOLERANCE


@dataclass(frozen=True, eq=False)
class LpPrices:
    """Primal and dual optimum of the linear relaxation."""

    prices: Prices
    selected: FloatArray
    """(C, P) queries of each class that choose each plan. At a vertex, hardly more classes than there are exhausted
    resources have fractions."""


def solve_lp_prices(problem: RelaxedProblem, objective: DualObjective, *, time_limit_s: float = 1.0) -> LpPrices | None:
    """Solve the linear relaxation, or return None if the solver does not finish in time."""
    row, plan = np.nonzero(np.isfinite(problem.cost_usd_per_h))
    if not len(row):
        return LpPrices(Prices.zero(problem), np.zeros(problem.cost_usd_per_h.shape))
    programme = LpModel(upper=[np.inf] * len(row))
    for query_class in np.unique(row):
        columns = np.flatnonzero(row == query_class)
        programme.add_row(columns, np.ones(len(columns)), -np.inf, float(problem.multiplicity[query_class]))
    own = problem.site[:, None] * problem.local + np.arange(problem.local)
    shared = np.broadcast_to(
        problem.sites * problem.local + np.arange(problem.shared), (problem.classes, problem.shared)
    )
    resources = np.concatenate([own, shared], axis=1)[row]
    amounts = problem.amounts[row, plan].astype(np.float64)
    first_resource_row = len(programme.row_lower)
    for resource in range(problem.sites * problem.local + problem.shared):
        column, slot = np.nonzero((resources == resource) & (amounts > 0))
        programme.add_row(column, amounts[column, slot], -np.inf, 1.0)
    if objective.min_weight is not None:
        programme.add_row(np.arange(len(row)), problem.weight[row], objective.min_weight, np.inf)
    value = objective.weight * problem.weight[row] - objective.cost * problem.cost_usd_per_h[row, plan]
    solution = LpRelaxation(programme, -value, seed=0).solve(time_limit_s)
    if solution is None:
        return None
    values, duals = solution.values, solution.row_duals
    prices = np.maximum(
        -duals[first_resource_row : first_resource_row + problem.sites * problem.local + problem.shared], 0.0
    )
    local = prices[: problem.sites * problem.local].reshape(problem.sites, problem.local)
    weight = 0.0 if objective.min_weight is None else max(float(duals[-1]), 0.0)
    selected = np.zeros(problem.cost_usd_per_h.shape)
    selected[row, plan] = np.maximum(values, 0.0)
    return LpPrices(Prices(local, prices[problem.sites * problem.local :], weight), selected)


_INITIAL_TEMPERATURE, _COOLING_FACTOR = 0.2, 0.2
"""Initial temperature, as a share of the value scale, and factor between temperatures."""
_FINAL_TEMPERATURE = 1e-3
"""Final temperature: well above it queries are divided, below it prices stand at kinks where many plans tie."""
_POLISH_TEMPERATURES = 2e-4, 4e-5
"""Temperatures at which prices are polished for a bound."""
_MAX_POLISHED_QUERIES = 8_000
"""Maximum number of queries for polishing; with more, a single query hardly matters."""
MAX_EXACT_CLASSES = 500
"""Maximum number of classes for which the linear program is solved: in some hundredths of a second."""
_COARSE_TOLERANCE, _FINE_TOLERANCE = 1e-2, 1e-4
"""Share of a capacity by which demand may miss supply, at all but the last temperature and at the last."""
_SAMPLE_CLASSES, _SAMPLE_GROWTH = 2_000, 5
"""Number of classes per site in the smallest sample, and growth factor of samples."""
_PRICE_MARGIN = 1e-3
"""Relative margin on a price."""
_MAX_SAMPLE_WEIGHT_SHARE = 1.0 - 1e-3
"""Maximum share of a sample's servable weight that is demanded: prices diverge at 1."""


class DualSolver:
    """Solver of the dual: finds nearly optimal prices by smoothing its kinks at a small share of the value scale.

    Prices of a sample of the queries, with capacities to match, are close to those of all queries, so that only a few
    steps are needed with all of them.
    """

    def __init__(self, problem: RelaxedProblem, rng: np.random.Generator) -> None:
        """Draw the samples.

        Args:
            problem: with at least one class.
            rng: of the samples.
        """
        self._problem = problem
        self._samples = _samples(problem, rng)
        self._max_weights: list[float] = []
        """Bound on the servable weight of each sample, set by `maximize_weight`."""

    def maximize_weight(self, objective: DualObjective, start: Prices | None = None) -> Prices:
        """Return prices without a minimum weight.

        Args:
            objective: to be maximized.
            start: initial prices; they make samples and high temperatures unnecessary.
        """
        scale = value_scale(self._problem, objective)
        if start is not None:
            return self._cooled(self._problem, objective, start, [_FINAL_TEMPERATURE * scale], _FINE_TOLERANCE)
        prices, temperatures = None, _temperatures()
        self._max_weights = []
        for sample in self._samples:
            prices = self._cooled(sample, objective, prices, [t * scale for t in temperatures])
            temperatures = [_FINAL_TEMPERATURE]
            self._max_weights.append(dual_bound(sample, replace(objective, cost=0.0), prices) / objective.weight)
        return self._cooled(self._problem, objective, prices, [t * scale for t in temperatures], _FINE_TOLERANCE)

    def minimize_cost(self, weight: float, max_weight: float, start: Prices | None = None) -> Prices:
        """Return prices in US dollars per hour at which a weight is served at minimum cost.

        Args:
            weight: that must be served.
            max_weight: upper bound on the weight.
            start: initial prices.
        """
        objective = DualObjective(0.0, 1.0, weight)
        scale = value_scale(self._problem, objective)
        if start is not None:
            return self._raise_weight_price(
                weight, self._cooled(self._problem, objective, start, [_FINAL_TEMPERATURE * scale], _FINE_TOLERANCE)
            )
        prices, temperatures = None, _temperatures()
        for sample, sample_max_weight in zip(self._samples, self._max_weights, strict=False):
            sample_weight = (
                sample_max_weight
                if weight >= self._problem.total_weight
                else min(weight / max_weight, _MAX_SAMPLE_WEIGHT_SHARE) * sample_max_weight
            )
            sample_weight = min(sample_weight, sample.total_weight)
            prices = self._cooled(
                sample, replace(objective, min_weight=sample_weight), prices, [t * scale for t in temperatures]
            )
            temperatures = [_FINAL_TEMPERATURE]
        prices = self._cooled(self._problem, objective, prices, [t * scale for t in temperatures], _FINE_TOLERANCE)
        return self._raise_weight_price(weight, prices)

    def _raise_weight_price(self, weight: float, prices: Prices) -> Prices:
        """Raise the price of weight to the need of the most expensive query if all must be served, without loss."""
        problem, required_price = self._problem, 0.0
        has_plan = np.asarray(np.isfinite(problem.cost_usd_per_h).any(axis=1))
        if weight < float(problem.multiplicity[has_plan] @ problem.weight[has_plan]) * (1 - WEIGHT_TOLERANCE):
            return prices
        without_weight_price = replace(prices, weight=0.0)
        for rows, values in reduced_profits(problem, DualObjective(0.0, 1.0), without_weight_price):
            required = -values.max(axis=1)[has_plan[rows]] / problem.weight[rows][has_plan[rows]]
            required_price = max(required_price, float(required.max(initial=0.0)))
        return replace(prices, weight=max(prices.weight, required_price * (1 + _PRICE_MARGIN)))

    def polish(self, objective: DualObjective, prices: Prices) -> Prices:
        """Return the prices with the tightest bound among the given ones and ones of lower temperatures."""
        exact = solve_lp_prices(self._problem, objective) if self._problem.classes <= MAX_EXACT_CLASSES else None
        if exact is not None:
            return min(prices, exact.prices, key=lambda candidate: dual_bound(self._problem, objective, candidate))
        if self._problem.queries > _MAX_POLISHED_QUERIES:
            return prices
        scale, attempts = value_scale(self._problem, objective), [prices]
        for temperature in _POLISH_TEMPERATURES:
            attempts.append(
                self._cooled(self._problem, objective, attempts[-1], [temperature * scale], _FINE_TOLERANCE)
            )
        return min(attempts, key=lambda candidate: dual_bound(self._problem, objective, candidate))

    def fractional_primal(self, objective: DualObjective, prices: Prices) -> FloatArray:
        """Return (C, P) queries of each class that choose each plan if queries are divisible, nearly optimal."""
        problem = self._problem
        exact = solve_lp_prices(problem, objective) if problem.classes <= MAX_EXACT_CLASSES else None
        if exact is not None:
            return exact.selected
        temperature = _FINAL_TEMPERATURE * value_scale(problem, objective)
        return softmax_shares(problem, objective, prices, temperature) * problem.multiplicity[:, None]

    @staticmethod
    def _cooled(
        problem: RelaxedProblem,
        objective: DualObjective,
        prices: Prices | None,
        temperatures: Sequence[float],
        tolerance: float = _COARSE_TOLERANCE,
    ) -> Prices:
        current = Prices.zero(problem) if prices is None else prices
        for temperature in temperatures:
            is_last = temperature == temperatures[-1]
            current = minimize_dual(
                problem, objective, current, temperature, tolerance=tolerance if is_last else _COARSE_TOLERANCE
            )
        return current


def _temperatures() -> list[float]:
    temperatures = [_INITIAL_TEMPERATURE]
    while temperatures[-1] > _FINAL_TEMPERATURE:
        temperatures.append(max(temperatures[-1] * _COOLING_FACTOR, _FINAL_TEMPERATURE))
    return temperatures


def _samples(problem: RelaxedProblem, rng: np.random.Generator) -> tuple[RelaxedProblem, ...]:
    """Return smaller problems with approximately the same prices; none if the problem is small itself."""
    samples, size = [], _SAMPLE_CLASSES * problem.sites
    while size * _SAMPLE_GROWTH <= problem.classes:
        drawn = np.sort(rng.choice(problem.classes, size, replace=False))
        sample = problem.part(drawn)
        samples.append(replace(sample, multiplicity=sample.multiplicity * (problem.queries / sample.queries)))
        size *= _SAMPLE_GROWTH
    return tuple(samples)
