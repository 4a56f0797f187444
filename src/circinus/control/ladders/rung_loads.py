"""Loads of the rungs of a ladder at current request rates."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from circinus.control.ladders.policy import RungLoad
from circinus.estimation import PlanCandidate
from circinus.queueing.arrivals import arrival_process
from circinus.serving import DeploymentStatus, EngineStatus
from circinus.specification import Deployment, Query

WINDOWS_S = (1.0, 4.0, 16.0)
RECENT_S = 0.25
"""Window of recent arrivals: too short for one query, but long enough for the sum over a deployment's queries."""
_RATE_DEVIATIONS = 2.0
"""Standard deviations of a Poisson count between an estimate and its bounds."""


@dataclass(frozen=True)
class RateBounds:
    """Request rate of a query with bounds."""

    expected_per_s: float
    min_per_s: float
    """Lower bound, the maximum over the windows: short ones show a burst, long ones a slow rise."""
    max_per_s: float
    """Upper bound over the longest window."""
    recent_s: float
    """Actual length of the most recent window: at least 0.25 s and below 1 s."""
    recent_requests: int
    """Number of requests in the most recent window; 0 if readings are further apart."""


class RateEstimator:
    """Rate estimator of one counter over several windows. The caller passes the time."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, int]] = deque()
        """Pairs of the earliest time at which a count may have been valid, and the count."""

    def read(self, now_s: float, count: int, began_s: float | None = None) -> RateBounds | None:
        """Record a reading and return the rate, or None if it is too early for an estimate.

        Args:
            now_s: time after the last reading.
            count: value of the counter; a decrease means that the counter was restarted.
            began_s: start of a reading that took long. The count may date from then, so that spans are never
                underestimated and rates never overestimated.
        """
        if self._readings and count < self._readings[-1][1]:
            self._readings.clear()
        bounds = self._bounds(now_s, count)
        self._readings.append((now_s if began_s is None else began_s, count))
        return bounds

    def _bounds(self, now_s: float, count: int) -> RateBounds | None:
        max_s = WINDOWS_S[-1]
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - max_s:
            self._readings.popleft()
        if not self._readings or now_s - self._readings[0][0] < WINDOWS_S[0]:
            return None
        oldest_s = self._readings[0][0]
        windows_s = [window_s for window_s in WINDOWS_S if window_s <= now_s - oldest_s]
        spans = [self._shortest_span(now_s, count, window_s) for window_s in windows_s]
        if now_s - oldest_s < max_s:
            spans.append((now_s - oldest_s, count - self._readings[0][1]))
        min_per_s = max(max(0.0, n - _RATE_DEVIATIONS * math.sqrt(n)) / span_s for span_s, n in spans)
        span_s, n = spans[-1]
        # Upper confidence bound of a Poisson mean: about (sqrt(n) + z/2)^2 (Anscombe, Biometrika 35, 1948).
        max_per_s = (math.sqrt(n + 0.375) + _RATE_DEVIATIONS / 2) ** 2 / span_s
        recent_s, recent = self._shortest_span(now_s, count, RECENT_S)
        if recent_s >= WINDOWS_S[0]:
            recent = 0
        return RateBounds(n / span_s, min_per_s, max(max_per_s, min_per_s), recent_s, recent)

    def _shortest_span(self, now_s: float, count: int, window_s: float) -> tuple[float, int]:
        """Return (seconds, requests) of the shortest span that is at least as long as the window."""
        begin_s, before = next(r for r in reversed(self._readings) if now_s - r[0] >= window_s)
        return now_s - begin_s, count - before


class RequestRates:
    """Request rates of all queries, from the counters of the engine."""

    def __init__(self) -> None:
        self._estimators: dict[str, RateEstimator] = {}

    def read(
        self, now_s: float, status: EngineStatus, queries: Iterable[str], began_s: float | None = None
    ) -> dict[str, RateBounds]:
        """Read the counters of the served queries, and return the rates that can be estimated.

        Counters of other queries are forgotten. The status request was sent at `began_s`.
        """
        self._estimators = {name: self._estimators.get(name) or RateEstimator() for name in queries}
        counts = {query.query: query.received for query in status.queries if query.query in self._estimators}
        rates = {name: self._estimators[name].read(now_s, count, began_s) for name, count in counts.items()}
        return {name: rate for name, rate in rates.items() if rate is not None}


@lru_cache(maxsize=4096)
def planned_idc(query: Query) -> float:
    """Return the index of dispersion of planned arrivals over `RECENT_S`, at least 1 as for a Poisson process."""
    return max(1.0, float(arrival_process(query).index_of_dispersion(np.array([RECENT_S]))[0]))


_DEMAND_DEVIATIONS = 2.0
"""Standard deviations that are subtracted from recent demand, to exclude random clumps."""


@dataclass(frozen=True, eq=False)
class RungDemand:
    """Demand of one plan of a query on its deployments."""

    candidate: PlanCandidate
    busy: Mapping[Deployment, float]
    """Busy replicas per request per second, by deployment."""
    unloaded_latency_s: float
    """Mean latency of a request without waiting; of a split plan, that of the slowest part."""
    parts: tuple[RungDemand, ...] = ()
    """Demands of the parts of a split plan, each per request that takes it; empty if the plan is not split."""

    @classmethod
    def of(cls, candidate: PlanCandidate, query: Query) -> RungDemand:
        """Return the demand according to the plan's estimate."""
        shares = (part.share for part in candidate.plan.parts)
        parts = tuple(
            cls._of_part(part, share * query.rate_per_s) for part, share in zip(candidate.unsplit, shares, strict=True)
        )
        if not candidate.parts:
            return parts[0]
        busy = {use.deployment: use.busy_replicas / query.rate_per_s for use in candidate.deployments}
        return cls(candidate, busy, max(part.unloaded_latency_s for part in parts), parts)

    @classmethod
    def _of_part(cls, candidate: PlanCandidate, rate_per_s: float) -> RungDemand:
        estimate = candidate.estimate
        # With parallel branches the sum exceeds the latency: cap it by the estimated percentile.
        total_s = sum(stage.transfer_s + stage.service_s for stage in estimate.stages) + estimate.return_s
        return cls(
            candidate,
            {use.deployment: use.busy_replicas / rate_per_s for use in candidate.deployments},
            min(total_s, estimate.latency_s.value),
        )


@dataclass(frozen=True)
class QueryLoad:
    """Current load of one query."""

    demand: RungDemand
    """Demand of the deployed plan."""
    rate: RateBounds
    dispersion: float = 1.0
    """Planned index of dispersion (variance over mean) of arrivals within `RECENT_S`; 1 for a Poisson process."""

    @property
    def recent_per_s(self) -> float:
        """Request rate within the most recent window."""
        return self.rate.recent_requests / self.rate.recent_s

    @property
    def variance_per_s2(self) -> float:
        """Variance of the recent request rate."""
        return self.dispersion * self.rate.recent_requests / self.rate.recent_s**2


class DeploymentLoads:
    """Loads of all queries on every deployment, from which moves of a query are evaluated."""

    def __init__(self, loads: Mapping[str, QueryLoad], deployments: Mapping[Deployment, DeploymentStatus]) -> None:
        """Add up the loads of all queries with estimated rates; `deployments` are those that run."""
        self._loads = dict(loads)
        self._deployments = deployments
        self._min_demand: defaultdict[Deployment, float] = defaultdict(float)
        self._expected_demand: defaultdict[Deployment, float] = defaultdict(float)
        self._recent_demand: defaultdict[Deployment, float] = defaultdict(float)
        self._recent_variance: defaultdict[Deployment, float] = defaultdict(float)
        for load in self._loads.values():
            self._add(load, 1.0)

    def __contains__(self, query: str) -> bool:
        """Return whether the rate of a query is estimated."""
        return query in self._loads

    def move(self, query: str, demand: RungDemand) -> None:
        """Move the load of a query to another plan."""
        old = self._loads[query]
        self._add(old, -1.0)
        self._loads[query] = replace(old, demand=demand)
        self._add(self._loads[query], 1.0)

    def rung_loads(self, query: str, rungs: Sequence[RungDemand]) -> tuple[RungLoad, ...]:
        """Return the loads of a query's rungs, from the top down, if all its requests used the rung."""
        return tuple(self._rung_load(self._loads[query], rung) for rung in rungs)

    def _add(self, load: QueryLoad, sign: float) -> None:
        for deployment, busy in load.demand.busy.items():
            self._min_demand[deployment] += sign * load.rate.min_per_s * busy
            self._expected_demand[deployment] += sign * load.rate.expected_per_s * busy
            self._recent_demand[deployment] += sign * load.recent_per_s * busy
            self._recent_variance[deployment] += sign * load.variance_per_s2 * busy**2

    def _rung_load(self, load: QueryLoad, rung: RungDemand) -> RungLoad:
        minimum = expected = relative = recent_max = 0.0
        for deployment, busy in rung.busy.items():
            status = self._deployments.get(deployment)
            if status is None or status.replicas_ready < 1:
                return RungLoad(rung.unloaded_latency_s, math.inf, math.inf, math.inf, math.inf, math.inf, ready=False)
            replicas, current = status.replicas_ready, load.demand.busy.get(deployment, 0.0)
            minimum = max(minimum, (self._min_demand[deployment] + load.rate.min_per_s * (busy - current)) / replicas)
            utilization = (self._expected_demand[deployment] + load.rate.expected_per_s * (busy - current)) / replicas
            expected = max(expected, utilization)
            relative = max(relative, utilization / deployment.allocation.utilization_target)
            recent = self._recent_demand[deployment] + load.recent_per_s * (busy - current)
            variance = self._recent_variance[deployment] + load.variance_per_s2 * (busy**2 - current**2)
            recent_max = max(recent_max, (recent - _DEMAND_DEVIATIONS * math.sqrt(max(0.0, variance))) / replicas)
        parts = rung.parts or (rung,)  # every part meets the SLO for its own requests, so the latest one counts
        waits_s = [(part.unloaded_latency_s, self._backlog_s(part)) for part in parts]
        unloaded_s, backlog_s = max(waits_s, key=sum)
        return RungLoad(unloaded_s, backlog_s, minimum, expected, relative, recent_max, ready=True)

    def _backlog_s(self, demand: RungDemand) -> float:
        """Return the waiting time of a request that arrives now, as if queued requests were like it."""
        backlog_s = 0.0
        for deployment, busy in demand.busy.items():
            status = self._deployments[deployment]
            # Each replica takes one batch of queued requests at once.
            in_batch = deployment.allocation.batch_size if deployment.allocation.batch_size > 1 else 0
            waiting = max(0, status.queue_length - status.replicas_ready * in_batch)
            backlog_s += waiting * busy / status.replicas_ready
        return backlog_s
