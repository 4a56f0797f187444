"""Metrics of plans if margins count: resource amounts, latency and accuracy as one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.planning.search_space import SearchSpace


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
