"""Scenarios of latency, and percentiles over them with bounds from sections.

A scenario is a measured item and a random draw for the wait at every operator and link. Scenarios are divided into
sections that share no item, so that the percentiles of the sections show the uncertainty of the percentile (Asmussen &
Glynn, Stochastic Simulation, 2007).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.errors import PlanningError
from circinus.statistics.counts import median_unbiased_ranks, percentile_sample_size
from circinus.statistics.interval import Interval
from circinus.statistics.student_t import student_t_quantile

_SCENARIOS = 320
"""Number of scenarios up to the 98th percentile; 16 of them lie beyond the 95th."""
_FAR_PERCENTILE = 98.0
"""Percentile beyond which four times as many scenarios are used."""
_WORD = 64
"""Divisor of section sizes, so that scenarios can be counted by words of bits."""


@dataclass(frozen=True)
class ScenarioGrid:
    """Number of sections and scenarios of each section (a multiple of 64); arrays contain section after section."""

    sections: int
    size: int

    @classmethod
    def for_risk(cls, risk: float, percentile: float = 95.0) -> ScenarioGrid:
        """Return the grid for a risk; far percentiles have larger sections.

        There are enough sections that all of them err to the same side with probability at most `risk`, if each does
        with probability 1/2: five for a risk of 0.05.
        """
        sections = max(1, math.ceil(-math.log2(risk)))
        count = _SCENARIOS * (4 if percentile > _FAR_PERCENTILE else 1)
        return cls(sections, _WORD * max(1, round(count / _WORD / sections)))

    @property
    def count(self) -> int:
        return self.sections * self.size

    def items(self, measured: int) -> IntArray:
        """Return (count,) the index of each scenario's item among the measured ones.

        Sections share no item, and each section uses its items equally often (up to one). If there are fewer items than
        sections, sections share items, and bounds hold less often than intended. If there are more items than
        scenarios, evenly spaced ones are used.

        Raises:
            PlanningError: no item was measured.
        """
        return _items(self, measured)

    def exponentials(self, name: str) -> FloatArray:
        """Return (count,) draws -log(1 - u) of uniforms u, for the wait in the queue `name`.

        The uniforms are stratified within each section and, finer, over all of them. They depend on the name only, so
        that all plans use common random numbers.
        """
        return _exponentials(self, name)


@lru_cache(maxsize=256)
def _items(grid: ScenarioGrid, measured: int) -> IntArray:
    if measured < 1:
        raise PlanningError(
            "the profile has no measured item",
            code="profile.no_measurement",
            hint="Run `circinus profile`.",
        )
    sections = []
    for section in range(grid.sections):
        own = np.arange(section % measured, measured, grid.sections)
        sections.append(own[np.arange(grid.size) * len(own) // grid.size])
    return _read_only(np.concatenate(sections))


@lru_cache(maxsize=4096)
def _exponentials(grid: ScenarioGrid, name: str) -> FloatArray:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    generator = np.random.default_rng(seed)
    strata = generator.permuted(np.tile(np.arange(grid.size), (grid.sections, 1)), axis=1)
    parts = generator.permuted(np.tile(np.arange(grid.sections), (grid.size, 1)), axis=1)
    part = parts[strata, np.arange(grid.sections)[:, None]].ravel()
    uniforms = (strata.ravel() + (part + generator.random(grid.count)) / grid.sections) / grid.size
    return _read_only(-np.log1p(-uniforms))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


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
        reached_s = service_s[service_s > 0]  # no logarithm fits items that do not reach the operator
        sample_s = reached_s if len(reached_s) else service_s
        # The percentile of all items is a lower one of those that reach it.
        beyond = (1 - self.percentile / 100) * len(service_s) / len(sample_s)
        if beyond >= 1:
            return 1.0
        factor = tolerance_factor(len(sample_s), 1 - beyond, self.risk)
        if math.isinf(factor):
            return UNBOUNDED
        logs = np.log(np.maximum(sample_s, _MIN_S))
        excess = float(logs.mean() + factor * logs.std(ddof=1) - logs.max())
        return math.exp(min(max(0.0, excess), math.log(UNBOUNDED)))

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
        return self.guaranteed(latency_s[None])

    def guaranteed(self, latency_s: FloatArray) -> Interval:
        """Return the percentile of (n, count) latencies: value, lower bound of the first row, upper bound of the last.

        Rows ascend: the first are expected latencies, the last pessimistic ones.
        """
        values = np.sort(latency_s, axis=1)[:, math.ceil(self.percentile / 100 * self.grid.count - 1e-9) - 1]
        sections = np.sort(latency_s.reshape(-1, self.grid.sections, self.grid.size), axis=2)
        lower, upper = self._ranks
        value = float(values[0])
        return Interval(
            value,
            lower=min(value, float(sections[0, :, lower - 1].min())),
            upper=max(*values.tolist(), float(sections[-1, :, upper - 1].max())),
        )

    def guaranteed_s(self, latency_s: FloatArray) -> float:
        """Return the upper bound of (count,) pessimistic latencies, as `guaranteed` does."""
        sections = np.sort(latency_s.reshape(self.grid.sections, self.grid.size), axis=1)
        upper = float(sections[:, self._ranks[1] - 1].max())
        rank = math.ceil(self.percentile / 100 * self.grid.count - 1e-9)
        if self._ranks[1] * self.grid.sections >= rank:  # the percentile of all is none beyond
            return upper
        return max(upper, float(np.sort(latency_s)[rank - 1]))

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
    def section_percentile(self) -> float:
        """Percentile in the middle of the scenario of a section that may be the upper bound, or that of the estimator.

        Beyond the 99.7th, no scenario of a section lies as far.
        """
        return max(100 * (self._ranks[1] - 0.5) / self.grid.size, self.percentile)

    @property
    def _ranks(self) -> tuple[int, int]:
        return median_unbiased_ranks(self.percentile, self.grid.size)


@dataclass(frozen=True, eq=False)
class MeasuredSample:
    """Service times or sizes that were measured on (n,) items, with their scenarios and moments."""

    values: FloatArray
    percentile: PercentileEstimator
    is_input: bool = False
    """True for sizes of values that come directly from the source."""

    @cached_property
    def scenarios(self) -> FloatArray:
        """(scenarios,) value of each scenario's item."""
        return self.values[self.percentile.grid.items(len(self.values))]

    @cached_property
    def inflated_scenarios(self) -> FloatArray:
        """(scenarios,) with the inflation for a percentile measured on few items."""
        return np.asarray(self.scenarios * self.inflation)

    @cached_property
    def inflation(self) -> float:
        """Factor of a percentile measured on few items."""
        return self.percentile.allowance.of(self.values)

    @cached_property
    def moments(self) -> tuple[float, float, float]:
        """Mean, mean square and mean cube."""
        mean, square, cube = (float((self.values**power).mean()) for power in (1.0, 2.0, 3.0))
        return mean, square, cube

    @cached_property
    def mean_factor(self) -> float:
        """Upper bound of the actual mean over the measured one, at least 1."""
        return self.percentile.allowance.of_mean(self.values)


@dataclass(frozen=True, eq=False)
class MeasuredSamples:
    """Samples at a percentile, which all queries with this percentile share."""

    percentile: PercentileEstimator
    _samples: dict[int, MeasuredSample] = field(default_factory=dict)

    def of(self, values: FloatArray, *, is_input: bool = False) -> MeasuredSample:
        """Return the sample of (n,) measured values; see `MeasuredSample`."""
        sample = self._samples.get(id(values))  # a sample retains its array, so that the id is not reused
        if sample is None:
            sample = self._samples[id(values)] = MeasuredSample(values, self.percentile, is_input)
        return sample
