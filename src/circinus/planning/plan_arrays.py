"""Complete plans of one query as arrays, and as points whose margins count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.planning.dominance import nondominated
from circinus.planning.search_space import SearchSpace
from circinus.specification import QueryPlan


@dataclass(frozen=True, eq=False)
class PlanArrays:
    """The n complete plans."""

    configuration: IntArray
    """(n,) indexes into the configurations of the space."""
    pools: IntArray
    """(n, operators)"""
    options: IntArray
    """(n, operators) indexes into the allocations of the operators' option tables."""
    resources: FloatArray
    """(n, columns)"""

    @classmethod
    def none(cls, space: SearchSpace) -> PlanArrays:
        """Return an empty set of plans."""
        operators = len(space.arrays.order)
        nothing = np.zeros((0, operators), dtype=np.int64)
        return cls(np.zeros(0, dtype=np.int64), nothing, nothing, np.zeros((0, space.columns.count)))

    @classmethod
    def joined(cls, *parts: PlanArrays) -> PlanArrays:
        """Return the concatenation of several sets of plans."""
        return cls(
            np.concatenate([part.configuration for part in parts]),
            np.concatenate([part.pools for part in parts]),
            np.concatenate([part.options for part in parts]),
            np.concatenate([part.resources for part in parts]),
        )

    @property
    def count(self) -> int:
        return len(self.configuration)

    @property
    def keys(self) -> IntArray:
        """(n, 1 + 2 operators) identifying key of each plan."""
        return np.column_stack([self.configuration, self.pools, self.options])

    def take(self, rows: IntArray | BoolArray) -> PlanArrays:
        return PlanArrays(self.configuration[rows], self.pools[rows], self.options[rows], self.resources[rows])

    def merged_with(self, additional: PlanArrays) -> PlanArrays:
        """Return the union with `additional`, without dominated plans."""
        if not additional.count:
            return self
        all_plans = PlanArrays.joined(self, additional)
        return all_plans.take(nondominated(all_plans.resources))

    def plan(self, space: SearchSpace, index: int) -> QueryPlan:
        """Return one plan with the names of pools and allocations."""
        arrays = space.arrays
        names = [operator.name for operator in arrays.order]
        pools = [space.columns.pools[pool].name for pool in self.pools[index].tolist()]
        allocations = [
            table.allocations[option] for table, option in zip(space.options, self.options[index].tolist(), strict=True)
        ]
        return QueryPlan(
            pipeline=space.query.pipeline,
            configuration=arrays.configurations[int(self.configuration[index])].configuration,
            placement=tuple(sorted(zip(names, pools, strict=True))),
            allocations=tuple(sorted(zip(names, allocations, strict=True))),
        )


@dataclass(frozen=True, eq=False)
class PlanMetrics:
    """Mapping from plans of one query to points; smaller is better in every coordinate."""

    columns: IntArray
    """Resource columns that count."""
    rank: IntArray
    """(configurations,) accuracy rank, 0 for the most accurate; all 0 without an accuracy SLO."""
    tolerance: float
    """Minimum gain to count as better, as a share of an amount or of the latency limit."""
    slack_s: float
    """The tolerance in seconds; infinite without a latency SLO."""

    @classmethod
    def of(cls, space: SearchSpace, shortfall: FloatArray, tolerance: float) -> PlanMetrics:
        """Return the metrics of one query.

        With tolerance 0 every resource counts and no plan is dropped; otherwise only the costs count.
        """
        costs = np.array([space.columns.shared_cost, space.columns.dedicated_cost])
        return cls(
            columns=costs if tolerance > 0 else np.arange(space.columns.count),
            rank=np.unique(shortfall, return_inverse=True)[1].astype(np.int64),
            tolerance=tolerance,
            slack_s=tolerance * space.limit_s if np.isfinite(space.limit_s) else np.inf,
        )

    def points(self, configuration: IntArray, resources: FloatArray, latency_s: FloatArray) -> FloatArray:
        """Return (n, columns + 2) points: amounts, latency and accuracy rank."""
        latency_s = latency_s if np.isfinite(self.slack_s) else np.zeros(len(resources))
        return np.column_stack([resources[:, self.columns], latency_s, self.rank[configuration]])

    def with_tolerance(self, points: FloatArray) -> FloatArray:
        """Return the points raised by the tolerance: a point nowhere above the result dominates the original."""
        raised = points * (1 + self.tolerance)
        raised[:, -2] = points[:, -2] + (self.slack_s if np.isfinite(self.slack_s) else 0.0)
        raised[:, -1] = points[:, -1]
        return raised
