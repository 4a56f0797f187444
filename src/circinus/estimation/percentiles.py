"""A percentile of latency over scenarios, with bounds from sections (Asmussen & Glynn, Stochastic Simulation, 2007)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from circinus.estimation.scenarios import ScenarioGrid
from circinus.profiling import Interval
from circinus.profiling.race.slo_requirements import percentile_sample_size

FloatArray = NDArray[np.floating]

_SHORTEST_S = 1e-9
"""Stands for no time at all where logarithms are taken."""
UNBOUNDED = 1e12
"""The factor, or the seconds, where no bound can be given: beyond any objective, and finite, as infinite times have no
difference."""


@dataclass(frozen=True)
class SmallSampleInflation:
    """The factors on measured times that keep a bound at its risk when items are few: of a percentile, and of the mean.

    That of a percentile: from `items_for_percentile` items on the slowest item measured is at or beyond it with
    probability 1 - risk, whatever the distribution, and the factor is 1. With fewer it is the upper tolerance limit of
    a log-normal distribution over the slowest item, where that is greater than 1 (Hahn & Meeker, Statistical Intervals,
    1991; tolerance factor by Natrella's approximation, Experimental Statistics, NBS Handbook 91, 1963).

    Limits: the shape is assumed. In simulation normal, gamma and log-normal times keep a risk of 0.05 from 8 items on;
    a rare slow kind of item that was not drawn is seen by no bound. Where times are of two very different kinds the
    factor is large, and only more items make it small: profiling measures such operators on as many as take none
    (`Footprints.uneven`).
    """

    percentile: float
    """Of 100."""
    risk: float

    def of(self, service_s: FloatArray) -> float:
        """The factor, at least 1, for (n,) seconds; `UNBOUNDED` where n is too small for any bound."""
        items = len(service_s)
        if items >= percentile_sample_size(self.percentile, self.risk):
            return 1.0
        factor = tolerance_factor(items, self.percentile / 100, self.risk)
        if math.isinf(factor):
            return UNBOUNDED
        logs = np.log(np.maximum(service_s, _SHORTEST_S))
        beyond = float(logs.mean() + factor * logs.std(ddof=1) - logs.max())
        return math.exp(min(max(0.0, beyond), math.log(UNBOUNDED)))

    def of_mean(self, values: FloatArray) -> float:
        """The factor, at least 1, on the mean of (n,) values beyond which the true mean is with probability `risk`.

        What requests wait for grows with how busy servers are, and so much faster than the mean of their service. The
        bound is Student's, as of a normal sample, with the quantile of Abramowitz & Stegun, Handbook of Mathematical
        Functions, 1964, 26.7.5, to the second term.

        Limits: of skewed values the mean of few is too low more often, in simulation up to three times as often as
        `risk` says with 8 log-normal ones, and hardly more often with 60.

        Args:
            values: (n,) seconds, or bytes.
        """
        items, z = len(values), max(0.0, NormalDist().inv_cdf(1 - self.risk))
        mean = float(values.mean())
        if z == 0 or mean <= 0:
            return 1.0
        if items < 2:
            return UNBOUNDED
        student = z + (z**3 + z) / (4 * (items - 1)) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * (items - 1) ** 2)
        return 1.0 + student * float(values.std(ddof=1)) / mean / math.sqrt(items)

    def inflate(self, service_s: FloatArray) -> FloatArray:
        """The seconds times the factor."""
        return np.asarray(service_s * self.of(service_s))


def tolerance_factor(items: int, share: float, risk: float) -> float:
    """How many standard deviations of a normal sample above its mean a share of the population surely ends.

    Args:
        items: size of the sample.
        share: of the population, between 0 and 1.
        risk: probability with which the limit may be too low.

    Returns:
        Infinity where the sample is too small for the approximation.
    """
    wanted, sure = NormalDist().inv_cdf(share), NormalDist().inv_cdf(1 - risk)
    spread = 1 - sure**2 / (2 * (items - 1)) if items > 1 else 0.0
    if spread <= 0:
        return math.inf
    return (wanted + math.sqrt(max(0.0, wanted**2 - spread * (wanted**2 - sure**2 / items)))) / spread


@dataclass(frozen=True)
class PercentileEstimator:
    """One percentile (of 100) over the scenarios of a grid.

    The value is an order statistic over all scenarios. The upper bound is the greatest of the sections' own
    percentiles, each taken at the rank that is at or above the truth with probability at least 1/2 (the lower bound:
    the least, at or below). All sections err to the same side with probability at most 2^-sections, whatever the
    distribution. This holds for sections of independent scenarios; where a section has so few items (or scenarios,
    beyond the 99th percentile) that none reaches the percentile, its rank is the last and the bound would hold less
    often: the upper one is therefore taken of latencies whose service times have been stretched by `allowance`, and
    whose waits are those under the load that its bound of the mean allows.

    Every one of the three is monotone: where no scenario is slower, none of them is greater.
    """

    percentile: float
    grid: ScenarioGrid
    allowance: SmallSampleInflation
    """For times and sizes measured on few items."""

    @classmethod
    def at(cls, percentile: float, risk: float) -> PercentileEstimator:
        """A percentile over as many sections of scenarios as a risk asks for."""
        return cls(percentile, ScenarioGrid.for_risk(risk, percentile), SmallSampleInflation(percentile, risk))

    def of(self, latency_s: FloatArray) -> Interval:
        """The percentile of one vector of scenarios, (count,), without the allowance."""
        ordered = np.sort(latency_s)
        value = float(ordered[math.ceil(self.percentile / 100 * self.grid.count - 1e-9) - 1])
        sections = np.sort(latency_s.reshape(self.grid.sections, self.grid.size), axis=1)
        lower, upper = self._ranks
        return Interval(
            value,
            lower=min(value, float(sections[:, lower - 1].min())),
            upper=max(value, float(sections[:, upper - 1].max())),
        )

    def upper(self, latency_s: FloatArray) -> FloatArray:
        """The upper bounds of many vectors, (n, count) -> (n,)."""
        _, rank = self._ranks
        sections = latency_s.reshape(-1, self.grid.sections, self.grid.size)
        if not len(sections):
            return np.zeros(0, dtype=latency_s.dtype)
        return np.asarray(np.partition(sections, rank - 1, axis=2)[:, :, rank - 1].max(axis=1))

    def within(self, latency_s: FloatArray, limit_s: float) -> NDArray[np.bool_]:
        """Whether the upper bounds of many vectors, (n, count), are at most `limit_s`; much faster than `upper`."""
        _, rank = self._ranks
        shape = (len(latency_s), self.grid.sections, self.grid.size // 64)
        words = np.packbits(latency_s > limit_s, axis=1).view(np.uint64).reshape(shape)
        beyond = np.bitwise_count(words).sum(axis=2)
        return np.asarray((beyond <= self.grid.size - rank).all(axis=1))

    @property
    def _ranks(self) -> tuple[int, int]:
        return _median_unbiased_ranks(self.percentile, self.grid.size)


@lru_cache(maxsize=256)
def _median_unbiased_ranks(percentile: float, size: int) -> tuple[int, int]:
    """Ranks (from 1) of the order statistics that are at most, and at least, the percentile with probability 1/2."""
    share = percentile / 100
    below = np.array([math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)])
    at_most = np.cumsum(below)  # at_most[k]: P(at most k of the section's scenarios lie below the percentile)
    reaching = np.flatnonzero(at_most[:-1] >= 0.5)
    upper = int(reaching[0]) + 1 if len(reaching) else size
    at_least = 1 - np.concatenate(([0.0], at_most[:-1]))
    lower = max(1, int(np.flatnonzero(at_least >= 0.5)[-1]))
    return lower, upper
