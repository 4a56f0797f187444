"""Arrivals at two rates that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.queueing.arrivals.process import require_positive

_SHORT = 1e-4
"""Below this many changes of phase in a window, 1 - (1 - exp(-x)) / x is lost in rounding; a series is not."""


@dataclass(frozen=True)
class MarkovModulatedPoisson:
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
        require_positive("a duration", *self.durations_s)
        require_positive("a rate", max(self.rates_per_s))
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
    def variance(self) -> float:
        """Of the rate, in (requests per second) squared."""
        first, second = self.shares
        return first * second * (self.rates_per_s[0] - self.rates_per_s[1]) ** 2

    @property
    def third_moment(self) -> float:
        """The third central moment of the rate."""
        first, second = self.shares
        return first * second * (second - first) * (self.rates_per_s[0] - self.rates_per_s[1]) ** 3

    @classmethod
    def of_moments(
        cls, rate_per_s: float, variance: float, third_moment: float, memory_s: float, *, least_share: float = 0.0
    ) -> MarkovModulatedPoisson:
        """The two phases whose rate has these moments, as far as it can without a rate below 0.

        Args:
            rate_per_s: mean.
            variance: of the rate, above 0.
            third_moment: the third central one of the rate.
            memory_s: see `MarkovModulated.memory_s`.
            least_share: of the time that is spent in bursts.
        """
        deviation = variance**0.5
        skewness = third_moment / deviation**3
        # 1 - s / (4 + s^2)^0.5 loses all digits where bursts are rare.
        root = (4 + skewness**2) ** 0.5
        share = 2 / (root * (root + skewness)) if skewness > 0 else (1 - skewness / root) / 2
        share = min(max(share, least_share), 1 / (1 + variance / rate_per_s**2))
        in_burst = rate_per_s + deviation * ((1 - share) / share) ** 0.5
        calm = max(0.0, rate_per_s - deviation * (share / (1 - share)) ** 0.5)
        return cls((in_burst, calm), (memory_s / (1 - share), memory_s / share))

    @classmethod
    def superpose(cls, streams: Sequence[MarkovModulatedPoisson], beside_per_s: float) -> MarkovModulatedPoisson:
        """Several independent streams as one, beside `beside_per_s` more arrivals of a Poisson process.

        Of several with the mean, variance and third central moment that the sum of their rates has, and with a memory
        that gives the same index of dispersion over long windows (as Heffes and Lucantoni, 1986, match sources of
        packetized voice).
        """
        if len(streams) == 1:
            return streams[0].superpose_poisson(beside_per_s)
        rate_per_s = sum(stream.rate_per_s for stream in streams) + beside_per_s
        variance = sum(stream.variance for stream in streams)
        if variance <= 0:
            return cls((rate_per_s, rate_per_s), streams[0].durations_s)
        third_moment = sum(stream.third_moment for stream in streams)
        memory_s = sum(stream.variance * stream.memory_s for stream in streams) / variance
        return cls.of_moments(rate_per_s, variance, third_moment, memory_s)

    def superpose_poisson(self, rate_per_s: float) -> MarkovModulatedPoisson:
        """With more arrivals that come evenly as a Poisson process."""
        return MarkovModulatedPoisson(
            (self.rates_per_s[0] + rate_per_s, self.rates_per_s[1] + rate_per_s), self.durations_s
        )

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
        return 1.0 + 2.0 * self.variance * self.memory_s / self.rate_per_s * idc_saturation(windows_s / self.memory_s)

    def scaled(self, factor: float) -> MarkovModulatedPoisson:
        """More or fewer requests in phases that last as long as before."""
        first, second = self.rates_per_s
        return MarkovModulatedPoisson((first * factor, second * factor), self.durations_s)


def idc_saturation(lengths: FloatArray) -> FloatArray:
    """1 - (1 - exp(-x)) / x: how much of its limit the index of dispersion has reached in windows x memories long."""
    x = np.asarray(lengths, dtype=np.float64)
    long = np.maximum(x, _SHORT)
    return np.where(x < _SHORT, x / 2 - x**2 / 6, 1.0 + np.expm1(-long) / long)
