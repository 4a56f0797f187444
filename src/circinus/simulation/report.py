"""What a simulation showed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling import Interval
from circinus.specification import Slos

CONFIDENCE = 0.95
_SECTIONS = 20
_BEYOND = 5
"""Requests of a section that should lie beyond its percentile."""
_FEWEST = 5
"""Sections that a standard error is taken from, at least."""


def percentile_interval(latency_s: FloatArray, percentile: float) -> Interval:
    """A percentile of requests in the order in which they came, between the bounds of a 95 % confidence interval.

    Latencies of neighbours depend on each other: the run is cut into as many as 20 sections, and the interval is that
    of Student's t distribution about the percentile of all with the standard error of the sections' percentiles
    (batch means; Asmussen and Glynn, Stochastic Simulation, 2007, section IV.5). Sections should be much longer than
    queues live. With too few requests for five sections the bounds are order statistics, as if requests were
    independent, which is too narrow; where not even these exist, the upper bound is infinite.

    Args:
        latency_s: (n,) n >= 1.
        percentile: of 100.
    """
    count, share = len(latency_s), percentile / 100
    value = float(np.quantile(latency_s, share, method="inverted_cdf"))
    sections = min(_SECTIONS, int(count * (1 - share) / _BEYOND))
    if sections >= _FEWEST:
        size = count // sections
        of_sections = np.quantile(
            latency_s[: sections * size].reshape(sections, size), share, axis=1, method="inverted_cdf"
        )
        half = student_t(sections - 1) * float(of_sections.std(ddof=1)) / math.sqrt(sections)
        return Interval(value, max(0.0, value - half), value + half)
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(count * share * (1 - share))
    ordered = np.sort(latency_s)
    first, last = math.floor(count * share - reach), math.ceil(count * share + reach)
    return Interval(
        value,
        min(value, float(ordered[max(first, 1) - 1])) if first >= 1 else 0.0,
        max(value, float(ordered[last - 1])) if last <= count else math.inf,
    )


@lru_cache(maxsize=64)
def student_t(freedom: int) -> float:
    """The factor of a two-sided 95 % interval, by the expansion of Cornish and Fisher (Abramowitz and Stegun, Handbook
    of Mathematical Functions, 1964, 26.7.5); within 0.3 % from four degrees of freedom on."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms)))


@dataclass(frozen=True)
class StageOutcome:
    """Where the time of one operator goes, on average."""

    operator: str
    wait_s: float
    service_s: float


@dataclass(frozen=True)
class QueryOutcome:
    """One query in a simulated run."""

    query: str
    weight: float
    slos: Slos
    requests: int
    """That came after the warm-up; each was followed to its end."""
    rate_per_s: float
    latency_s: Mapping[str, Interval]
    """`p50`, `p90`, `p95`, `p99` and that of the query's objective, between bounds of a 95 % confidence interval."""
    percentile: float
    """The percentile (of 100) of the query's objective; 95 where it has none."""
    score: float
    """Mean of the items that its requests carried, as measured."""
    cost_usd_per_h: float
    """As planned, whatever the load."""
    stages: tuple[StageOutcome, ...]
    slos_met: Mapping[str, bool]
    """Objective (`latency`, `accuracy`, `cost`) -> whether it held; only those that the query has."""
    is_significant: bool
    """Whether the latency's confidence interval lies on one side of its limit."""

    @property
    def satisfied(self) -> bool:
        """Whether all objectives held."""
        return all(self.slos_met.values())

    @property
    def at_percentile_s(self) -> Interval:
        """The latency at the percentile of the objective."""
        return self.latency_s[f"p{self.percentile:g}"]


@dataclass(frozen=True)
class StationOutcome:
    """A deployment or one direction of a link in a simulated run, from beginning to end."""

    name: str
    servers: int
    requests: int
    utilization: float
    """Share of the simulated time that a server is busy."""
    offered_utilization: float
    """Share of what all servers can do, with full batches, that was asked for; from 1 on queues only grow."""
    mean_wait_s: float
    mean_fill: float
    """Requests a batch."""


@dataclass(frozen=True)
class SimulationReport:
    """All queries in one simulated run."""

    seed: int
    load: float
    """Times the queries' rates."""
    duration_s: float
    """Simulated seconds in which requests came, warm-up included."""
    warm_up_s: float
    """Requests that came before are in the queues and in no figure of a query."""
    queries: tuple[QueryOutcome, ...]
    deployments: tuple[StationOutcome, ...]
    links: tuple[StationOutcome, ...]
    goodput: float
    """Sum of the weights of queries whose objectives all held."""
    total_weight: float
    """Of all queries, those without a plan included."""
    executions: int
    """Requests times operators and links."""
    computed_s: float
    """Seconds that the simulation took."""
