"""Arrivals at two rates that take turns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.errors import PlanningError
from circinus.queueing.arrivals.process import FloatArray, positive

_SHORT = 1e-4
"""Below this many changes of phase in a window, 1 - (1 - exp(-x)) / x is lost in rounding; a series is not."""


@dataclass(frozen=True)
class MarkovModulated:
    """A Markov-modulated Poisson process of two phases, each exponentially long (Fischer and Meier-Hellstern, The
    Markov-modulated Poisson process cookbook, 1993).

    Raises:
        PlanningError: no rate is above 0, one is below, or a duration is not a finite number above 0.
    """

    rates_per_s: tuple[float, float]
    """Arrivals per second in either phase."""
    durations_s: tuple[float, float]
    """How long either phase lasts in the mean."""

    def __post_init__(self) -> None:
        positive("a duration", *self.durations_s)
        positive("a rate", max(self.rates_per_s))
        if not min(self.rates_per_s) >= 0:
            raise PlanningError(f"found a rate of {min(self.rates_per_s):g}/s, expected at least 0")

    @property
    def shares(self) -> tuple[float, float]:
        """Of the time that is spent in either phase."""
        first, second = self.durations_s
        return first / (first + second), second / (first + second)

    @property
    def rate_per_s(self) -> float:
        """Mean over both phases."""
        return self.rates_per_s[0] * self.shares[0] + self.rates_per_s[1] * self.shares[1]

    @property
    def memory_s(self) -> float:
        """After how long the covariance of the rate is down by a factor e."""
        return 1.0 / (1.0 / self.durations_s[0] + 1.0 / self.durations_s[1])

    @property
    def burst(self) -> int:
        """The phase with the greater rate."""
        return int(self.rates_per_s[1] > self.rates_per_s[0])

    @property
    def unevenness(self) -> float:
        """Variance of the rate times how long it lasts, per second: how much it makes queues vary."""
        first, second = self.shares
        return first * second * (self.rates_per_s[0] - self.rates_per_s[1]) ** 2 * self.memory_s

    def beside(self, rate_per_s: float) -> MarkovModulated:
        """With more arrivals that come evenly as a Poisson process."""
        return MarkovModulated((self.rates_per_s[0] + rate_per_s, self.rates_per_s[1] + rate_per_s), self.durations_s)

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """(n,) ascending moments in [0, `duration_s`), beginning in a phase drawn with its share of time."""
        first = int(rng.random() >= self.shares[0])
        ends_s = np.empty(0)
        while not len(ends_s) or ends_s[-1] < duration_s:
            # An even number each time, so that every draw begins with the same phase.
            pairs = 1 + int(duration_s / sum(self.durations_s))
            means_s = np.tile([self.durations_s[first], self.durations_s[1 - first]], pairs)
            begin_s = ends_s[-1] if len(ends_s) else 0.0
            ends_s = np.append(ends_s, begin_s + np.cumsum(rng.exponential(means_s)))
        ends_s = np.minimum(ends_s[: np.searchsorted(ends_s, duration_s) + 1], duration_s)
        begins_s = np.append(0.0, ends_s[:-1])
        rates = np.resize([self.rates_per_s[first], self.rates_per_s[1 - first]], len(ends_s))
        counts = rng.poisson(rates * (ends_s - begins_s))
        return np.sort(rng.uniform(np.repeat(begins_s, counts), np.repeat(ends_s, counts)))

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """(w,) by the closed form of Heffes and Lucantoni, A Markov Modulated Characterization of Packetized Voice and
        Data Traffic, 1986."""
        share, other = self.shares
        variance = share * other * (self.rates_per_s[0] - self.rates_per_s[1]) ** 2
        return 1.0 + 2.0 * variance * self.memory_s / self.rate_per_s * saturation(windows_s / self.memory_s)

    def scaled(self, factor: float) -> MarkovModulated:
        """More or fewer requests in phases that last as long as before."""
        first, second = self.rates_per_s
        return MarkovModulated((first * factor, second * factor), self.durations_s)


def saturation(lengths: FloatArray) -> FloatArray:
    """1 - (1 - exp(-x)) / x: how much of its limit the index of dispersion has reached in windows x memories long."""
    x = np.asarray(lengths, dtype=np.float64)
    long = np.maximum(x, _SHORT)
    return np.where(x < _SHORT, x / 2 - x**2 / 6, 1.0 + np.expm1(-long) / long)
