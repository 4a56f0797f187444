"""What was measured before, and where live means stay as long as nothing moved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.control.drift.detector import ScaledObservation
from circinus.profiling import MIN_ITEMS, Interval, OperatorProfile
from circinus.profiling.confidence_sequences import betting_bounds
from circinus.serving import ServedBatch
from circinus.serving.replicas.replay_executor import interpolated_batch_ratio
from circinus.specification import Allocation, HardwareClass, MetricSpec

_ENDLESS = 10**9
"""Items of which traffic is drawn: so many that those that were profiled are hardly any of them."""
_FAR = math.log(2.0)
"""Logarithms of times count up to so far, and a standard deviation, beyond their mean on the side that is watched, and
up to a standard deviation on the other: what takes ten times as long once moves nothing, what takes twice as long
always is seen whole."""


@dataclass(frozen=True)
class ServiceTimeBaseline:
    """The seconds in service of one operator under one prefix, alone, on one hardware class."""

    expected_s: float
    """Mean, as planned with."""
    centre: float
    """Mean logarithm of the seconds that were profiled, with `added_s`."""
    deviation: float
    """Their standard deviation."""
    fair: tuple[float, float]
    """Greatest mean of what times are worth as long as nothing moved: for being longer, and for being shorter."""
    added_s: float
    """To every time before its logarithm is taken."""
    spread: float
    """By how much the logarithm of a mean of several may be greater than the mean logarithm, as a worth."""
    batch_ratio: Mapping[float, Mapping[int, float]]
    """CPUs -> batch size -> as in `OperatorProfile`; those that were measured."""

    @classmethod
    def of(
        cls,
        profile: OperatorProfile,
        hardware: HardwareClass,
        *,
        tolerance: float,
        risk: float,
        least_s: float = 0.0,
        corrected: bool = True,
    ) -> ServiceTimeBaseline | None:
        """From what was profiled; None: from too few items.

        Nothing moved as long as the mean logarithm is where the few items leave it unsure (Student's bound), the
        hardware's speed does, and `tolerance` with `least_s` allows.

        Args:
            profile: of the operator.
            hardware: where it is watched.
            tolerance: share by which times may differ.
            risk: probability with which either side may be wrong from the beginning.
            least_s: seconds by which the shortest ones may differ; the longer times are, the less of it is allowed
                besides. All are compared with so much added that the tolerance comes to this.
            corrected: whether what traffic taught before is counted in, as planning does; recorded times are replayed
                without it.
        """
        n = len(profile.service_s)
        if n < MIN_ITEMS or not (profile.service_s > 0).all():
            return None
        factor = profile.correction(hardware) if corrected else 1.0
        promised = profile.speeds.guaranteed(hardware)
        alone_s = profile.service_s * factor / promised
        added_s = least_s / tolerance if tolerance > 0 else 0.0
        logs = np.log(alone_s + added_s)
        centre, deviation = float(logs.mean()), float(logs.std(ddof=1))
        off = student_t_quantile(risk, n - 1) * deviation / math.sqrt(n) + math.log1p(tolerance)
        fastest = _fastest(profile, hardware)
        width = _FAR + 2 * deviation
        longer = np.mean([_worth(float(log) - centre, deviation) for log in logs])
        shorter = np.mean([_worth(centre - float(log), deviation) for log in logs])
        ratios: dict[float, dict[int, float]] = {}
        for cpus, size in sorted(profile.measured_allocations):
            ratios.setdefault(cpus, {})[size] = profile.batch_ratio[cpus, size]
        return cls(
            expected_s=float(alone_s.mean()),
            centre=centre,
            deviation=deviation,
            fair=(
                min(1.0, float(longer) + off / width),
                min(1.0, float(shorter) + (off + math.log(fastest / promised)) / width),
            ),
            added_s=added_s,
            spread=max(0.0, math.log(float(alone_s.mean()) + added_s) - centre) / width,
            batch_ratio=ratios,
        )

    def placed(self, batch: ServedBatch, allocation: Allocation) -> ScaledObservation | None:
        """A batch that was served; None where it cannot be compared with what was profiled.

        Its time is divided by what the profile says a batch of so many takes over one item. Where no batch of so few
        was profiled, or none with so many CPUs, what is expected is a guess.
        """
        ratios = self.batch_ratio.get(allocation.cpus)
        if not ratios or batch.items < min(ratios) or batch.service_s <= 0:
            return None
        alone_s = batch.service_s / interpolated_batch_ratio(ratios, batch.items)
        beyond = math.log(alone_s + self.added_s) - self.centre
        longer, shorter = _worth(beyond, self.deviation), _worth(-beyond, self.deviation)
        fair = min(1.0, self.fair[0] + (self.spread if batch.items > 1 else 0.0)), self.fair[1]
        return ScaledObservation((longer, shorter), fair, alone_s, self.expected_s)


def _fastest(profile: OperatorProfile, hardware: HardwareClass) -> float:
    """The speed that the hardware has at most: as measured on it, or else as declared."""
    measured = profile.speeds.measured.get(hardware.name)
    if measured is not None:
        return measured.speed.upper
    return hardware.speed if hardware.relative_speed_bounds is None else hardware.relative_speed_bounds[1]


def _worth(beyond: float, deviation: float) -> float:
    """Of a logarithm that lies so far beyond the mean: 0 from a standard deviation below on, 1 from where it counts no
    further. A bet that can lose little may be large."""
    return min(max((beyond + deviation) / (_FAR + 2 * deviation), 0.0), 1.0)


@dataclass(frozen=True)
class AccuracyBaseline:
    """The scores of one configuration, against the truth or against the most accurate plan's answers."""

    expected: float
    least: float
    most: float
    """Between which the mean score is as long as nothing moved, moved to [0, 1]."""
    low: float
    high: float
    """What the metric can give."""

    @classmethod
    def of_scores(cls, scores: FloatArray, metric: MetricSpec, *, tolerance: float, risk: float) -> AccuracyBaseline:
        """From (n,) scores of items like those that are to come: a betting bound of their mean, and the tolerance.

        Args:
            scores: of a uniformly random sample.
            metric: that gave them.
            tolerance: share of the metric's range by which means may differ.
            risk: probability with which either side may be wrong from the beginning.
        """
        low, high = metric.range
        return cls.of_bounds(_mean_of(scores, metric, risk), metric, tolerance=tolerance * (high - low))

    @classmethod
    def through(
        cls, scores: FloatArray, of_reference: FloatArray, metric: MetricSpec, *, tolerance: float, risk: float
    ) -> AccuracyBaseline:
        """What to expect of scores against the answers of another configuration, if only truths are known.

        By as much as that one's answers are off themselves, scores may differ from those against the truth, where the
        metric is a distance, or one less a distance (the triangle inequality; error rates nearly are).

        Args:
            scores: (n,) of the configuration that is watched, against the truth.
            of_reference: (m,) of the one whose answers stand for the truth.
            metric: that gave them.
            tolerance: as in `of_scores`.
            risk: as in `of_scores`, halved between the two.
        """
        low, high = metric.range
        reference = _mean_of(of_reference, metric, risk / 2)
        off = reference.upper - low if metric.direction == "minimize" else high - reference.lower
        width = tolerance * (high - low) + off
        return cls.of_bounds(_mean_of(scores, metric, risk / 2), metric, tolerance=width)

    @classmethod
    def of_bounds(cls, mean: Interval, metric: MetricSpec, *, tolerance: float) -> AccuracyBaseline:
        """From bounds of the mean score and what it may differ by, in the units of the score."""
        low, high = metric.range
        width = max(high - low, 1e-12)
        least, most = (mean.lower - tolerance - low) / width, (mean.upper + tolerance - low) / width
        return cls(mean.value, max(0.0, least), min(1.0, most), low, high)

    def placed(self, score: float) -> ScaledObservation:
        """One score."""
        value = (score - self.low) / max(self.high - self.low, 1e-12)
        return ScaledObservation.within(min(max(value, 0.0), 1.0), self.least, self.most, score, self.expected)


def _mean_of(scores: FloatArray, metric: MetricSpec, risk: float) -> Interval:
    low, high = metric.range
    return betting_bounds(np.asarray(scores, dtype=np.float64)[None], _ENDLESS, risk=risk, low=low, high=high)[0]


def scaled_late_share(share: float, percentile: float) -> ScaledObservation:
    """A share of requests that were late, where so many of a hundred must not be."""
    promised = 1.0 - percentile / 100.0
    return ScaledObservation.within(share, 0.0, promised, share, promised)


def student_t_quantile(risk: float, freedom: int) -> float:
    """Which Student's t exceeds with probability `risk` (one side, 0 < risk < 0.5).

    By bisection of the distribution in closed form (Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 and
    26.7.4).

    Args:
        risk: of exceeding it.
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while _student_tail(high, freedom) > risk:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_tail(middle, freedom) > risk else (low, middle)
    return high


def _student_tail(t: float, freedom: int) -> float:
    angle = math.atan(t / math.sqrt(freedom))
    square = math.cos(angle) ** 2
    if freedom % 2:
        total = angle + (math.sin(angle) * math.cos(angle) * _series(square, 3, freedom, 2) if freedom > 1 else 0.0)
        inside = 2.0 / math.pi * total
    else:
        inside = math.sin(angle) * _series(square, 2, freedom, 1)
    return (1.0 - inside) / 2.0


def _series(square: float, first: int, freedom: int, numerator: int) -> float:
    """1 + (numerator / first) x + (numerator / first)((numerator + 2) / (first + 2)) x^2 + ..., up to the last of the
    formula."""
    term, total = 1.0, 1.0
    denominators: Sequence[int] = range(first, freedom - 1, 2)
    for step, denominator in enumerate(denominators):
        term *= (numerator + 2 * step) / denominator * square
        total += term
    return total
