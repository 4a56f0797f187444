"""What traffic showed: latency, score and cost of every query, and which of its objectives held."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.estimation import Estimate
from circinus.profiling import ServiceTimeObservation
from circinus.specification import Deployment, Slos

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class LatencySummary:
    """Percentiles of the latency over all requests that were due; one that got no answer took for ever.

    None stands for a percentile that falls on such a request.
    """

    p50_s: float | None
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None
    percentile: float
    """The percentile (of 100) that the query's objective names; 95 where it has none."""
    at_percentile_s: float | None

    @classmethod
    def of(cls, latency_s: NDArray[np.float64], percentile: float) -> LatencySummary:
        """From the latencies of (n,) requests, n >= 1, infinite where there was no answer.

        A percentile p is the least latency that at least p % of the requests kept (the inverse of the empirical
        distribution), which is what an objective speaks of and needs no arithmetic with infinities.
        """
        values = np.percentile(latency_s, [50, 90, 95, 99, percentile], method="inverted_cdf")
        p50, p90, p95, p99, at = (float(v) if math.isfinite(v) else None for v in values)
        return cls(p50, p90, p95, p99, percentile, at)


@dataclass(frozen=True)
class QueryMeasurement:
    """One query under traffic."""

    query: str
    pipeline: str
    weight: float
    slos: Slos
    served: bool
    """Whether the planner gave it a plan; otherwise nothing was sent and nothing is measured."""
    requests: int = 0
    """Due after the warm-up."""
    failures: int = 0
    """Answered with an error."""
    unanswered: int = 0
    """Not answered when the time for stragglers was over."""
    unscored: int = 0
    """Answered, and the metric failed on the answer or gave no score in its range."""
    rate_per_s: float = 0.0
    """Requests over the measured seconds."""
    index_of_dispersion: Mapping[str, float] | None = None
    """Length of a window (`1s`, `10s`) -> variance of the requests due in it over their mean: 1 for Poisson arrivals,
    above for bursts, below for evenly spaced ones. Only windows of which ten fit into the measured seconds."""
    latency_s: LatencySummary | None = None
    """From the scheduled arrival until the answer was back."""
    score: float | None = None
    """Mean over the answered requests; an unscored one counts with the worst score that the metric can give."""
    score_standard_error: float | None = None
    cost_usd_per_h: float | None = None
    """Share, by busy seconds, of the deployments as sized, plus transfers."""
    stage_s: Mapping[str, float] | None = None
    """Operator -> mean seconds in service."""
    slos_met: Mapping[str, bool] | None = None
    """Objective (`latency`, `accuracy`, `cost`) -> whether it held; only those that the query has."""
    satisfied: bool = False
    """Whether the query was served and all its objectives held."""
    predicted: Estimate | None = None
    errors: tuple[str, ...] = ()
    """The first few distinct error messages."""


@dataclass(frozen=True)
class GeneratorLag:
    """How punctually the traffic was sent. Latencies count from the scheduled arrival, so lateness is in them."""

    mean_s: float
    p99_s: float
    max_s: float
    late: bool
    """Whether the machine was too busy to send on time, so that latencies are overstated."""


@dataclass(frozen=True)
class SkippedDeployment:
    """A deployment whose service times teach nothing, and why."""

    deployment: Deployment
    reason: str


@dataclass(frozen=True)
class ServiceTimeReport:
    """What a run showed of service times beside the profile."""

    observations: tuple[ServiceTimeObservation, ...]
    """Of all deployments from which something can be learnt."""
    refused: tuple[SkippedDeployment, ...]
    """All others."""


@dataclass(frozen=True)
class LoadReport:
    """All queries under one run of traffic."""

    mode: str
    """`real` or `replay`."""
    arrivals: str
    """The kinds of arrivals of the served queries (`poisson`, `bursty and poisson`), or the name of the trace file."""
    seed: int
    rate_factor: float
    warm_up_s: float
    duration_s: float
    """Measured seconds, after the warm-up."""
    queries: tuple[QueryMeasurement, ...]
    lateness: GeneratorLag
    deployments_cost_usd_per_h: float
    """Of all deployments as sized, whether used or not."""
    goodput: float
    """Sum of the weights of the queries whose objectives all held; a rejected query adds nothing."""
    total_weight: float
    """Sum of all weights."""
    promises_kept: int
    """Queries that were served and whose objectives all held."""
    promises: int
    """Queries that were served."""
    learning: ServiceTimeReport | None = None
    """None: nobody asked."""
    schema_version: int = SCHEMA_VERSION


def clustered_mean(scores: Sequence[float], items: Sequence[str]) -> tuple[float, float | None]:
    """Mean of scores and its standard error when several requests may carry the same item.

    Requests with one item are one cluster, not independent draws: the error is that of a ratio of cluster totals to
    cluster sizes, linearised (Cochran, Sampling Techniques, 3rd ed., chapter 9A, the ratio-to-size estimate).

    Args:
        scores: of n >= 1 requests.
        items: key of each request's item.

    Returns:
        (mean, standard error); the error is None with fewer than two different items.
    """
    values = np.asarray(scores, dtype=np.float64)
    mean = float(values.mean())
    _, cluster = np.unique(np.asarray(items), return_inverse=True)
    residuals = np.bincount(cluster, weights=values - mean)
    clusters = len(residuals)
    if clusters < 2:
        return mean, None
    variance = clusters / (clusters - 1) * float(residuals @ residuals) / len(values) ** 2
    return mean, math.sqrt(variance)


def clustered_log_ratio(
    observed_s: Sequence[float], predicted_s: Sequence[float], items: Sequence[str]
) -> tuple[float, float | None]:
    """Logarithm of the ratio of two totals and its standard error when several requests may carry the same item.

    Of totals, and not the mean of single ratios: what a request observes is the time of its whole batch, whose other
    items it does not know. Totals over all requests count every item of every batch once on either side; a mean of
    logarithms would be above zero wherever items differ. It is the mean service time that queues depend on, too.
    The error is that of a ratio estimate from clusters, linearised (Cochran, Sampling Techniques, 3rd ed., chapter 6),
    over the ratio. Where batches have several items it is rather too large: that an item's batches are never as far
    from the mean as the item itself then counts as if it were chance.

    Args:
        observed_s: of n >= 1 requests; not all zero.
        predicted_s: of the same; not all zero.
        items: key of each request's item.

    Returns:
        (log ratio, standard error); the error is None with fewer than two different items.
    """
    observed, predicted = np.asarray(observed_s, dtype=np.float64), np.asarray(predicted_s, dtype=np.float64)
    ratio = float(observed.sum() / predicted.sum())
    _, cluster = np.unique(np.asarray(items), return_inverse=True)
    residuals = np.bincount(cluster, weights=observed - ratio * predicted)
    clusters = len(residuals)
    if clusters < 2:
        return math.log(ratio), None
    error = math.sqrt(clusters / (clusters - 1) * float(residuals @ residuals))
    return math.log(ratio), error / float(observed.sum())


def slo_attainment(
    slos: Slos, latency: LatencySummary | None, score: float | None, cost_usd_per_h: float
) -> dict[str, bool]:
    """Which of the objectives in `slos` held; what is not known (None) did not."""
    held = {}
    if slos.latency is not None:
        reached_s = latency.at_percentile_s if latency is not None else None
        held["latency"] = reached_s is not None and reached_s <= slos.latency.limit_s
    if slos.accuracy is not None:
        held["accuracy"] = score is not None and slos.accuracy.is_met_by(score)
    if slos.cost is not None:
        held["cost"] = cost_usd_per_h <= slos.cost.limit_usd_per_h
    return held
