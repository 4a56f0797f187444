"""What every arrival process can tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError


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


_ROUNDING = 1e-9
"""A jitter of half a period may be computed as so much more of it."""
_NO_JITTER = 1e-5
"""Below this share of the period the index with jitter is lost in rounding, and that without jitter is as exact."""


@dataclass(frozen=True)
class Periodic:
    """One arrival a period from a random phase on, moved by a uniform jitter that is independent of the others'.

    Raises:
        PlanningError: the rate is not a finite number above 0, or the jitter is not between 0 and half a period.
    """

    rate_per_s: float
    jitter_s: float = 0.0
    """Every arrival is earlier or later by up to this; at most half a period, so that none overtakes another."""

    def __post_init__(self) -> None:
        require_positive("a rate", self.rate_per_s)
        if not 0 <= self.jitter_s * self.rate_per_s <= 0.5 + _ROUNDING:
            raise PlanningError(
                f"found a jitter of {self.jitter_s:g} s at {self.rate_per_s:g}/s, expected at least 0 and at most half "
                f"of the {1 / self.rate_per_s:g} s between two arrivals"
            )

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """(n,) ascending moments in [0, `duration_s`)."""
        # What is due up to half a period before and after may be moved into the time asked for.
        places = np.arange(-1, math.ceil(duration_s * self.rate_per_s) + 1) + rng.random()
        times_s = places / self.rate_per_s + rng.uniform(-self.jitter_s, self.jitter_s, len(places))
        return np.sort(times_s[(times_s >= 0) & (times_s < duration_s)])

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """(w,) by the law of total variance over the phase u: E(var(N | u)) + var(E(N | u)).

        The probability that an arrival due at x falls into the window is a trapezoid in x (a window smoothed by the
        jitter). The first term integrates p (1 - p) over it. E(N | u) is its sum over all periods, whose Fourier
        series squared sums to Bernoulli polynomials of the fourth degree (Abramowitz and Stegun, 23.1.18). Without
        jitter only f (1 - f) is left, with f the part of a period that the window has beside whole ones.
        """
        windows = np.asarray(windows_s, dtype=np.float64) * self.rate_per_s  # in periods, as all below
        spread = min(2.0 * self.jitter_s * self.rate_per_s, 1.0)
        if spread < _NO_JITTER:
            part = windows % 1.0
            return np.asarray(part * (1.0 - part) / windows)
        shorter = np.minimum(windows, spread)
        # The integral of p^2, for windows longer than the spread of an arrival (above) and for shorter ones.
        squared = np.where(windows >= spread, windows - spread / 3, shorter**2 / spread**2 * (spread - shorter / 3))
        of_phase = _bernoulli(windows) + _bernoulli(np.float64(spread))
        of_phase = of_phase - (_bernoulli(windows + spread) + _bernoulli(windows - spread)) / 2
        return np.asarray((windows - squared + of_phase / (6 * spread**2)) / windows)

    def scaled(self, factor: float) -> Periodic:
        """Time compressed: the jitter is the same share of the period."""
        return Periodic(self.rate_per_s * factor, self.jitter_s / factor)


def _bernoulli(places: FloatArray | np.float64) -> FloatArray:
    """x^2 (1 - x)^2 of the broken part x: the fourth Bernoulli polynomial without its constant, which cancels."""
    part = np.asarray(places % 1.0)
    return np.asarray((part * (1.0 - part)) ** 2)
