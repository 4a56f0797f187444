"""Response times to bursty arrivals: those at two constant rates, mixed.

If a station keeps up with a burst, requests see it as if their current rate were permanent. If it does not, the backlog
is a fluid queue with two rates (Anick, Mitra and Sondhi, Bell System Technical Journal 61, 1982, for one source): the
requests of a burst, and those that arrive before the backlog is gone, wait for an exponential time. A burst fills the
queue as much as a Brownian motion with its drift and variance rises in an exponential time (Borodin and Salminen,
Handbook of Brownian Motion, 2002), so that even a burst at capacity fills it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray
from circinus.queueing.response_time import MIDPOINTS, WIDTHS
from circinus.queueing.waiting_time import Amount, gi_g_c_wait

_NEARLY_FULL = 0.85
"""Utilization in bursts up to which a station is assumed to settle within a burst."""
_hypot = np.frompyfunc(math.hypot, 2, 1)  # that of NumPy differs in the last digit


@dataclass(frozen=True, eq=False)
class BurstyLoad:
    """Load of a station at two alternating rates, or with arrays (n,) of n stations."""

    burst_per_s: Amount
    """Rate in bursts."""
    low_per_s: Amount
    """Rate between bursts."""
    durations_s: tuple[float, float]
    """Mean durations of a burst and between bursts."""
    rate_per_s: Amount
    """Mean rate."""
    capacity_per_s: Amount
    """Throughput of all servers with full batches."""
    service_scv: Amount
    """Squared coefficient of variation of the service time."""

    def in_bursts(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the share of the requests that bursts concern, the constant rate that they see, and their backlog.

        The backlog is in (..., levels) seconds.
        """
        burst_s, low_s = self.durations_s
        burst_per_s, low_per_s, capacity_per_s = self.burst_per_s, self.low_per_s, np.float64(self.capacity_per_s)
        burst_share, low_share = burst_s / (burst_s + low_s), low_s / (burst_s + low_s)
        in_bursts = burst_per_s * burst_share / (burst_per_s * burst_share + low_per_s * low_share)
        settles = np.asarray(burst_per_s < _NEARLY_FULL * capacity_per_s)
        drift = burst_per_s / capacity_per_s - 1
        variance_s = burst_per_s / capacity_per_s**2 * (1 + self.service_scv)
        with np.errstate(divide="ignore", invalid="ignore"):  # where a station settles at once
            filling = (drift + np.float64(_hypot(drift, np.sqrt(2 * variance_s / burst_s)))) / 2
            draining = 1 - low_per_s / capacity_per_s
            decay_per_s = 1 / (burst_s * filling) - 1 / (low_s * draining)
            barely = (1 - self.rate_per_s / capacity_per_s) / (burst_s * filling)  # keeps up on average
            decay_per_s = np.where(decay_per_s <= 0, barely, decay_per_s)
            share = np.minimum(1.0, in_bursts * (1 + low_per_s / burst_per_s * filling / draining))
            backlog_s = -np.log1p(-MIDPOINTS) / decay_per_s[..., None]
        return (
            np.where(settles, in_bursts, share),
            np.where(settles, burst_per_s, np.minimum(self.rate_per_s, _NEARLY_FULL * capacity_per_s)),
            np.where(settles[..., None], 0.0, backlog_s),
        )


def unbatched_waits_s(
    load: BurstyLoad, servers: FloatArray, service_s: FloatArray, service_skew: float
) -> Iterator[FloatArray]:
    """Yield the (levels,) waiting times at each of n stations without batches, with (n,) mean service times."""
    share, rate_per_s, backlog_s = load.in_bursts()  # arrays
    low_s, in_bursts_s = (
        gi_g_c_wait(
            servers, rate / load.capacity_per_s, service_s, load.service_scv, service_skew=service_skew
        ).quantile(MIDPOINTS)
        for rate in (load.low_per_s, rate_per_s)
    )
    wait_s = np.concatenate([low_s, in_bursts_s + backlog_s], axis=1)
    weight = np.concatenate([(1 - share)[:, None] * WIDTHS, share[:, None] * WIDTHS], axis=1)
    order = np.argsort(wait_s + service_s[:, None], axis=1, kind="stable")
    wait_s, weight = np.take_along_axis(wait_s, order, axis=1), np.take_along_axis(weight, order, axis=1)
    ends = np.cumsum(weight, axis=1)
    levels = (ends - weight / 2) / ends[:, -1:]
    for station in range(len(servers)):
        yield np.interp(MIDPOINTS, levels[station], wait_s[station])
