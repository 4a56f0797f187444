"""A station under load: how long requests spend at it, and how far that can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from circinus.queueing.arrivals import MarkovModulatedPoisson
from circinus.queueing.lindley_recursion import INDEPENDENT, response_by_sample_path
from circinus.queueing.response_time import MIDDLES, ResponseTime, mean_batch_size, mixture
from circinus.queueing.waiting_time import WaitDistribution, gi_g_c_wait

MOST_UTILIZATION = 0.7
"""Beyond it far percentiles depend on more than means and variances."""
MOST_SCV = 2.0
"""Of service times; beyond it rare ones decide."""
_LEAST_SCV = 0.2
"""Of services, as far as what comes out is concerned; from experiments of Whitt's."""
_NEARLY_FULL = 0.85
"""A station that bursts load no more than this is taken to settle within a burst."""
_ALONE = 1.05
"""Up to so many at once, requests count as coming one by one."""
_ROUNDING = 1e-6
"""A utilisation beyond a limit by less is at it: that of what was sized for it."""
_MOST_FOLLOWED = 0.95
"""Utilisation up to which stations without a formula are followed for bounds."""
_LEAST_LOAD = 1e-7
"""Where batches wait to fill, requests that ask for less than this of the capacity are taken to ask for it."""


@dataclass(frozen=True)
class LoadedStation:
    """Equal servers behind one queue, in order of arrival, and the requests that come."""

    servers: int
    fill_ratios: tuple[float, ...]
    """(batch size,) seconds of a batch of 1, 2, ... over the mean of its requests' seconds alone."""
    batch_wait_s: float
    rate_per_s: float
    mean_service_s: float
    """Mean seconds of a request alone."""
    service_scv: float
    """Squared coefficient of variation of these."""
    service_skew: float
    """Mean cube of these over the cube of their mean."""
    jitter_s: float | None = None
    """Requests come one every so often, each moved with this standard deviation; None: at random."""
    modulation: MarkovModulatedPoisson | None = None
    """Whether they come in bursts."""
    groups: tuple[float, ...] = (1.0,)
    """Shares of groups of 1, 2, ... requests that come at once: from a station before that serves in batches."""
    arrival_scv: float = 1.0
    """Squared coefficient of variation of the times between requests, at most 1: that of independent ones."""
    mean_factor: float = 1.0
    """At least 1: how much longer servers may take than they are taken to."""

    @property
    def capacity_per_s(self) -> float:
        """Requests that all servers get done a second, when batches are full."""
        seconds = self.mean_service_s * self.fill_ratios[-1]
        return self.servers * len(self.fill_ratios) / seconds if seconds > 0 else math.inf

    @property
    def utilization(self) -> float:
        """Share of the time that a server would be busy if all batches were full."""
        return self.rate_per_s / self.capacity_per_s

    @property
    def is_poisson(self) -> bool:
        """Whether one formula says it all."""
        return self._one_by_one and self.modulation is None

    @property
    def _regular(self) -> bool:
        return self.jitter_s is not None and self.jitter_s * self.rate_per_s < INDEPENDENT

    @property
    def _one_by_one(self) -> bool:
        return len(self.fill_ratios) == 1 and not self._regular and mean_batch_size(self.groups) <= _ALONE

    def pessimistic(self) -> LoadedStation | None:
        """With servers that take as long as they may; None: then no time at the station can be told.

        They would be busy all the time, or for so much of it that a path of some thousand requests does not show how
        long queues get.
        """
        if self.mean_factor == 1:
            return self
        slower = replace(self, mean_service_s=self.mean_service_s * self.mean_factor, mean_factor=1.0)
        most = 1.0 if slower.is_poisson else _MOST_FOLLOWED
        return slower if slower.utilization < most else None

    def response(self) -> ResponseTime:
        """The time at the station; computed once for equal stations.

        Requests in bursts: where the station keeps up with a burst, requests meet it as if the rate at which they come
        had always been so. Where it does not, what cannot be served waits as a fluid does that comes and goes at two
        rates (Anick, Mitra and Sondhi, Bell System Technical Journal 61, 1982, for one source): the requests of a burst
        and those that come before the backlog is gone wait for an exponential time. A burst fills the queue as much as
        a Brownian motion with its drift and variance rises in an exponential time (Borodin and Salminen, Handbook of
        Brownian Motion, 2002), so that one that is just served fills it, too.

        Raises:
            PlanningError: servers would be busy all the time.
        """
        return _response(self if self.mean_factor == 1 else replace(self, mean_factor=1.0))

    def wait(self, utilization: float) -> WaitDistribution:
        """How long requests that come one by one and at random wait for a server, whatever their rate really is.

        Raises:
            PlanningError: servers would be busy all the time.
        """
        service_s = self.mean_service_s * self.fill_ratios[0]
        return gi_g_c_wait(
            self.servers,
            utilization,
            service_s,
            self.service_scv,
            service_skew=self.service_skew,
            arrival_scv=self.arrival_scv,
        )

    @property
    def departure_scv(self) -> float:
        """`arrival_scv` of a station behind this one, at most 1 (Whitt, The Queueing Network Analyzer, 1983).

        Of stations that serve in batches or requests that come regularly it is not known, and taken as 1.
        """
        if not self.is_poisson:
            return 1.0
        rho = min(self.utilization, 1.0)
        regular = rho**2 / math.sqrt(self.servers) * (max(self.service_scv, _LEAST_SCV) - 1)
        return min(1.0, 1 + (1 - rho**2) * (self.arrival_scv - 1) + regular)

    def caveats(self) -> tuple[str, ...]:
        """Why the response is no more than a guess; empty where it is good (see `formulas.waiting`)."""
        found = []
        if self.utilization > MOST_UTILIZATION + _ROUNDING:
            found.append(f"it is busy for {self.utilization:.0%} of the time")
        if self.modulation is not None:
            found.append("requests come in bursts")
        if self.service_scv > MOST_SCV:
            found.append(f"its service times vary widely (squared coefficient of variation {self.service_scv:.1f})")
        return tuple(found)

    def is_stable(self, rate_per_s: float) -> ResponseTime:
        """As if requests had always come at this rate, without bursts."""
        if self._one_by_one:
            wait = self.wait(rate_per_s / self.capacity_per_s)
            factor = np.full(len(MIDDLES), self.fill_ratios[0])
            return ResponseTime(np.asarray(wait.quantile(MIDDLES)), factor, float(wait.mean_s))
        alone_s = self.mean_service_s
        if self.batch_wait_s > 0 and rate_per_s > 0:  # how batches fill depends on how often requests come
            full_s = self.servers * len(self.fill_ratios) / rate_per_s
            alone_s = max(alone_s, _LEAST_LOAD * full_s / self.fill_ratios[-1])
        found = response_by_sample_path(
            self.servers,
            self.fill_ratios,
            rate_per_s * alone_s * self.fill_ratios[-1] / (self.servers * len(self.fill_ratios)),
            self.service_scv,
            batch_wait=self.batch_wait_s / alone_s if alone_s > 0 else 0.0,
            jitter=None if self.jitter_s is None else self.jitter_s * rate_per_s,
            groups=self.groups,
        )
        return found.scaled(alone_s)


@lru_cache(maxsize=65_536)
def _response(load: LoadedStation) -> ResponseTime:
    if load.modulation is None or load.utilization >= 1:
        return load.is_stable(load.rate_per_s)  # which says so where servers would be busy all the time
    come, capacity_per_s = load.modulation, load.capacity_per_s
    burst_per_s, calm_per_s = come.rates_per_s[come.burst], come.rates_per_s[1 - come.burst]
    in_bursts = burst_per_s * come.shares[come.burst] / come.rate_per_s
    if burst_per_s < _NEARLY_FULL * capacity_per_s:
        parts = ((1 - in_bursts, calm_per_s), (in_bursts, burst_per_s))
        return mixture([(share, load.is_stable(rate_per_s)) for share, rate_per_s in parts], load.mean_service_s)
    burst_s, calm_s = come.durations_s[come.burst], come.durations_s[1 - come.burst]
    drift, variance_s = burst_per_s / capacity_per_s - 1, burst_per_s / capacity_per_s**2 * (1 + load.service_scv)
    filling = (drift + math.hypot(drift, math.sqrt(2 * variance_s / burst_s))) / 2
    draining = 1 - calm_per_s / capacity_per_s
    decay_per_s = 1 / (burst_s * filling) - 1 / (calm_s * draining)
    if decay_per_s <= 0:  # barely keeps up on average
        decay_per_s = (1 - load.utilization) / (burst_s * filling)
    share = min(1.0, in_bursts * (1 + calm_per_s / burst_per_s * filling / draining))
    behind_s = -np.log1p(-MIDDLES) / decay_per_s
    behind = load.is_stable(min(load.rate_per_s, _NEARLY_FULL * capacity_per_s)).shifted(behind_s)
    return mixture([(1 - share, load.is_stable(calm_per_s)), (share, behind)], load.mean_service_s)
