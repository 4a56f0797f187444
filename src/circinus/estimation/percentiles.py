"""Latency percentiles over scenarios, with bounds from sections (Asmussen & Glynn, Stochastic Simulation, 2007)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.estimation.scenarios import ScenarioGrid
from circinus.statistics.counts import median_unbiased_ranks, percentile_sample_size
from circinus.statistics.interval import Interval
from circinus.statistics.student_t import student_t_quantile

_MIN_S = 1e-9
"""Minimum time of which a logarithm is taken."""
UNBOUNDED = 1e12
"""Factor or seconds without an upper bound: beyond any SLO, and finite, as differences of infinities are undefined."""


@dataclass(frozen=True)
class SmallSampleInflation:
    """Factors that extend bounds from small samples of measured times to the required risk.

    Factor of a percentile: from `percentile_sample_size` items on, the slowest measured item is at or beyond the
    percentile with probability 1 - risk for any distribution, and the factor is 1. With fewer items it is the upper
    tolerance limit of a log-normal distribution over the slowest item, if that is greater than 1 (Hahn & Meeker,
    Statistical Intervals, 1991; tolerance factor by Natrella's approximation, Experimental Statistics, NBS Handbook 91,
    1963).

    Limits: the shape is assumed. In simulation, normal, gamma and log-normal times keep a risk of 0.05 from 8 items on;
    no bound covers a rare slow kind of item that was not drawn. For times of two very different kinds the factor is
    large, and only more items reduce it: profiling measures such operators on enough items for a factor of 1
    (`ResourceUsage.heavy_tailed`).
    """

    percentile: float
    """Percentile in (0, 100)."""
    risk: float

    def of(self, service_s: FloatArray) -> float:
        """Return the factor, at least 1, for (n,) seconds; `UNBOUNDED` if n is too small for any bound."""
        items = len(service_s)
        if items >= percentile_sample_size(self.percentile, self.risk):
            return 1.0
        factor = tolerance_factor(items, self.percentile / 100, self.risk)
        if math.isinf(factor):
            return UNBOUNDED
        logs = np.log(np.maximum(service_s, _MIN_S))
        beyond = float(logs.mean() + factor * logs.std(ddof=1) - logs.max())
        return math.exp(min(max(0.0, beyond), math.log(UNBOUNDED)))

    def of_mean(self, values: FloatArray) -> float:
        """Return the factor, at least 1, on the mean of (n,) values that the true mean exceeds with probability `risk`.

        Waiting times grow with the utilization, and therefore much faster than the mean service time. The bound is
        Student's for a normal sample.

        Limits: for skewed values the risk is exceeded: in simulation up to three times with 8 log-normal values, and
        hardly with 60.
        """
        items, mean = len(values), float(values.mean())
        if self.risk >= 0.5 or mean <= 0:
            return 1.0
        if items < 2:
            return UNBOUNDED
        quantile = student_t_quantile(self.risk, items - 1)
        return 1.0 + quantile * float(values.std(ddof=1)) / mean / math.sqrt(items)

    def inflate(self, service_s: FloatArray) -> FloatArray:
        """Return the seconds times the factor."""
        return np.asarray(service_s * self.of(service_s))


def tolerance_factor(items: int, share: float, risk: float) -> float:
    """Return the distance of an upper tolerance limit from the mean of a normal sample, in standard deviations.

    Args:
        items: sample size.
        share: share of the population below the limit, between 0 and 1.
        risk: probability that the limit is too low.

    Returns:
        The distance; infinity if the sample is too small for the approximation.
    """
    z_share, z_risk = NormalDist().inv_cdf(share), NormalDist().inv_cdf(1 - risk)
    denominator = 1 - z_risk**2 / (2 * (items - 1)) if items > 1 else 0.0
    if denominator <= 0:
        return math.inf
    return (z_share + math.sqrt(max(0.0, z_share**2 - denominator * (z_share**2 - z_risk**2 / items)))) / denominator


@dataclass(frozen=True)
class PercentileEstimator:
    """Estimator of a latency percentile, with bounds, over the scenarios of a grid.

    The value is an order statistic over all scenarios. The upper bound is the maximum of the sections' percentiles,
    each at the rank that is at or above the true percentile with probability at least 1/2 (lower bound: the minimum, at
    or below). All sections err to the same side with probability at most 2^-sections for any distribution, if scenarios
    are independent. If a section has so few items (or scenarios, beyond the 99th percentile) that none reaches the
    percentile, its rank is the last, and the bound would be too low: callers therefore pass latencies whose service
    times are inflated by `allowance`, under the load of its bound of the mean.

    Value and bounds are monotone: they do not increase if no scenario becomes slower.
    """

    percentile: float
    grid: ScenarioGrid
    allowance: SmallSampleInflation
    """Inflation of times and sizes measured on few items."""

    @classmethod
    def at(cls, percentile: float, risk: float) -> PercentileEstimator:
        """Return the estimator of a percentile, with sections of scenarios according to a risk."""
        return cls(percentile, ScenarioGrid.for_risk(risk, percentile), SmallSampleInflation(percentile, risk))

    def of(self, latency_s: FloatArray) -> Interval:
        """Return the percentile of (count,) latencies of scenarios, without inflation."""
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
        """Return (n,) upper bounds of (n, count) latencies."""
        _, rank = self._ranks
        sections = latency_s.reshape(-1, self.grid.sections, self.grid.size)
        if not len(sections):
            return np.zeros(0, dtype=latency_s.dtype)
        return np.asarray(np.partition(sections, rank - 1, axis=2)[:, :, rank - 1].max(axis=1))

    def within(self, latency_s: FloatArray, limit_s: float) -> BoolArray:
        """Return whether the upper bounds of (n, count) latencies are at most `limit_s`; much faster than `upper`."""
        _, rank = self._ranks
        shape = (len(latency_s), self.grid.sections, self.grid.size // 64)
        words = np.packbits(latency_s > limit_s, axis=1).view(np.uint64).reshape(shape)
        beyond = np.bitwise_count(words).sum(axis=2)
        return np.asarray((beyond <= self.grid.size - rank).all(axis=1))

    @property
    def _ranks(self) -> tuple[int, int]:
        return median_unbiased_ranks(self.percentile, self.grid.size)


@dataclass(frozen=True, eq=False)
class MeasuredSample:
    """Service times or sizes that were measured on (n,) items, with their scenarios and moments."""

    values: FloatArray
    percentile: PercentileEstimator

    @cached_property
    def scenarios(self) -> FloatArray:
        """(scenarios,) value of each scenario's item."""
        return self.values[self.percentile.grid.items(len(self.values))]

    @cached_property
    def inflated_scenarios(self) -> FloatArray:
        """(scenarios,) with the inflation for a percentile measured on few items."""
        return np.asarray(self.scenarios * self.percentile.allowance.of(self.values))

    @cached_property
    def moments(self) -> tuple[float, float, float]:
        """Mean, mean square and mean cube."""
        mean, square, cube = (float((self.values**power).mean()) for power in (1.0, 2.0, 3.0))
        return mean, square, cube

    @cached_property
    def mean_factor(self) -> float:
        """Upper bound of the actual mean over the measured one, at least 1."""
        return self.percentile.allowance.of_mean(self.values)
