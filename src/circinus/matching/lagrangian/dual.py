"""The dual of the relaxed matching: a bound on every choice at any prices.

Maximize the value of the chosen plans, at most one for each query, subject to a usage of at most 1 of every resource.
For any prices L >= 0, sum(L) + sum over queries of max(0, value of a plan - L @ its usage) is an upper bound on that.
Its minimum over the prices is the optimum of the linear relaxation, whose duals are the optimal prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from circinus.arrays import FloatArray
from circinus.matching.lagrangian.relaxed_problem import Amounts, RelaxedProblem
from circinus.matching.tolerances import CAPACITY_TOLERANCE

_BATCH = 512
"""Number of classes per batch, so that its amounts stay in the processor's cache."""


@dataclass(frozen=True)
class DualObjective:
    """Objective of a served query: `weight` times its weight, minus `cost` times its plan's cost.

    With a minimum total weight, the dual has a price for it.
    """

    weight: float
    cost: float
    min_weight: float | None = None


@dataclass(frozen=True, eq=False)
class Prices:
    """Dual prices of all resources, in the objective's units per whole capacity."""

    local: FloatArray
    """(sites, local) >= 0"""
    shared: FloatArray
    """(shared,) >= 0"""
    weight: float = 0.0
    """>= 0, price of a unit of weight beyond the objective if a minimum weight binds."""

    @cached_property
    def by_resource(self) -> FloatArray:
        """(capacities,) prices of all sites' own resources, then of shared ones."""
        return np.concatenate([self.local.reshape(-1), self.shared])

    @classmethod
    def zero(cls, problem: RelaxedProblem) -> Prices:
        """Return prices of 0."""
        return cls(np.zeros((problem.sites, problem.local)), np.zeros(problem.shared))


def dual_bound(problem: RelaxedProblem, objective: DualObjective, prices: Prices) -> float:
    """Return an upper bound on the value of any choice, even of divisible queries; valid at any prices.

    In double precision, and also for choices that exceed capacities by the rounding tolerance.
    """
    total = 0.0
    for rows, values in reduced_profits(problem, objective, prices, np.float64):
        total += float(np.maximum(values.max(axis=1), 0.0) @ problem.multiplicity[rows])
    return total + value_of_capacities(objective, prices)


def value_of_capacities(objective: DualObjective, prices: Prices) -> float:
    """Return the part of the dual bound that no query has: all capacities at their prices, less a minimum weight."""
    floor = 0.0 if objective.min_weight is None else prices.weight * objective.min_weight
    return float((prices.local.sum() + prices.shared.sum()) * (1.0 + CAPACITY_TOLERANCE) - floor)


def reduced_profits(
    problem: RelaxedProblem,
    objective: DualObjective,
    prices: Prices,
    precision: type[np.floating[Any]] | None = None,
) -> Iterator[tuple[slice, Amounts]]:
    """Yield classes and their (classes, P) values minus payments; -inf if there is no plan.

    Args:
        problem: the queries.
        objective: of the values.
        prices: of the resources.
        precision: of the result; None: that of the amounts.
    """
    for start in range(0, problem.classes, _BATCH):
        rows = slice(start, start + _BATCH)
        amounts = problem.amounts[rows] if precision is None else problem.amounts[rows].astype(precision, copy=False)
        dtype = amounts.dtype.type
        value = ((objective.weight + prices.weight) * problem.weight[rows]).astype(dtype)
        # The minimum factor keeps the infinite cost of a missing plan infinite.
        cost = problem.cost_usd_per_h[rows].astype(dtype) * dtype(max(objective.cost, 1e-30))
        if problem.local:
            slot_prices = prices.by_resource[problem.resources[rows]].astype(dtype)
            payments = np.matmul(amounts, slot_prices[:, :, None])[:, :, 0]
        else:
            flat = amounts.reshape(-1, amounts.shape[2])
            payments = (flat @ prices.shared.astype(dtype)).reshape(amounts.shape[:2])
        yield rows, value[:, None] - cost - payments
