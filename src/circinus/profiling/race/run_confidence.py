"""How sure one is of the mean scores of a pipeline's configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.profiling.confidence_sequences import (
    Covariates,
    SequentialThresholdTest,
    ThresholdDecisions,
    betting_bounds,
    one_hot_strata,
    per_sequence_alpha,
    split_alpha,
)
from circinus.profiling.interval import Interval
from circinus.specification import AccuracySlo, MetricSpec


@dataclass(frozen=True)
class ThresholdVerdicts:
    """On which side of accuracy objectives mean scores surely are."""

    meets: BoolArray
    """(k, q) surely kept by configuration k: objective q."""
    fails: BoolArray
    """(k, q) surely missed."""

    @classmethod
    def of(cls, found: ThresholdDecisions, objectives: Sequence[AccuracySlo]) -> ThresholdVerdicts:
        """From verdicts on the thresholds of the objectives."""
        rising = np.array([slo.comparison == ">=" for slo in objectives], dtype=bool)
        return cls(
            meets=np.where(rising, found.at_least, found.at_most),
            fails=np.where(rising, found.below, found.above),
        )


@dataclass(frozen=True, eq=False)
class RunConfidence:
    """Anytime-valid bounds of the mean score over the items that may be profiled, in the order of measuring.

    All statements about all configurations, thresholds and compared pairs of a run are right together with
    probability 1 - risk of the run (`sequence_risk`): looking again and asking for more thresholds costs nothing.
    """

    metric: MetricSpec
    population: int
    """Items that may be profiled."""
    covariates: Covariates
    """Their strata, in the order of measuring."""
    side_risk: float
    """Of each side of each sequence."""
    latency_risk: float = 0.0
    """Of each statement that a configuration is too slow for a latency objective."""

    @classmethod
    def of_run(
        cls,
        metric: MetricSpec,
        strata: Sequence[Mapping[str, str]],
        risk: float,
        configurations: int,
        latency_percentiles: int = 0,
        *,
        comparing: bool = True,
    ) -> RunConfidence:
        """For a run that may measure every configuration.

        Args:
            metric: of the pipeline.
            strata: conditions of the items that may be profiled, in the order of measuring.
            risk: of the run.
            configurations: how many there are.
            latency_percentiles: at how many percentiles each of them is held against limits.
            comparing: whether it compares each with one other.
        """
        of_scores, latency_risk = split_alpha(risk, configurations, latency_percentiles)
        side_risk = per_sequence_alpha(of_scores, configurations, comparisons=configurations if comparing else 0)
        return cls(metric, len(strata), Covariates.of(one_hot_strata(strata)), side_risk, latency_risk)

    def bounds(self, scores: FloatArray) -> tuple[Interval, ...]:
        """(k, n) scores of the first n items -> for each row the bounds of the mean of all.

        Raises:
            ValueError: a score outside the metric's range.
        """
        low, high = self.metric.range
        return betting_bounds(
            scores, self.population, risk=self.side_risk, low=low, high=high, covariates=self.covariates
        )

    def sequential_test(self, objectives: Sequence[AccuracySlo]) -> SequentialThresholdTest:
        """Verdicts on the thresholds of objectives, of one configuration, to which scores are added."""
        low, high = self.metric.range
        thresholds = np.array([slo.threshold for slo in objectives], dtype=np.float64)
        return SequentialThresholdTest(
            self.population, thresholds, risk=self.side_risk, low=low, high=high, covariates=self.covariates
        )

    def sequential_comparison(self) -> SequentialThresholdTest:
        """A verdict on whether one configuration is better than another, to which `advantages` are added."""
        width = self.metric.range[1] - self.metric.range[0]
        return SequentialThresholdTest(self.population, np.zeros(1), risk=self.side_risk, low=-width, high=width)

    def paired_differences(self, first: FloatArray, second: FloatArray) -> FloatArray:
        """By how much the first scores are better, item by item."""
        width = self.metric.range[1] - self.metric.range[0]
        better = first - second if self.metric.direction == "maximize" else second - first
        return np.clip(better, -width, width)  # rounding may go beyond
