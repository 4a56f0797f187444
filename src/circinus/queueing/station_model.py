"""Model of a station under load: response time, and caveats on its accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from circinus.queueing.arrivals import MarkovModulatedPoisson
from circinus.queueing.burst_response import BurstyLoad
from circinus.queueing.lindley_recursion import INDEPENDENT, response_by_sample_path
from circinus.queueing.response_time import MIDPOINTS, ResponseTime, mean_batch_size, mixture
from circinus.queueing.waiting_time import WaitDistribution, gi_g_c_wait

MAX_UTILIZATION = 0.7
"""Utilization beyond which far percentiles depend on more than means and variances."""
MAX_SCV = 2.0
"""Squared coefficient of variation of service times beyond which rare ones dominate."""
_MIN_SCV = 0.2
"""Minimum squared coefficient of variation of service times for departures; from experiments by Whitt."""
_SINGLE = 1.05
"""Mean group size up to which requests count as arriving one by one."""
_ROUNDING = 1e-6
"""Tolerance of a utilization at its limit, as stations are sized for the limit."""
MAX_SIMULATED = 0.95
"""Maximum utilization at which stations without a formula are simulated for bounds."""
_MIN_LOAD = 1e-7
"""Minimum load of a station whose batches wait to fill, as a share of its capacity."""


@dataclass(frozen=True)
class LoadedStation:
    """Equal servers behind one FCFS queue, with their arrivals."""

    servers: int
    fill_ratios: tuple[float, ...]
    """(batch size,) time of a batch of 1, 2, ... relative to the mean unbatched time of its requests."""
    batch_wait_s: float
    rate_per_s: float
    mean_service_s: float
    """Mean unbatched service time."""
    service_scv: float
    """Squared coefficient of variation of the service time."""
    service_skew: float
    """Mean cube of the service time over the cube of its mean."""
    jitter_s: float | None = None
    """Standard deviation of periodic arrivals about their regular times; None for random arrivals."""
    modulation: MarkovModulatedPoisson | None = None
    """Process of bursty arrivals, or None."""
    groups: tuple[float, ...] = (1.0,)
    """Shares of groups of 1, 2, ... requests that arrive simultaneously, from an upstream station with batches."""
    arrival_scv: float = 1.0
    """Squared coefficient of variation of interarrival times, at most 1, the value of a Poisson process."""
    mean_factor: float = 1.0
    """Upper bound of actual over assumed service times, at least 1."""
    parts: int = 1
    """Number of parts into which the service of a request is divided, as its elements are served at the same time."""

    @property
    def capacity_per_s(self) -> float:
        """Throughput of all servers with full batches."""
        seconds = self.mean_service_s * self.fill_ratios[-1]
        return self.servers * len(self.fill_ratios) / seconds if seconds > 0 else math.inf

    @property
    def utilization(self) -> float:
        """Share of the time that a server would be busy if all batches were full."""
        return self.rate_per_s / self.capacity_per_s

    @property
    def is_poisson(self) -> bool:
        """True if the formula for unbatched Poisson arrivals applies."""
        return self._one_by_one and self.modulation is None

    @property
    def _is_periodic(self) -> bool:
        return self.jitter_s is not None and self.jitter_s * self.rate_per_s < INDEPENDENT

    @property
    def _one_by_one(self) -> bool:
        return len(self.fill_ratios) == 1 and not self._is_periodic and mean_batch_size(self.groups) <= _SINGLE

    def pessimistic(self) -> LoadedStation | None:
        """Return the station with the longest service times, or None if its response time cannot be determined.

        This is the case if it is overloaded, or so busy that a sample path of some thousand requests does not show how
        long queues get.
        """
        if self.mean_factor == 1:
            return self
        slower = replace(self, mean_service_s=self.mean_service_s * self.mean_factor, mean_factor=1.0)
        limit = 1.0 if slower.is_poisson else MAX_SIMULATED
        return slower if slower.utilization < limit else None

    def response(self) -> ResponseTime:
        """Return the response time, cached for equal stations; for bursty arrivals see `burst_response`.

        Raises:
            PlanningError: the station is overloaded.
        """
        return _response(self if self.mean_factor == 1 else replace(self, mean_factor=1.0))

    def wait(self, utilization: float) -> WaitDistribution:
        """Return the waiting time of unbatched random arrivals at a given utilization.

        Raises:
            PlanningError: the station is overloaded.
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
        """`arrival_scv` of the next station, at most 1 (Whitt, The Queueing Network Analyzer, 1983).

        It is assumed to be 1 for stations with batches or periodic arrivals, where it is unknown.
        """
        if not self.is_poisson:
            return 1.0
        rho = min(self.utilization, 1.0)
        regular = rho**2 / math.sqrt(self.servers) * (max(self.service_scv, _MIN_SCV) - 1)
        return min(1.0, 1 + (1 - rho**2) * (self.arrival_scv - 1) + regular)

    def caveats(self) -> tuple[str, ...]:
        """Return why the response time is only a rough estimate; empty if it is accurate (see `waiting_time`)."""
        caveats = []
        if self.utilization > MAX_UTILIZATION + _ROUNDING:
            caveats.append(f"utilization is {self.utilization:.0%}")
        if self.modulation is not None:
            caveats.append("arrivals are bursty")
        if self.service_scv > MAX_SCV:
            caveats.append(f"service times vary widely (squared coefficient of variation {self.service_scv:.1f})")
        return tuple(caveats)

    def steady_response(self, rate_per_s: float) -> ResponseTime:
        """Return the response time at a constant rate, without bursts."""
        if self._one_by_one:
            wait = self.wait(rate_per_s / self.capacity_per_s)
            factor = np.full(len(MIDPOINTS), self.fill_ratios[0])
            return ResponseTime(np.asarray(wait.quantile(MIDPOINTS)), factor, float(wait.mean_s))
        mean_s = self.mean_service_s
        if self.batch_wait_s > 0 and rate_per_s > 0:  # the filling of batches depends on the arrival rate
            full_s = self.servers * len(self.fill_ratios) / rate_per_s
            mean_s = max(mean_s, _MIN_LOAD * full_s / self.fill_ratios[-1])
        response = response_by_sample_path(
            self.servers,
            self.fill_ratios,
            rate_per_s * mean_s * self.fill_ratios[-1] / (self.servers * len(self.fill_ratios)),
            self.service_scv,
            batch_wait=self.batch_wait_s / mean_s if mean_s > 0 else 0.0,
            jitter=None if self.jitter_s is None else self.jitter_s * rate_per_s,
            groups=self.groups,
        )
        return response.scaled(mean_s)


@lru_cache(maxsize=65_536)
def _response(load: LoadedStation) -> ResponseTime:
    if load.modulation is None or load.utilization >= 1:
        return load.steady_response(load.rate_per_s)  # raises if the station is overloaded
    process = load.modulation
    low_load_per_s = process.rates_per_s[1 - process.burst]
    bursty = BurstyLoad(
        process.rates_per_s[process.burst],
        low_load_per_s,
        (process.durations_s[process.burst], process.durations_s[1 - process.burst]),
        load.rate_per_s,
        load.capacity_per_s,
        load.service_scv,
    )
    share, rate_per_s, backlog_s = bursty.in_bursts()
    in_bursts = load.steady_response(float(rate_per_s)).shifted(backlog_s)
    parts = [(1 - float(share), load.steady_response(low_load_per_s)), (float(share), in_bursts)]
    return mixture(parts, load.mean_service_s)
