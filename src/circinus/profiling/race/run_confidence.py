"""Confidence of the mean scores of a pipeline's configurations in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.profiling.race.alpha_budget import per_sequence_alpha, split_alpha
from circinus.specification import AccuracySlo, MetricSpec
from circinus.statistics.betting import betting_bounds
from circinus.statistics.covariates import Covariates, one_hot_strata
from circinus.statistics.interval import Interval
from circinus.statistics.sequential_test import SequentialThresholdTest, ThresholdDecisions


@dataclass(frozen=True)
class ThresholdVerdicts:
    """Certain sides of a mean score relative to accuracy SLOs."""

    meets: BoolArray
    """(q,) whether the configuration certainly meets each SLO."""
    fails: BoolArray
    """(q,) whether the configuration certainly misses each SLO."""

    @classmethod
    def of(cls, decisions: ThresholdDecisions, slos: Sequence[AccuracySlo]) -> ThresholdVerdicts:
        """Return the verdicts for SLOs from the decisions on their thresholds."""
        rising = np.array([slo.comparison == ">=" for slo in slos], dtype=bool)
        return cls(
            meets=np.where(rising, decisions.at_least, decisions.at_most),
            fails=np.where(rising, decisions.below, decisions.above),
        )


@dataclass(frozen=True, eq=False)
class RunConfidence:
    """Anytime-valid bounds of the mean score over the profiling items, in measurement order.

    All statements of a run about all configurations, thresholds and compared pairs hold simultaneously with probability
    1 - risk (`per_sequence_alpha`): repeated analyses and more thresholds cost nothing.
    """

    metric: MetricSpec
    population: int
    """Number of profiling items."""
    covariates: Covariates
    """Strata of the profiling items, in measurement order."""
    side_risk: float
    """Risk of each side of each sequence."""
    latency_risk: float = 0.0
    """Risk of each statement that a configuration is too slow for a latency SLO."""

    @classmethod
    def of_run(
        cls,
        metric: MetricSpec,
        strata: Sequence[Mapping[str, str]],
        risk: float,
        configurations: int,
        latency_percentiles: int = 0,
        *,
        with_references: bool = True,
    ) -> RunConfidence:
        """Create the confidence of a run that may measure every configuration.

        Args:
            strata: conditions of the profiling items, in measurement order.
            latency_percentiles: number of percentiles at which each of them is checked against limits.
            with_references: whether each configuration is compared with a reference.
        """
        score_risk, latency_risk = split_alpha(risk, configurations, latency_percentiles)
        side_risk = per_sequence_alpha(score_risk, configurations, comparisons=configurations if with_references else 0)
        return cls(metric, len(strata), Covariates.of(one_hot_strata(strata)), side_risk, latency_risk)

    def bounds(self, scores: FloatArray) -> tuple[Interval, ...]:
        """Return the bounds of each mean score over all profiling items, from (k, n) scores of the first n items.

        Raises:
            ValueError: a score is outside the metric's range.
        """
        low, high = self.metric.range
        return betting_bounds(
            scores, self.population, risk=self.side_risk, low=low, high=high, covariates=self.covariates
        )

    def sequential_test(self, slos: Sequence[AccuracySlo]) -> SequentialThresholdTest:
        """Return a test of one configuration's mean score against the thresholds of SLOs, extensible by scores."""
        low, high = self.metric.range
        thresholds = np.array([slo.threshold for slo in slos], dtype=np.float64)
        return SequentialThresholdTest(
            self.population, thresholds, risk=self.side_risk, low=low, high=high, covariates=self.covariates
        )

    def sequential_comparison(self) -> SequentialThresholdTest:
        """Return a test whether one configuration is better than another, extensible by `paired_differences`."""
        width = self.metric.range[1] - self.metric.range[0]
        return SequentialThresholdTest(self.population, np.zeros(1), risk=self.side_risk, low=-width, high=width)

    def paired_differences(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """Return the advantage of the first scores over the second, item by item."""
        width = self.metric.range[1] - self.metric.range[0]
        better = first - second if self.metric.direction == "maximize" else second - first
        return np.clip(better, -width, width)  # rounding may exceed the width
