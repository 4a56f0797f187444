"""Arrivals that are independent of each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.queueing.arrivals.process import FloatArray, require_positive


@dataclass(frozen=True)
class Poisson:
    """A Poisson process.

    Raises:
        PlanningError: the rate is not a finite number above 0.
    """

    rate_per_s: float

    def __post_init__(self) -> None:
        require_positive("a rate", self.rate_per_s)

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """(n,) ascending moments in [0, `duration_s`).

        Given their number, arrivals are independent and uniform (Kingman, Poisson Processes, 1993, chapter 2): that is
        how they are drawn.
        """
        return np.sort(rng.uniform(0.0, duration_s, rng.poisson(self.rate_per_s * duration_s)))

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """(w,) ones."""
        return np.ones_like(windows_s, dtype=np.float64)

    def scaled(self, factor: float) -> Poisson:
        """At `factor` times the rate."""
        return Poisson(self.rate_per_s * factor)
