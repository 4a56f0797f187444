"""What a simulation showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from circinus.profiling import Interval
from circinus.spec import Slos


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
