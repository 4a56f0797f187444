"""Confidence of the mean scores of a pipeline's configurations in one run, and the division of its error rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.profiling.settings import PROFILING
from circinus.specification import AccuracySlo, MetricSpec, Population
from circinus.statistics.betting import betting_bounds
from circinus.statistics.covariates import Covariates, one_hot_strata
from circinus.statistics.interval import Interval
from circinus.statistics.martingale import UNLIMITED
from circinus.statistics.sequential_test import SequentialThresholdTest, ThresholdDecisions


def per_sequence_alpha(risk: float, configurations: int, comparisons: int = 0) -> float:
    """Return the risk of each side of each sequence, so that a whole run is right with probability `1 - risk`.

    A run has one sequence for each configuration, and one for each compared pair, with two sides each; each side gets
    an equal share (Bonferroni), under any dependence:

    - *Interim analyses* cost nothing: a sequence holds at all of them simultaneously.
    - *Thresholds* cost nothing, nor do queries: one sequence excludes means, and a threshold is decided wrongly only if
    the true mean was excluded (`SequentialThresholdTest`).
    - *Configurations* cost little: items grow as log(2 configurations / risk), a third more for 250 than for 25 at a
    risk of 0.05. All configurations count that may be measured, not only the measured ones, as it depends on the scores
    which are dropped.
    - *Comparisons* must be fixed before the scores are seen, for instance all with one reference. Testing only the most
    promising pair counts as testing all.

    Rejected alternatives: unequal shares, larger for configurations near a threshold, save no items even if the margins
    are known, as those far from it then need more. Holm's stepwise shares gain nothing, as each configuration always
    has a true statement that may be wrongly rejected (its mean is not beyond where it is). Shares only for the side
    that makes a plan (certainly feasible) halve the logarithm's argument, but leave "certainly infeasible" without a
    guarantee. Testing configurations one after the other, each at the full risk, from the most accurate down until one
    fails, needs a ranking in advance.

    Args:
        risk: probability of any wrong verdict in the run, 0 < risk < 1.
        configurations: number of all configurations that may be measured, at least 1.
        comparisons: number of pairs whose difference is bounded.

    Raises:
        ValueError: a risk or a number is out of range.
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk must be in (0, 1), got {risk}")
    if configurations < 1 or comparisons < 0:
        raise ValueError(
            f"configurations must be at least 1 and comparisons at least 0, got {configurations} and {comparisons}"
        )
    return risk / (2 * (configurations + comparisons))


def split_alpha(risk: float, configurations: int, latency_percentiles: int) -> tuple[float, float]:
    """Return the risk of all sequences, and the risk of each configuration at each latency percentile.

    Latency limits cost nothing, as thresholds do: an error about any limit that is met implies an error about the
    lowest of these.
    """
    if not latency_percentiles:
        return risk, 0.0
    return risk * (1.0 - PROFILING.latency_risk_share), risk * PROFILING.latency_risk_share / (
        configurations * latency_percentiles
    )


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
    """Anytime-valid bounds of the mean score of a population, from the profiling items in measurement order.

    All statements of a run about all configurations, thresholds and compared pairs hold simultaneously with probability
    1 - risk (`per_sequence_alpha`): repeated analyses and more thresholds cost nothing.
    """

    metric: MetricSpec
    population: int
    """Number of profiling items if the mean is theirs; `UNLIMITED` for requests to come, of which they are a sample."""
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
        population: Population = "items",
    ) -> RunConfidence:
        """Create the confidence of a run that may measure every configuration.

        Args:
            strata: conditions of the profiling items, in measurement order.
            latency_percentiles: number of percentiles at which each of them is checked against limits.
            with_references: whether each configuration is compared with a reference.
            population: population that the mean scores are of.
        """
        score_risk, latency_risk = split_alpha(risk, configurations, latency_percentiles)
        side_risk = per_sequence_alpha(score_risk, configurations, comparisons=configurations if with_references else 0)
        if population == "requests":
            return cls(metric, UNLIMITED, Covariates.of_requests(strata), side_risk, latency_risk)
        return cls(metric, len(strata), Covariates.of(one_hot_strata(strata)), side_risk, latency_risk)

    @property
    def items(self) -> int:
        """Number of profiling items."""
        return len(self.covariates.kind)

    def bounds(self, scores: FloatArray) -> tuple[Interval, ...]:
        """Return the bounds of each mean score of the population, from (k, n) scores of the first n items.

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
