"""Interface of arrival processes, with Poisson and periodic arrivals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.queueing.arrivals.validation import require_positive
from circinus.queueing.fcfs import are_compiled_loops_loaded


class ArrivalProcess(Protocol):
    """Stationary stream of requests."""

    @property
    def rate_per_s(self) -> float:
        """Mean number of arrivals per second."""

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Return (n,) ascending arrival times in [0, `duration_s`) of one sample path with a random phase."""

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """Return the variance of the number of arrivals in a window, divided by its mean.

        This is the index of dispersion for counts (Cox and Lewis, The Statistical Analysis of Series of Events, 1966):
        1 for Poisson arrivals, above 1 for bursty ones, below 1 for more regular ones.

        Args:
            windows_s: (w,) lengths of windows, above 0.

        Returns:
            (w,) index.
        """

    def scaled(self, factor: float) -> Self:
        """Return the process at `factor` times the rate, `factor` above 0."""


@dataclass(frozen=True)
class Poisson:
    """Poisson process.

    Raises:
        PlanningError: the rate is not a finite number above 0.
    """

    rate_per_s: float

    def __post_init__(self) -> None:
        require_positive("rate", self.rate_per_s)

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Return (n,) ascending arrival times in [0, `duration_s`).

        Given their number, arrivals are independent and uniform (Kingman, Poisson Processes, 1993, chapter 2), and are
        drawn in this way.
        """
        times_s = rng.uniform(0.0, duration_s, rng.poisson(self.rate_per_s * duration_s))
        if not are_compiled_loops_loaded():
            return np.sort(times_s)
        from circinus.queueing.sorting_kernel import sorted_times_s

        return sorted_times_s(times_s, duration_s, self.rate_per_s)

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """Return (w,) ones."""
        return np.ones_like(windows_s, dtype=np.float64)

    def scaled(self, factor: float) -> Poisson:
        """Return the process at `factor` times the rate."""
        return Poisson(self.rate_per_s * factor)


_ROUNDING = 1e-9
"""Relative tolerance of a jitter of half a period."""
_NO_JITTER = 1e-5
"""Share of the period below which the index with jitter is lost in rounding, and that without jitter is as exact."""


@dataclass(frozen=True)
class Periodic:
    """Periodic arrivals from a random phase on, with an independent uniform jitter of each arrival.

    Raises:
        PlanningError: the rate is not a finite number above 0, or the jitter is not between 0 and half a period.
    """

    rate_per_s: float
    jitter_s: float = 0.0
    """Maximum deviation of an arrival in either direction; at most half a period, so that no arrival overtakes
    another."""

    def __post_init__(self) -> None:
        require_positive("rate", self.rate_per_s)
        if not 0 <= self.jitter_s * self.rate_per_s <= 0.5 + _ROUNDING:
            raise PlanningError(
                f"jitter must be between 0 and half of the period of {1 / self.rate_per_s:g} s, got "
                f"{self.jitter_s:g} s",
                code="arrivals.jitter_out_of_range",
            )

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Return (n,) ascending arrival times in [0, `duration_s`)."""
        # Arrivals scheduled up to half a period outside the duration may be moved into it.
        periods = np.arange(-1, math.ceil(duration_s * self.rate_per_s) + 1) + rng.random()
        times_s = periods / self.rate_per_s + rng.uniform(-self.jitter_s, self.jitter_s, len(periods))
        return np.sort(times_s[(times_s >= 0) & (times_s < duration_s)])

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """Return the (w,) index by the law of total variance over the phase u: E(var(N | u)) + var(E(N | u)).

        The probability that an arrival scheduled at x falls into the window is a trapezoid in x (a window smoothed by
        the jitter). The first term integrates p (1 - p) over it. E(N | u) is its sum over all periods, whose Fourier
        series squared sums to Bernoulli polynomials of the fourth degree (Abramowitz and Stegun, 23.1.18). Without
        jitter only f (1 - f) remains, where f is the fractional part of the window in periods.
        """
        windows = np.asarray(windows_s, dtype=np.float64) * self.rate_per_s  # in periods, as all values below
        jitter_width = min(2.0 * self.jitter_s * self.rate_per_s, 1.0)
        if jitter_width < _NO_JITTER:
            part = windows % 1.0
            return np.asarray(part * (1.0 - part) / windows)
        shorter = np.minimum(windows, jitter_width)
        # The integral of p^2, for windows longer than the width of the jitter and for shorter ones.
        squared = np.where(
            windows >= jitter_width,
            windows - jitter_width / 3,
            shorter**2 / jitter_width**2 * (jitter_width - shorter / 3),
        )
        phase_variance = _bernoulli(windows) + _bernoulli(np.float64(jitter_width))
        phase_variance = phase_variance - (_bernoulli(windows + jitter_width) + _bernoulli(windows - jitter_width)) / 2
        return np.asarray((windows - squared + phase_variance / (6 * jitter_width**2)) / windows)

    def scaled(self, factor: float) -> Periodic:
        """Return the process with compressed time: the jitter is the same share of the period."""
        return Periodic(self.rate_per_s * factor, self.jitter_s / factor)


def _bernoulli(values: FloatArray | np.float64) -> FloatArray:
    """Return x^2 (1 - x)^2 of the fractional part x: the fourth Bernoulli polynomial without its constant."""
    part = np.asarray(values % 1.0)
    return np.asarray((part * (1.0 - part)) ** 2)
