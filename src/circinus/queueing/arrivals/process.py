"""What every arrival process can tell."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from circinus.errors import PlanningError

FloatArray = NDArray[np.float64]


class ArrivalProcess(Protocol):
    """A stationary stream of requests."""

    @property
    def rate_per_s(self) -> float:
        """Mean number of arrivals per second."""

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """(n,) ascending moments in [0, `duration_s`) of one draw, seen from a moment chosen at random."""

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """The variance of the number of arrivals in a window over its mean.

        The index of dispersion for counts (Cox and Lewis, The Statistical Analysis of Series of Events, 1966): 1 for
        Poisson arrivals, above for bursts, below for what is more even.

        Args:
            windows_s: (w,) lengths of windows, above 0.

        Returns:
            (w,)
        """

    def scaled(self, factor: float) -> Self:
        """The same at `factor` times the rate, `factor` above 0."""


def require_positive(what: str, *values: float) -> None:
    """Raise PlanningError where one of `values` is not a finite number above 0."""
    wrong = [value for value in values if not 0 < value < float("inf")]
    if wrong:
        raise PlanningError(f"found {what} of {wrong[0]:g}, expected a finite number above 0")
