"""Report of a simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from circinus.arrays import FloatArray
from circinus.specification import SloKind, Slos
from circinus.statistics.interval import Interval
from circinus.statistics.student_t import student_t_quantile

CONFIDENCE = 0.95
_SECTIONS = 20
_MIN_BEYOND = 5
"""Minimum number of requests of a section beyond its percentile."""
_MIN_SECTIONS = 5
"""Minimum number of sections for a standard error."""


def percentile_interval(latency_s: FloatArray, percentile: float, confidence: float = CONFIDENCE) -> Interval:
    """Return a percentile of latencies with its confidence interval.

    Latencies of consecutive requests are correlated: the run is divided into up to 20 sections, and the interval is
    that of Student's t distribution about the overall percentile with the standard error of the sections' percentiles
    (batch means; Asmussen and Glynn, Stochastic Simulation, 2007, section IV.5). Sections should be much longer than
    busy periods. With too few requests for five sections, the bounds are order statistics of independent requests,
    which are too narrow; if these do not exist either, the upper bound is infinite. If the percentiles of some sections
    are infinite, the bounds are the least and the greatest one.

    Args:
        latency_s: (n,) latencies in order of arrival, n >= 1; infinite for dropped requests.
        percentile: percentile in (0, 100).
        confidence: probability that the interval contains the percentile.
    """
    count, share = len(latency_s), percentile / 100
    value = float(np.quantile(latency_s, share, method="inverted_cdf"))
    sections = _sections(count, percentile)
    if sections >= _MIN_SECTIONS:
        size = count // sections
        of_sections = np.quantile(
            latency_s[: sections * size].reshape(sections, size), share, axis=1, method="inverted_cdf"
        )
        if not np.isfinite(of_sections).all():
            return Interval(value, min(value, float(of_sections.min())), math.inf)
        quantile = student_t_quantile((1 - confidence) / 2, sections - 1)
        half_width = quantile * float(of_sections.std(ddof=1)) / math.sqrt(sections)
        return Interval(value, max(0.0, value - half_width), value + half_width)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(count * share * (1 - share))
    ordered = np.sort(latency_s)
    first, last = math.floor(count * share - reach), math.ceil(count * share + reach)
    return Interval(
        value,
        min(value, float(ordered[max(first, 1) - 1])) if first >= 1 else 0.0,
        max(value, float(ordered[last - 1])) if last <= count else math.inf,
    )


def has_sections(count: int, percentile: float) -> bool:
    """Return whether so many latencies suffice for the standard error of a percentile in `percentile_interval`."""
    return _sections(count, percentile) >= _MIN_SECTIONS


def _sections(count: int, percentile: float) -> int:
    return min(_SECTIONS, int(count * (1 - percentile / 100) / _MIN_BEYOND))


@dataclass(frozen=True)
class StageOutcome:
    """Mean times of an operator in a simulation."""

    operator: str
    wait_s: float
    service_s: float


@dataclass(frozen=True)
class QueryOutcome:
    """Outcome of a query in a simulation."""

    query: str
    weight: float
    slos: Slos
    requests: int
    """Number of requests after the warm-up."""
    dropped: int
    """Number of these that were dropped as late; all others were completed."""
    rate_per_s: float
    latency_s: Mapping[str, Interval]
    """`p50`, `p90`, `p95`, `p99` and the percentile of the latency SLO, with 95 % confidence intervals; dropped
    requests are infinitely late."""
    percentile: float
    """Percentile of the latency SLO, in (0, 100); 95 without one."""
    score: float
    """Mean measured score of the completed requests' items; NaN without any."""
    cost_usd_per_h: float
    """Planned cost, independent of the load."""
    stages: tuple[StageOutcome, ...]
    slos_met: Mapping[SloKind, bool]
    """SLO of the query -> whether it was met."""
    is_significant: bool
    """True if the confidence interval of the latency does not contain its limit."""

    @property
    def satisfied(self) -> bool:
        """True if all SLOs were met."""
        return all(self.slos_met.values())

    @property
    def at_percentile_s(self) -> Interval:
        """Latency at the percentile of the SLO."""
        return self.latency_s[f"p{self.percentile:g}"]


@dataclass(frozen=True)
class StationOutcome:
    """Outcome of a deployment or of one direction of a link in a simulation, including the warm-up."""

    name: str
    servers: int
    requests: int
    utilization: float
    """Share of the simulated time that a server is busy."""
    offered_utilization: float
    """Requested share of the throughput of all servers with full batches; queues grow without limit from 1 on."""
    mean_wait_s: float
    mean_fill: float
    """Mean batch size."""


@dataclass(frozen=True)
class SimulationReport:
    """Outcomes of all queries, deployments and links in a simulation."""

    seed: int
    load: float
    """Factor of the queries' rates."""
    duration_s: float
    """Simulated duration of arrivals, including the warm-up."""
    warm_up_s: float
    """Warm-up time; its requests occupy queues but are excluded from the outcomes of queries."""
    queries: tuple[QueryOutcome, ...]
    deployments: tuple[StationOutcome, ...]
    links: tuple[StationOutcome, ...]
    goodput: float
    """Sum of the weights of queries that met all SLOs."""
    total_weight: float
    """Total weight of all queries, including those without a plan."""
    is_shortened: bool
    """True if the duration is less than the default of an hour, which would have had too many executions."""
    executions: int
    """Number of executions: visits of requests to operators and links."""
    computed_s: float
    """Run time of the simulation."""
