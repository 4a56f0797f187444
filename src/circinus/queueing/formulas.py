"""How long requests wait for a free server.

Sources: Erlang C by the recursion of Erlang B (Cooper, Introduction to Queueing Theory, 1981); mean waits by the
two-moment approximation of Allen and Cunneen with the interpolation of Kimura (1986) between M/M/c and M/D/c, for the
latter Cosmetatos' (1976) correction, capped as in Whitt, Approximations for the GI/G/m Queue (1993).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from circinus.errors import PlanningError

FloatArray = NDArray[np.floating]
Amount = float | FloatArray
"""A number, or an array of numbers; several of them broadcast."""

_NO_LOAD = 1e-300
"""Stands for no load where it is divided by."""

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
    """Probability to wait at all; any shape that broadcasts with that of the other."""
    conditional_mean_s: FloatArray
    """Mean wait of those who wait."""

    @property
    def mean_s(self) -> FloatArray:
        """Mean wait of all."""
        return self.probability * self.conditional_mean_s

    def beyond(self, time_s: ArrayLike) -> FloatArray:
        """P(wait > time_s), for time_s >= 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            decay = np.where(self.conditional_mean_s > 0, np.exp(-np.asarray(time_s) / self.conditional_mean_s), 0.0)
        return np.asarray(self.probability * decay)

    def at(self, exponentials: NDArray[np.floating]) -> NDArray[np.floating]:
        """Waits at given draws.

        Args:
            exponentials: (n,) draws -log(1 - u) of uniforms u.

        Returns:
            (..., n) for this wait of shape (...), in the precision of the draws.
        """
        with np.errstate(divide="ignore"):
            shift = np.log(self.probability)[..., None].astype(exponentials.dtype)
        scale = self.conditional_mean_s[..., None].astype(exponentials.dtype)
        return np.asarray(np.maximum(0.0, exponentials + shift) * scale)

    def quantile(self, uniforms: ArrayLike) -> FloatArray:
        """(..., n) the inverse of the distribution at n uniforms in [0, 1)."""
        return self.at(-np.log1p(-np.asarray(uniforms, dtype=np.float64)))


def erlang_c(servers: Amount, load: Amount) -> FloatArray:
    """Probability to wait in M/M/c.

    Args:
        servers: whole numbers >= 1.
        load: mean number of requests in service (offered load); from `servers` on, everybody waits.

    Returns:
        The probabilities, of the shape that the arguments broadcast to.
    """
    if isinstance(servers, float | int) and isinstance(load, float | int):
        return np.asarray(_erlang_c_of_one(int(servers), float(load)))
    count, offered = np.asarray(servers, dtype=np.float64), np.asarray(load, dtype=np.float64)
    blocked = np.ones(np.broadcast_shapes(count.shape, offered.shape))
    for k in range(1, int(count.max(initial=0)) + 1):
        blocked = np.where(k <= count, offered * blocked / (k + offered * blocked), blocked)
    free = 1.0 - np.minimum(offered / count, 1.0)
    return np.asarray(blocked / (blocked + free * (1.0 - blocked)))


@lru_cache(maxsize=65_536)
def _erlang_c_of_one(servers: int, load: float) -> float:
    """`erlang_c` for numbers: the same recursion without the arrays, which would take most of the time."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    free = 1.0 - min(load / servers, 1.0)
    return blocked / (blocked + free * (1.0 - blocked))


def waiting(
    servers: Amount,
    utilization: Amount,
    service_s: Amount,
    service_scv: Amount,
    *,
    arrival_scv: float = 1.0,
    batch_size: Amount = 1.0,
) -> Wait:
    """The wait in G/G/c, first come, first served, one queue for all servers.

    All arguments are numbers or arrays; arrays broadcast.

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
    if np.min(utilization) < 0 or np.max(utilization) >= 1:
        raise PlanningError(
            f"found a utilisation of {np.max(utilization):.3g}, expected at least 0 and less than 1; add replicas or "
            f"send fewer requests"
        )
    residual = (arrival_scv + service_scv) / 2
    queue = utilization / (1 - utilization) * (arrival_scv / batch_size + service_scv) / 2
    probability = erlang_c(servers, batch_size * utilization * servers)
    # The correction is one of light traffic; with batches traffic is light as long as requests are served alone.
    correction = _correction(servers, np.minimum(batch_size * utilization, 1.0), service_scv)
    conditional_s = service_s / servers * (residual + queue) * correction
    return Wait(probability, np.asarray(conditional_s))


def _correction(servers: Amount, utilization: Amount, service_scv: Amount) -> Amount:
    """Kimura's interpolated mean wait over that of Allen and Cunneen; 1 for a single server."""
    light = (1 - utilization) * (servers - 1) * ((4 + 5 * servers) ** 0.5 - 2)
    correction = np.minimum(light / np.maximum(16 * utilization * servers, _NO_LOAD), _LARGEST_CORRECTION)
    return (1 + correction) / (1 + correction * service_scv)
