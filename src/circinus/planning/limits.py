"""What plans must keep to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.planning.dominance import DOMINANCE_TOLERANCE
from circinus.planning.space import SearchSpace

FloatArray = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Limits:
    """A latency limit and a capacity for every resource column."""

    latency_s: float
    """For the upper bound of the percentile; infinite: none."""
    capacity: FloatArray
    """(columns,)"""

    @classmethod
    def of(cls, space: SearchSpace, *, latency: bool = True, cost: bool = True) -> Limits:
        """Those of the space's query; without its latency or cost objective where that is to give way."""
        capacity = space.columns.capacity.copy()
        slo = space.query.slos.cost
        if cost and slo is not None:
            capacity[space.columns.shared_cost] = slo.limit_usd_per_h
        return cls(space.limit_s if latency else np.inf, capacity)

    def satisfied(self, resources: FloatArray) -> NDArray[np.bool_]:
        """(n,) which of (n, columns) keep every capacity."""
        return np.asarray((resources <= self.capacity * (1 + DOMINANCE_TOLERANCE)).all(axis=1))
