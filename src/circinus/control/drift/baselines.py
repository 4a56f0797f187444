"""Baselines of drift tests: profiled values, and the means that live values have without drift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.control.drift.detector import ScaledObservation
from circinus.profiling import MIN_ITEMS, OperatorProfile
from circinus.serving import ServedBatch
from circinus.serving.replicas.replay_executor import interpolated_batch_ratio
from circinus.specification import Allocation, HardwareClass, MetricSpec
from circinus.statistics.betting import betting_bounds
from circinus.statistics.interval import Interval
from circinus.statistics.martingale import UNLIMITED
from circinus.statistics.student_t import student_t_quantile

_MOST_DEVIATIONS = 2.0
"""Standard deviations above the mean up to which runs of a request count: the most of any would hide all others."""
_CLIP_DISTANCE = math.log(2.0)
"""Clipping distance of log service times.

Values count up to one standard deviation plus this distance above the mean on the tested side, and up to one standard
deviation below: a single tenfold outlier has little effect, but a persistent factor of two counts fully.
"""


@dataclass(frozen=True)
class ServiceTimeBaseline:
    """Service time of one operator with one prefix, unbatched, on one hardware class."""

    expected_s: float
    """Mean that plans assume."""
    mean_log: float
    """Mean of log(profiled seconds + `added_s`)."""
    deviation: float
    """Standard deviation of log(profiled seconds + `added_s`)."""
    max_mean_payoff: tuple[float, float]
    """Maximum mean payoff without drift, for increases and for decreases."""
    added_s: float
    """Offset of service times before the logarithm."""
    jensen_excess: float
    """Maximum excess of the log of a mean over the mean log (Jensen's inequality), in units of the payoff."""
    batch_ratio: Mapping[float, Mapping[int, float]]
    """CPUs -> batch size -> batch time ratio, as in `OperatorProfile`; measured entries only."""

    @classmethod
    def of(
        cls,
        profile: OperatorProfile,
        hardware: HardwareClass,
        *,
        tolerance: float,
        risk: float,
        tolerance_s: float = 0.0,
    ) -> ServiceTimeBaseline | None:
        """Return the baseline from a profile, or None if it has too few items.

        Without drift, the mean logarithm lies within Student's confidence bound, the uncertainty of the hardware's
        speed, `tolerance` and `tolerance_s`.

        Args:
            profile: profile of the operator.
            hardware: monitored hardware class.
            tolerance: relative tolerance.
            risk: probability of an error of each side's bound.
            tolerance_s: absolute tolerance for short times; its share decreases with the time. It is implemented as an
                offset of all times.
        """
        n = int((profile.run_counts > 0).sum())  # runs for one item may depend on each other
        if n < MIN_ITEMS or not (profile.run_s > 0).all():
            return None
        factor = profile.correction(hardware)
        speed = profile.speeds.guaranteed(hardware)
        unbatched_s = profile.run_s * factor / speed
        added_s = tolerance_s / tolerance if tolerance > 0 else 0.0
        logs = np.log(unbatched_s + added_s)
        mean_log, deviation = float(logs.mean()), float(logs.std(ddof=1))
        uncertainty = student_t_quantile(risk, n - 1) * deviation / math.sqrt(n) + math.log1p(tolerance)
        max_speed = _max_speed(profile, hardware)
        width = _CLIP_DISTANCE + 2 * deviation
        longer = np.mean([_payoff(float(log) - mean_log, deviation) for log in logs])
        shorter = np.mean([_payoff(mean_log - float(log), deviation) for log in logs])
        ratios: dict[float, dict[int, float]] = {}
        ratio_of = profile.batch_ratio_on(hardware)
        for cpus, size in sorted(profile.measured_allocations_on(hardware)):
            ratios.setdefault(cpus, {})[size] = ratio_of[cpus, size]
        return cls(
            expected_s=float(unbatched_s.mean()),
            mean_log=mean_log,
            deviation=deviation,
            max_mean_payoff=(
                min(1.0, float(longer) + uncertainty / width),
                min(1.0, float(shorter) + (uncertainty + math.log(max_speed / speed)) / width),
            ),
            added_s=added_s,
            jensen_excess=max(0.0, math.log(float(unbatched_s.mean()) + added_s) - mean_log) / width,
            batch_ratio=ratios,
        )

    def placed(self, batch: ServedBatch, allocation: Allocation) -> ScaledObservation | None:
        """Return the observation of a served batch, or None if it is not comparable to the profile.

        The batch time is divided by the profiled ratio for its size. Batches below the smallest profiled size, or with
        unprofiled CPUs, are not comparable, because their expected time would be extrapolated.
        """
        ratios = self.batch_ratio.get(allocation.cpus)
        if not ratios or batch.items < min(ratios) or batch.service_s <= 0:
            return None
        unbatched_s = batch.service_s / interpolated_batch_ratio(ratios, batch.items)
        deviation = math.log(unbatched_s + self.added_s) - self.mean_log
        longer, shorter = _payoff(deviation, self.deviation), _payoff(-deviation, self.deviation)
        longer_mean = min(1.0, self.max_mean_payoff[0] + (self.jensen_excess if batch.items > 1 else 0.0))
        means = longer_mean, self.max_mean_payoff[1]
        return ScaledObservation((longer, shorter), means, unbatched_s, self.expected_s)


def _max_speed(profile: OperatorProfile, hardware: HardwareClass) -> float:
    """Return the maximum speed of the hardware: the measured bound, or else the declared one."""
    measured = profile.speeds.measured.get(hardware.name)
    if measured is not None:
        return measured.speed.upper
    return hardware.speed if hardware.relative_speed_bounds is None else hardware.relative_speed_bounds[1]


def _payoff(distance: float, deviation: float) -> float:
    """Return the payoff for a logarithm at this distance from the mean.

    It is 0 below minus one standard deviation and 1 beyond the clipping distance. The small loss permits large bets.
    """
    return min(max((distance + deviation) / (_CLIP_DISTANCE + 2 * deviation), 0.0), 1.0)


@dataclass(frozen=True)
class AccuracyBaseline:
    """Scores of one configuration, against ground truth or the most accurate configuration's outputs."""

    expected: float
    minimum: float
    maximum: float
    """Bounds of the mean score without drift, scaled to [0, 1]."""
    low: float
    high: float
    """Range of the metric."""

    @classmethod
    def of_scores(cls, scores: FloatArray, metric: MetricSpec, *, tolerance: float, risk: float) -> AccuracyBaseline:
        """Return the baseline from the betting bound of the scores' mean, plus the tolerance.

        Args:
            scores: (n,) scores of a uniformly random sample.
            metric: metric of the scores.
            tolerance: share of the metric's range by which means may differ.
            risk: probability of an error of each side's bound.
        """
        low, high = metric.range
        return cls.of_bounds(_mean_of(scores, metric, risk), metric, tolerance=tolerance * (high - low))

    @classmethod
    def through(
        cls, scores: FloatArray, of_reference: FloatArray, metric: MetricSpec, *, tolerance: float, risk: float
    ) -> AccuracyBaseline:
        """Return the baseline for agreements if only scores against ground truth were profiled.

        Agreements may differ from these scores by the reference's own error, if the metric is a distance, or one minus
        a distance (triangle inequality; error rates satisfy it approximately).

        Args:
            scores: (n,) scores of the monitored configuration against ground truth.
            of_reference: (m,) scores of the reference configuration.
            metric: metric of the scores.
            tolerance: as in `of_scores`.
            risk: as in `of_scores`, halved between both means.
        """
        low, high = metric.range
        reference = _mean_of(of_reference, metric, risk / 2)
        reference_error = reference.upper - low if metric.direction == "minimize" else high - reference.lower
        width = tolerance * (high - low) + reference_error
        return cls.of_bounds(_mean_of(scores, metric, risk / 2), metric, tolerance=width)

    @classmethod
    def of_bounds(cls, mean: Interval, metric: MetricSpec, *, tolerance: float) -> AccuracyBaseline:
        """Return the baseline from bounds of the mean and an absolute tolerance, in units of the score."""
        low, high = metric.range
        width = max(high - low, 1e-12)
        minimum, maximum = (mean.lower - tolerance - low) / width, (mean.upper + tolerance - low) / width
        return cls(mean.value, max(0.0, minimum), min(1.0, maximum), low, high)

    def placed(self, score: float) -> ScaledObservation:
        value = (score - self.low) / max(self.high - self.low, 1e-12)
        return ScaledObservation.within(min(max(value, 0.0), 1.0), self.minimum, self.maximum, score, self.expected)


def _mean_of(scores: FloatArray, metric: MetricSpec, risk: float) -> Interval:
    low, high = metric.range
    return betting_bounds(np.asarray(scores, dtype=np.float64)[None], UNLIMITED, risk=risk, low=low, high=high)[0]


@dataclass(frozen=True)
class RunsBaseline:
    """Number of runs of one operator with one prefix for a request."""

    expected: float
    minimum: float
    maximum: float
    """Bounds of the mean number of runs without drift, where `most` of a request count at most."""
    most: int

    @classmethod
    def of(cls, profile: OperatorProfile, *, tolerance: float, risk: float) -> RunsBaseline | None:
        """Return the baseline from a profile, or None if every item has one run, or if there are too few items.

        Numbers of runs have heavy tails: at most `most` count, and the bounds of their mean are betting bounds, which
        assume nothing else.

        Args:
            profile: profile of the operator.
            tolerance: relative tolerance.
            risk: probability of an error of each side's bound.
        """
        counts = profile.run_counts
        if len(counts) < MIN_ITEMS or (counts == 1).all():
            return None
        most = max(1, math.ceil(counts.mean() + _MOST_DEVIATIONS * counts.std()))
        counted = np.minimum(counts, most)[None].astype(np.float64)
        mean = betting_bounds(counted, UNLIMITED, risk=risk, low=0.0, high=float(most))[0]
        return cls(float(counts.mean()), mean.lower * (1 - tolerance), mean.upper * (1 + tolerance), most)

    def placed(self, runs: int) -> ScaledObservation:
        """Return the observation of a request with so many runs."""
        bounds = self.minimum / self.most, min(self.maximum / self.most, 1.0)
        return ScaledObservation.within(min(runs / self.most, 1.0), *bounds, float(runs), self.expected)


def scaled_late_share(share: float, percentile: float) -> ScaledObservation:
    """Return the observation of a share of late requests, against the share that the latency percentile allows."""
    allowed = 1.0 - percentile / 100.0
    return ScaledObservation.within(share, 0.0, allowed, share, allowed)
