"""What the plans of a ladder would come to now."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.control.ladders.policy import RungLoad
from circinus.estimation import PlanCandidate
from circinus.serving import DeploymentStatus
from circinus.specification import Deployment, Query

WINDOWS_S = (1.0, 4.0, 16.0)
RECENT_S = 0.25
"""Too short for one query alone; what queries ask together of one deployment shows in it."""
_SURE_OF_RATES = 2.0
"""Standard deviations of a Poisson count by which a rate is surely above or below."""


@dataclass(frozen=True)
class RateBounds:
    """Requests a second."""

    likely_per_s: float
    least_per_s: float
    """Surely that many, in some of the windows: a burst shows in a short one, a slow rise in a long one."""
    most_per_s: float
    """Surely no more, over the longest."""
    recent_s: float
    """The last moments: a quarter of a second or little more; less than a second."""
    recent_requests: int
    """That came in them; 0 where readings are further apart."""


class RateEstimator:
    """The rate of one counter over windows of several lengths. Pure: told the time."""

    def __init__(self, windows_s: Sequence[float] = WINDOWS_S) -> None:
        """Nothing was read.

        Args:
            windows_s: ascending.
        """
        self._windows_s = tuple(windows_s)
        self._readings: deque[tuple[float, int]] = deque()
        """Since when a count may have been so, and the count."""

    def read(self, now_s: float, count: int, began_s: float | None = None) -> RateBounds | None:
        """After one more reading; None: it is too early to say anything.

        Args:
            now_s: later than at the last reading.
            count: less than before where what counts was started anew.
            began_s: when the reading began, if it took long: the count may be as old. So a span is never taken for
                shorter than it was, and a rate never for higher.
        """
        if self._readings and count < self._readings[-1][1]:
            self._readings.clear()
        found = self._bounds(now_s, count)
        self._readings.append((now_s if began_s is None else began_s, count))
        return found

    def _bounds(self, now_s: float, count: int) -> RateBounds | None:
        longest_s = self._windows_s[-1]
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - longest_s:
            self._readings.popleft()
        if not self._readings or now_s - self._readings[0][0] < self._windows_s[0]:
            return None
        oldest_s = self._readings[0][0]
        seen = [self._seen(now_s, count, window_s) for window_s in self._windows_s if window_s <= now_s - oldest_s]
        if now_s - oldest_s < longest_s:
            seen.append((now_s - oldest_s, count - self._readings[0][1]))
        least = max(max(0.0, n - _SURE_OF_RATES * math.sqrt(n)) / span_s for span_s, n in seen)
        span_s, n = seen[-1]
        # The least mean of which so few are unlikely: about (sqrt(n) + z/2)^2 (Anscombe, Biometrika 35, 1948).
        most = (math.sqrt(n + 0.375) + _SURE_OF_RATES / 2) ** 2 / span_s
        recent_s, recent = self._seen(now_s, count, RECENT_S)
        if recent_s >= self._windows_s[0]:
            recent = 0
        return RateBounds(n / span_s, least, max(most, least), recent_s, recent)

    def _seen(self, now_s: float, count: int, window_s: float) -> tuple[float, int]:
        """(seconds, requests) of the shortest span that is no shorter than a window."""
        begin_s, before = next(r for r in reversed(self._readings) if now_s - r[0] >= window_s)
        return now_s - begin_s, count - before


_SURE = 2.0
"""Standard deviations by which what was asked in the last moments is surely more than chance."""


@dataclass(frozen=True, eq=False)
class RungDemand:
    """What one plan of a query asks of its deployments."""

    candidate: PlanCandidate
    busy: Mapping[Deployment, float]
    """Replicas that one request a second keeps busy."""
    alone_s: float
    """Mean latency of a request that waits for nobody."""

    @classmethod
    def of(cls, candidate: PlanCandidate, query: Query) -> RungDemand:
        """From the plan's estimate."""
        estimate = candidate.estimate
        # Where branches are parallel not all of it is waited for: the percentile as estimated is more than enough.
        all_s = sum(stage.transfer_s + stage.service_s for stage in estimate.stages) + estimate.return_s
        return cls(
            candidate,
            {use.deployment: use.busy_replicas / query.rate_per_s for use in candidate.deployments},
            min(all_s, estimate.latency_s.value),
        )


@dataclass(frozen=True)
class QueryLoad:
    """One query as it is now."""

    demand: RungDemand
    """Of the plan in force."""
    rate: RateBounds
    dispersion: float = 1.0
    """By plan: variance over mean of how many requests come in such moments; 1 where chance alone acts."""

    @property
    def recent_per_s(self) -> float:
        """Requests in the last moments."""
        return self.rate.recent_requests / self.rate.recent_s

    @property
    def variance_per_s2(self) -> float:
        """Of that."""
        return self.dispersion * self.rate.recent_requests / self.rate.recent_s**2


class DeploymentLoads:
    """What all queries ask of every deployment, so that one of them can be moved."""

    def __init__(self, loads: Mapping[str, QueryLoad], deployments: Mapping[Deployment, DeploymentStatus]) -> None:
        """All queries whose rates are known, and the deployments that run."""
        self._loads = dict(loads)
        self._deployments = deployments
        self._least: defaultdict[Deployment, float] = defaultdict(float)
        self._likely: defaultdict[Deployment, float] = defaultdict(float)
        self._recent: defaultdict[Deployment, float] = defaultdict(float)
        self._variance: defaultdict[Deployment, float] = defaultdict(float)
        for load in self._loads.values():
            self._add(load, 1.0)

    def __contains__(self, query: str) -> bool:
        """Whether it is known how often its requests come."""
        return query in self._loads

    def rate(self, query: str) -> RateBounds:
        """How often requests of a query come."""
        return self._loads[query].rate

    def move(self, query: str, demand: RungDemand) -> None:
        """A query takes another plan."""
        old = self._loads[query]
        self._add(old, -1.0)
        self._loads[query] = replace(old, demand=demand)
        self._add(self._loads[query], 1.0)

    def rung_loads(self, query: str, rungs: Sequence[RungDemand]) -> tuple[RungLoad, ...]:
        """The rungs of a query's ladder, from the top down, if all its requests went there."""
        return tuple(self._view(self._loads[query], rung) for rung in rungs)

    def _add(self, load: QueryLoad, sign: float) -> None:
        for deployment, busy in load.demand.busy.items():
            self._least[deployment] += sign * load.rate.least_per_s * busy
            self._likely[deployment] += sign * load.rate.likely_per_s * busy
            self._recent[deployment] += sign * load.recent_per_s * busy
            self._variance[deployment] += sign * load.variance_per_s2 * busy**2

    def _view(self, load: QueryLoad, rung: RungDemand) -> RungLoad:
        least = likely = strain = surge = backlog_s = 0.0
        for deployment, busy in rung.busy.items():
            status = self._deployments.get(deployment)
            if status is None or status.replicas_ready < 1:
                return RungLoad(rung.alone_s, math.inf, math.inf, math.inf, math.inf, math.inf, ready=False)
            replicas, now = status.replicas_ready, load.demand.busy.get(deployment, 0.0)
            least = max(least, (self._least[deployment] + load.rate.least_per_s * (busy - now)) / replicas)
            here = (self._likely[deployment] + load.rate.likely_per_s * (busy - now)) / replicas
            likely, strain = max(likely, here), max(strain, here / deployment.allocation.utilization_target)
            recent = self._recent[deployment] + load.recent_per_s * (busy - now)
            variance = self._variance[deployment] + load.variance_per_s2 * (busy**2 - now**2)
            surge = max(surge, (recent - _SURE * math.sqrt(max(0.0, variance))) / replicas)
            # What waits is taken to be like this query's own; one batch of each replica goes together.
            together = replicas * deployment.allocation.batch_size if deployment.allocation.batch_size > 1 else 0
            backlog_s += max(0, status.queue_length - together) * busy / replicas
        return RungLoad(rung.alone_s, backlog_s, least, likely, strain, surge, ready=True)
