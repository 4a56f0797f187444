"""Arrivals at two alternating rates.

Plan files have their parameters, and are read without NumPy: it is imported where a process is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from circinus.errors import PlanningError
from circinus.queueing.arrivals.validation import require_positive

if TYPE_CHECKING:
    import numpy as np

    from circinus.arrays import FloatArray

_SHORT = 1e-4
"""Threshold of phase changes per window below which 1 - (1 - exp(-x)) / x is lost in rounding, and a series is used."""


@dataclass(frozen=True)
class MarkovModulatedPoisson:
    """Markov-modulated Poisson process with two phases of exponential duration.

    See Fischer and Meier-Hellstern, The Markov-modulated Poisson process cookbook, 1993.

    Raises:
        PlanningError: no rate is above 0, one is below, or a duration is not a finite number above 0.
    """

    rates_per_s: tuple[float, float]
    """Arrival rate in each phase."""
    durations_s: tuple[float, float]
    """Mean duration of each phase."""

    def __post_init__(self) -> None:
        require_positive("duration", *self.durations_s)
        require_positive("rate", max(self.rates_per_s))
        if not min(self.rates_per_s) >= 0:
            raise PlanningError(
                f"rate must be at least 0, got {min(self.rates_per_s):g}/s", code="arrivals.negative_rate"
            )

    @property
    def shares(self) -> tuple[float, float]:
        """Share of the time in each phase."""
        first, second = self.durations_s
        return first / (first + second), second / (first + second)

    @property
    def rate_per_s(self) -> float:
        """Mean rate over both phases."""
        return self.rates_per_s[0] * self.shares[0] + self.rates_per_s[1] * self.shares[1]

    @property
    def memory_s(self) -> float:
        """Time after which the covariance of the rate has decayed by a factor e."""
        return 1.0 / (1.0 / self.durations_s[0] + 1.0 / self.durations_s[1])

    @property
    def burst(self) -> int:
        """Index of the phase with the higher rate."""
        return int(self.rates_per_s[1] > self.rates_per_s[0])

    @property
    def variance(self) -> float:
        """Variance of the rate, in (requests per second) squared."""
        first, second = self.shares
        return first * second * (self.rates_per_s[0] - self.rates_per_s[1]) ** 2

    @property
    def third_moment(self) -> float:
        """Third central moment of the rate."""
        first, second = self.shares
        return first * second * (second - first) * (self.rates_per_s[0] - self.rates_per_s[1]) ** 3

    @classmethod
    def of_moments(
        cls, rate_per_s: float, variance: float, third_moment: float, memory_s: float, *, min_share: float = 0.0
    ) -> MarkovModulatedPoisson:
        """Return the two phases whose rate has these moments, as close as possible without a negative rate.

        Args:
            min_share: minimum share of the time in bursts.
        """
        deviation = variance**0.5
        skewness = third_moment / deviation**3
        # 1 - s / (4 + s^2)^0.5 loses all digits if bursts are rare.
        root = (4 + skewness**2) ** 0.5
        share = 2 / (root * (root + skewness)) if skewness > 0 else (1 - skewness / root) / 2
        share = min(max(share, min_share), 1 / (1 + variance / rate_per_s**2))
        in_burst = rate_per_s + deviation * ((1 - share) / share) ** 0.5
        low_load = max(0.0, rate_per_s - deviation * (share / (1 - share)) ** 0.5)
        return cls((in_burst, low_load), (memory_s / (1 - share), memory_s / share))

    @classmethod
    def superpose(cls, streams: Sequence[MarkovModulatedPoisson], background_per_s: float) -> MarkovModulatedPoisson:
        """Return the superposition of independent streams and of a Poisson process with rate `background_per_s`.

        It has the mean, variance and third central moment of the sum of their rates, and a memory that gives the same
        index of dispersion over long windows (as Heffes and Lucantoni, 1986, match sources of packetized voice).
        """
        if len(streams) == 1:
            return streams[0].superpose_poisson(background_per_s)
        rate_per_s = sum(stream.rate_per_s for stream in streams) + background_per_s
        variance = sum(stream.variance for stream in streams)
        if variance <= 0:
            return cls((rate_per_s, rate_per_s), streams[0].durations_s)
        third_moment = sum(stream.third_moment for stream in streams)
        memory_s = sum(stream.variance * stream.memory_s for stream in streams) / variance
        return cls.of_moments(rate_per_s, variance, third_moment, memory_s)

    def superpose_poisson(self, rate_per_s: float) -> MarkovModulatedPoisson:
        """Return the superposition with a Poisson process."""
        return MarkovModulatedPoisson(
            (self.rates_per_s[0] + rate_per_s, self.rates_per_s[1] + rate_per_s), self.durations_s
        )

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Return (n,) ascending arrival times in [0, `duration_s`), starting in a phase drawn by its share of time."""
        import numpy as np

        initial = int(rng.random() >= self.shares[0])
        ends_s = np.empty(0)
        while not len(ends_s) or ends_s[-1] < duration_s:
            # An even number of phases, so that every draw starts with the same phase.
            pairs = 1 + int(duration_s / sum(self.durations_s))
            means_s = np.tile([self.durations_s[initial], self.durations_s[1 - initial]], pairs)
            begin_s = ends_s[-1] if len(ends_s) else 0.0
            ends_s = np.append(ends_s, begin_s + np.cumsum(rng.exponential(means_s)))
        ends_s = np.minimum(ends_s[: np.searchsorted(ends_s, duration_s) + 1], duration_s)
        begins_s = np.append(0.0, ends_s[:-1])
        rates = np.resize([self.rates_per_s[initial], self.rates_per_s[1 - initial]], len(ends_s))
        counts = rng.poisson(rates * (ends_s - begins_s))
        return np.sort(rng.uniform(np.repeat(begins_s, counts), np.repeat(ends_s, counts)))

    def index_of_dispersion(self, windows_s: FloatArray) -> FloatArray:
        """Return the (w,) index by a closed form.

        See Heffes and Lucantoni, A Markov Modulated Characterization of Packetized Voice and Data Traffic, 1986.
        """
        return 1.0 + 2.0 * self.variance * self.memory_s / self.rate_per_s * idc_saturation(windows_s / self.memory_s)

    def scaled(self, factor: float) -> MarkovModulatedPoisson:
        """Return the process with scaled rates and unchanged durations."""
        first, second = self.rates_per_s
        return MarkovModulatedPoisson((first * factor, second * factor), self.durations_s)


def idc_saturation(lengths: FloatArray) -> FloatArray:
    """Return 1 - (1 - exp(-x)) / x, the index of dispersion in windows of x memories as a share of its limit."""
    import numpy as np

    x = np.asarray(lengths, dtype=np.float64)
    long = np.maximum(x, _SHORT)
    return np.where(x < _SHORT, x / 2 - x**2 / 6, 1.0 + np.expm1(-long) / long)
