"""What plans are compared by where margins count: amounts, latency and accuracy as one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.planning.search_space import SearchSpace

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class PlanMetrics:
    """How plans of one query become points; less is better in every coordinate."""

    columns: IntArray
    """The resource columns that count."""
    rank: IntArray
    """(configurations,) 0 for the most accurate ones; all 0 where the query has no accuracy objective."""
    tolerance: float
    """Share of an amount, and of the latency limit, by which a plan must gain to count as better."""
    slack_s: float
    """The same in seconds; infinite where the query has no latency objective."""

    @classmethod
    def of(cls, space: SearchSpace, shortfall: FloatArray, tolerance: float) -> PlanMetrics:
        """For one query.

        Args:
            space: of the query.
            shortfall: (configurations,) by how much each misses the accuracy objective.
            tolerance: 0: every resource counts and nothing is thinned; else only cost, alone and fully shared.
        """
        costs = np.array([space.columns.shared_cost, space.columns.alone_cost])
        return cls(
            columns=costs if tolerance > 0 else np.arange(space.columns.count),
            rank=np.unique(shortfall, return_inverse=True)[1].astype(np.int64),
            tolerance=tolerance,
            slack_s=tolerance * space.limit_s if np.isfinite(space.limit_s) else np.inf,
        )

    def points(self, configuration: IntArray, resources: FloatArray, latency_s: FloatArray) -> FloatArray:
        """(n, columns + 2) amounts, latency and accuracy.

        Args:
            configuration: (n,)
            resources: (n, resource columns)
            latency_s: (n,) upper bounds of the percentile.
        """
        latency_s = latency_s if np.isfinite(self.slack_s) else np.zeros(len(resources))
        return np.column_stack([resources[:, self.columns], latency_s, self.rank[configuration]])

    def with_tolerance(self, points: FloatArray) -> FloatArray:
        """The same points moved up by what does not count: what is nowhere above them beats them."""
        moved = points * (1 + self.tolerance)
        moved[:, -2] = points[:, -2] + (self.slack_s if np.isfinite(self.slack_s) else 0.0)
        moved[:, -1] = points[:, -1]
        return moved
