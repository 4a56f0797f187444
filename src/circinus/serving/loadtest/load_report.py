"""Report of a load test: latency, score and cost of each query, and the SLOs met."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation import Estimate
from circinus.profiling import ServiceTimeObservation
from circinus.serving.loadtest.machine_load import MachineLoad
from circinus.serving.loadtest.plan_replacements import PlanReplacement
from circinus.serving.loadtest.slo_bounds import SloVerdict
from circinus.specification import Deployment, SloKind, Slos
from circinus.statistics.interval import Interval

SCHEMA_VERSION = 3
_LOSSES = ("failures", "dropped", "unanswered")


@dataclass(frozen=True)
class LatencySummary:
    """Percentiles of the latency over all scheduled requests; without an answer it is infinite.

    A percentile that falls on a request without an answer is None.
    """

    p50_s: float | None
    p90_s: float | None
    p95_s: float | None
    p99_s: float | None
    percentile: float
    """Percentile (of 100) in the query's latency SLO; 95 without a latency SLO."""
    at_percentile_s: float | None

    @classmethod
    def of(cls, latency_s: FloatArray, percentile: float) -> LatencySummary:
        """Summarize the latencies of (n,) requests, n >= 1, infinite for requests without an answer.

        Percentile p is the smallest latency that at least p % of the requests meet (inverse of the empirical
        distribution). That is the definition of the SLO, and it needs no arithmetic with infinities.
        """
        values = np.percentile(latency_s, [50, 90, 95, 99, percentile], method="inverted_cdf")
        p50, p90, p95, p99, at = (float(v) if math.isfinite(v) else None for v in values)
        return cls(p50, p90, p95, p99, percentile, at)


@dataclass(frozen=True)
class MeasuredBounds:
    """Bounds of a measured quantity in requests to come; each fails with about the query's risk, see `slo_bounds`."""

    lower: float | None
    """None: infinite, as too many requests have no answer."""
    upper: float | None
    """None: infinite, as there are too few requests or too many without an answer."""

    @classmethod
    def of(cls, interval: Interval) -> MeasuredBounds:
        lower, upper = (bound if math.isfinite(bound) else None for bound in (interval.lower, interval.upper))
        return cls(lower, upper)


@dataclass(frozen=True)
class PartMeasurement:
    """Measurement of the answered requests that took one part of a split plan."""

    planned_share: float
    share: float
    """Observed share of the answered requests."""
    answered: int
    at_percentile_s: float | None = None
    """Latency at the percentile of the query's SLO; None without an answer."""
    score: float | None = None
    """Mean score."""


@dataclass(frozen=True)
class QueryMeasurement:
    """Measurement of one query under load."""

    query: str
    pipeline: str
    weight: float
    slos: Slos
    served: bool
    """True if the query has a plan; otherwise no requests are sent."""
    requests: int = 0
    """Number of requests scheduled after the warm-up."""
    failures: int = 0
    """Number of requests answered with an error."""
    dropped: int = 0
    """Number of requests that the engine dropped as late, which count as late and not as failures."""
    unanswered: int = 0
    """Number of requests without an answer at the end of the drain timeout."""
    unscored: int = 0
    """Number of answers that the metric failed on, or scored out of range."""
    rate_per_s: float = 0.0
    """Requests divided by the measured seconds."""
    index_of_dispersion: Mapping[str, float] | None = None
    """Window length (`1s`, `10s`) -> variance of the number of requests per window over its mean: 1 for Poisson
    arrivals, larger for bursts, smaller for evenly spaced ones. Windows need ten repetitions in the measured
    seconds."""
    latency_s: LatencySummary | None = None
    """Latencies from the scheduled arrival to the answer."""
    percentile_lag_s: float | None = None
    """Seconds by which the request at the percentile was sent late, which are in its latency."""
    percentile_engine_s: float | None = None
    """Seconds of the request at the percentile in the engine itself (sockets, routers); no bound of a plan has them."""
    percentile_stage_s: Mapping[str, float] | None = None
    """Operator -> service time in seconds of the request at the percentile."""
    score: float | None = None
    """Mean score of the answered requests, or with `accuracy_of: each` of those of the worst part; unscored ones count
    with the worst score of the metric."""
    score_standard_error: float | None = None
    cost_usd_per_h: float | None = None
    """Share of the cost of the sized deployments, by busy seconds, plus transfers."""
    stage_s: Mapping[str, float] | None = None
    """Operator -> mean service time in seconds."""
    slos_met: Mapping[SloKind, bool] | None = None
    """SLO of the query -> whether it was met, by the measured value."""
    satisfied: bool = False
    """True if the query was served and met all its SLOs, by the measured values."""
    items: int = 0
    """Number of distinct items among the requests."""
    bounds: Mapping[SloKind, MeasuredBounds] | None = None
    """Bounds of the latency in seconds, the score, and the cost in US dollars per hour, as far as measured."""
    verdicts: Mapping[SloKind, SloVerdict] | None = None
    """SLO of the query -> whether it holds within the bounds."""
    verdict: SloVerdict | None = None
    """Verdict on all SLOs together; None for a query without a plan."""
    decisive_items: int | None = None
    """Number of distinct items that would decide all SLOs if further requests were like these; None if no more are
    needed, or if very many would not do."""
    decisive_duration_s: float | None = None
    """Measured seconds of a test with the same seed that would send them; None if there are fewer items to send."""
    available_items: int = 0
    """Number of items that there were to send."""
    decisive_data_set_items: int | None = None
    """Number of items of a data set that holds out the decisive number; None without it, or if none are held out."""
    predicted: Estimate | None = None
    errors: tuple[str, ...] = ()
    """First distinct error messages."""
    metric: str = "accuracy"
    """Name of the metric whose mean is the score."""
    parts: tuple[PartMeasurement, ...] = ()
    """Measurements of the parts of a split plan, in the order of `QueryPlan.parts`; empty if it is not split."""


@dataclass(frozen=True)
class GeneratorLag:
    """Delay of sent requests relative to their schedule; latencies include it."""

    mean_s: float
    p99_s: float
    max_s: float
    late: bool
    """True if the machine was too busy to send on time, so that latencies are overestimated."""


@dataclass(frozen=True)
class SkippedDeployment:
    """Deployment whose service times cannot be learned from, with the reason."""

    deployment: Deployment
    reason: str


@dataclass(frozen=True)
class ServiceTimeReport:
    """Observed service times relative to the profile."""

    observations: tuple[ServiceTimeObservation, ...]
    """Observations by deployment."""
    refused: tuple[SkippedDeployment, ...]
    """Deployments without an observation."""


@dataclass(frozen=True)
class LoadReport:
    """Result of a load test, for all queries."""

    mode: str
    """`real` or `replay`."""
    arrivals: str
    """Arrival processes of the served queries (`poisson`, `bursty and poisson`), or the name of the trace file."""
    seed: int
    load_factor: float
    warm_up_s: float
    duration_s: float
    """Measured seconds, after the warm-up."""
    queries: tuple[QueryMeasurement, ...]
    lateness: GeneratorLag
    deployments_cost_usd_per_h: float
    """Cost of all sized deployments, used or not."""
    goodput: float
    """Total weight of the queries that met all SLOs, by the measured values; rejected queries add nothing."""
    total_weight: float
    """Total weight of all queries."""
    promises_kept: int
    """Number of served queries that meet all SLOs by their verdict; `verdicts` has the unsure ones."""
    promises: int
    """Number of served queries."""
    verdicts: Mapping[SloVerdict, int] = field(default_factory=dict)
    """Verdict on all SLOs of a query -> number of served queries."""
    learning: ServiceTimeReport | None = None
    """Observed service times, if requested."""
    machine: MachineLoad | None = None
    """Load of the machine, if it was monitored."""
    engine_end_s: float | None = None
    """Seconds after the first request at which the engine ended, and the test with it; None: it did not end."""
    overloaded: Mapping[str, float] = field(default_factory=dict)
    """Deployment -> its load relative to its capacity with full batches, by the profile's service times, where that is
    1 or more; empty for recorded arrivals."""
    replacements: tuple[PlanReplacement, ...] = ()
    """Replacements of the plan during the test: figures are of all these plans, predictions those of the first."""
    schema_version: int = SCHEMA_VERSION

    @property
    def totals(self) -> dict[str, int]:
        """Numbers of measured requests of all queries, answered and not."""
        lost = {name: sum(getattr(query, name) for query in self.queries) for name in _LOSSES}
        requests = sum(query.requests for query in self.queries)
        return {"requests": requests, "answered": requests - sum(lost.values()), **lost}
