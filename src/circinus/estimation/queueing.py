"""How long requests wait for a free server.

Sources: Erlang C by the recursion of Erlang B (Cooper, Introduction to Queueing Theory, 1981); mean waits by the
two-moment approximation of Allen and Cunneen with the interpolation of Kimura (1986) between M/M/c and M/D/c, for the
latter Cosmetatos' (1976) correction, capped as in Whitt, Approximations for the GI/G/m Queue (1993).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circinus.errors import PlanningError

FloatArray = NDArray[np.float64]

_LARGEST_CORRECTION = 0.24
"""Cosmetatos' correction grows without bound in light traffic, where it is not meant to be used; Whitt's cap."""


@dataclass(frozen=True)
class Wait:
    """The distribution of a wait: 0 with some probability, else exponential.

    Exact for M/M/c (first come, first served). For other service times the mean is that of the two-moment
    approximation (exact for M/G/1), but the tail is not: its true rate of decay differs, so far percentiles come out
    too long for service times less variable than exponential ones and too short for more variable ones.
    """

    probability: FloatArray
    """Probability to wait at all; any shape."""
    conditional_mean_s: FloatArray
    """Mean wait of those who wait; the same shape."""

    @property
    def mean_s(self) -> FloatArray:
        """Mean wait of all."""
        return self.probability * self.conditional_mean_s

    def beyond(self, time_s: ArrayLike) -> FloatArray:
        """P(wait > time_s), for time_s >= 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            decay = np.where(self.conditional_mean_s > 0, np.exp(-np.asarray(time_s) / self.conditional_mean_s), 0.0)
        return np.asarray(self.probability * decay)

    def at(self, exponentials: FloatArray) -> FloatArray:
        """Waits at given draws.

        Args:
            exponentials: -log(1 - u) of uniforms u; its shape must broadcast with that of this wait.
        """
        with np.errstate(divide="ignore"):
            shift = np.log(self.probability)
        return np.asarray(np.maximum(0.0, exponentials + shift) * self.conditional_mean_s)

    def quantile(self, uniforms: ArrayLike) -> FloatArray:
        """The inverse of the distribution at uniforms in [0, 1)."""
        return self.at(-np.log1p(-np.asarray(uniforms, dtype=np.float64)))


def erlang_c(servers: ArrayLike, load: ArrayLike) -> FloatArray:
    """Probability to wait in M/M/c.

    Args:
        servers: whole numbers >= 1.
        load: mean number of requests in service (offered load); from `servers` on, everybody waits.

    Returns:
        The probabilities, of the shape that the arguments broadcast to.
    """
    count, offered = np.broadcast_arrays(np.asarray(servers, dtype=np.int64), np.asarray(load, dtype=np.float64))
    blocked = np.ones(count.shape)
    for k in range(1, int(count.max(initial=0)) + 1):
        blocked = np.where(k <= count, offered * blocked / (k + offered * blocked), blocked)
    free = 1.0 - np.minimum(offered / count, 1.0)
    return np.asarray(blocked / (blocked + free * (1.0 - blocked) + (blocked == 0)))


def waiting(
    servers: ArrayLike,
    utilization: ArrayLike,
    service_s: ArrayLike,
    service_scv: ArrayLike,
    *,
    arrival_scv: float = 1.0,
    batch_size: ArrayLike = 1,
) -> Wait:
    """The wait in G/G/c, first come, first served, one queue for all servers. All arguments broadcast.

    With batches a free server takes up to `batch_size` waiting requests at once and never waits for more. The model
    of that is conservative: every batch lasts as long as a full one; a request has to wait as often as if each
    request were alone in its batch (batches are then the most); it waits for the rest of a running batch, and for
    the batches ahead of it as in a queue of full batches, whose arrivals are `batch_size` times more regular.

    Args:
        servers: whole number of servers >= 1.
        utilization: share of the time that a server is busy when batches are full, in [0, 1).
        service_s: mean seconds of a (full) batch.
        service_scv: squared coefficient of variation of those seconds.
        arrival_scv: the same of the times between arrivals; 1 for Poisson arrivals.
        batch_size: most requests in a batch.

    Raises:
        PlanningError: a server would be busy all the time.
    """
    count, busy, mean_s, scv, batch = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (servers, utilization, service_s, service_scv, batch_size))
    )
    if np.any(busy >= 1) or np.any(busy < 0):
        raise PlanningError(
            f"found a utilisation of {float(busy.max()):.3g}, expected at least 0 and less than 1; add replicas or "
            f"send fewer requests"
        )
    residual = (arrival_scv + scv) / 2
    queue = busy / (1 - busy) * (arrival_scv / batch + scv) / 2
    conditional_s = mean_s / count * (residual + queue) * _correction(count, busy, scv)
    return Wait(erlang_c(count, batch * busy * count), conditional_s)


def _correction(servers: FloatArray, utilization: FloatArray, service_scv: FloatArray) -> FloatArray:
    """Kimura's interpolated mean wait over that of Allen and Cunneen; 1 for a single server."""
    light = (1 - utilization) * (servers - 1) * (np.sqrt(4 + 5 * servers) - 2)
    heavy = 16 * utilization * servers
    correction = np.where(light < _LARGEST_CORRECTION * heavy, light / np.maximum(heavy, 1e-300), _LARGEST_CORRECTION)
    correction = np.where(servers == 1, 0.0, correction)
    return np.asarray((1 + correction) / (1 + correction * service_scv))
