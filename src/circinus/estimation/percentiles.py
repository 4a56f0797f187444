"""A percentile of latency over scenarios, with bounds from sections (Asmussen & Glynn, Stochastic Simulation, 2007)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from circinus.estimation.scenarios import ScenarioGrid
from circinus.estimation.tails import SmallSampleInflation
from circinus.profiling import Interval

FloatArray = NDArray[np.floating]


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
