"""How long requests wait for a free server, by formula.

Sources: Erlang C by the recursion of Erlang B (Cooper, Introduction to Queueing Theory, 1981); mean waits by the
two-moment approximation of Allen and Cunneen with the interpolation of Kimura (1986) between M/M/c and M/D/c, for the
latter Cosmetatos' (1976) correction, capped as in Whitt, Approximations for the GI/G/m Queue (1993); regular
arrivals after Kraemer and Langenbach-Belz (1976); the spread of waits from the second moment of M/G/1 (Kleinrock,
Queueing Systems I, 1975, section 5.7).
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

_LEAST_UTILIZATION = 1e-9
"""Stands for less where it is divided by."""

_LARGEST_CORRECTION = 0.24
"""Cosmetatos' correction grows without bound in light traffic, where it is not meant to be used; Whitt's cap."""

_LEAST_VARIATION, _MOST_VARIATION = 0.36, 7 / 3
"""Squared coefficients of variation that `Wait` can have: at 1/3 it were uniform, at 7/3 its density ends at 0."""


@dataclass(frozen=True)
class WaitDistribution:
    """The distribution of a wait: 0 with some probability, else of a family with the right mean and variance.

    The wait at a draw e of a standard exponential distribution is proportional to `e + bend (1 - exp(-e))`: an
    exponential tail, behind a beginning that is nearly uniform where bend is large, as the rest of a service is that
    always takes the same. Exact for M/M/c (bend 0); mean and variance are exact for M/G/1, percentiles are not.
    """

    probability: FloatArray
    """Probability to wait at all; any shape that broadcasts with that of the others."""
    conditional_mean_s: FloatArray
    """Mean wait of those who wait."""
    tail_shape: FloatArray
    """From -1, where the tail is heavier than exponential."""

    @property
    def mean_s(self) -> FloatArray:
        """Mean wait of all."""
        return self.probability * self.conditional_mean_s

    def at(self, exponentials: NDArray[np.floating]) -> NDArray[np.floating]:
        """Waits at given draws.

        Args:
            exponentials: (n,) draws -log(1 - u) of uniforms u.

        Returns:
            (..., n) for this wait of shape (...), in the precision of the draws.
        """
        with np.errstate(divide="ignore"):
            shift = np.log(self.probability)[..., None].astype(exponentials.dtype)
        bend = self.tail_shape[..., None].astype(exponentials.dtype)
        scale = (self.conditional_mean_s / (1 + self.tail_shape / 2))[..., None].astype(exponentials.dtype)
        beyond = np.maximum(0.0, exponentials + shift)
        return np.asarray((beyond - bend * np.expm1(-beyond)) * scale)

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


def gi_g_c_wait(
    servers: Amount,
    utilization: Amount,
    service_s: Amount,
    service_scv: Amount,
    *,
    service_skew: Amount | None = None,
    arrival_scv: float = 1.0,
) -> WaitDistribution:
    """The wait in GI/G/c, first come, first served, one queue for all servers, one request at a time.

    All arguments are numbers or arrays; arrays broadcast. Good for utilisations up to 0.7, service times whose squared
    coefficient of variation is at most 2, and Poisson arrivals: means exact for one server, within 5 % for several;
    95th and 99th percentiles mostly within 5 % for one server (up to 15 % where services are constant and waits short),
    within 10 % for several. Beyond that the mean is still about right, but far percentiles may be off by a fifth. Of
    more regular arrivals the mean is an approximation of two moments.

    Args:
        servers: whole number of servers >= 1.
        utilization: share of the time that a server is busy, in [0, 1).
        service_s: mean seconds of service.
        service_scv: squared coefficient of variation of those seconds.
        service_skew: mean cube of those seconds over the cube of their mean; None: as gamma distributions have.
        arrival_scv: squared coefficient of variation of the times between arrivals, at most 1, as of Poisson arrivals.

    Raises:
        PlanningError: a server would be busy all the time.
    """
    if np.min(utilization) < 0 or np.max(utilization) >= 1:
        raise PlanningError(
            f"found a utilisation of {np.max(utilization):.3g}, expected at least 0 and less than 1; add replicas or "
            f"send fewer requests"
        )
    skew = (1 + service_scv) * (1 + 2 * service_scv) if service_skew is None else service_skew
    probability = erlang_c(servers, utilization * servers)
    conditional_s = service_s / servers * (1 + service_scv) / 2 / (1 - utilization)
    conditional_s = conditional_s * _correction(servers, utilization, service_scv)
    if arrival_scv < 1:
        more, often = _of_regular(utilization, max(arrival_scv, 0.0), service_scv)
        probability, conditional_s = probability * often, conditional_s * more / np.maximum(often, _NO_LOAD)
    variation = _variation(utilization, service_scv, skew)
    # The wait for the first of several servers varies as exponential ones do, the more servers the more so.
    variation = np.where((np.asarray(servers) > 1) & (variation < 1), (1 + variation) / 2, variation)
    return WaitDistribution(probability, np.asarray(conditional_s), _bend(variation))


def _correction(servers: Amount, utilization: Amount, service_scv: Amount) -> Amount:
    """Kimura's interpolated mean wait over that of Allen and Cunneen; 1 for a single server."""
    light = (1 - utilization) * (servers - 1) * ((4 + 5 * servers) ** 0.5 - 2)
    correction = np.minimum(light / np.maximum(16 * utilization * servers, _NO_LOAD), _LARGEST_CORRECTION)
    return (1 + correction) / (1 + correction * service_scv)


def _of_regular(utilization: Amount, arrival_scv: float, service_scv: Amount) -> tuple[FloatArray, FloatArray]:
    """The mean wait, and the probability to wait, over those with Poisson arrivals (Kraemer and Langenbach-Belz)."""
    cs, rho = np.asarray(service_scv), np.maximum(utilization, _LEAST_UTILIZATION)
    both = np.maximum(arrival_scv + cs, _LEAST_UTILIZATION)
    mean = both / (1 + cs) * np.exp(-2 * (1 - rho) / (3 * rho) * (1 - arrival_scv) ** 2 / both)
    rarer = (1 - rho) * (1 + arrival_scv + rho * cs) / (1 + rho * (cs - 1) + rho**2 * (4 * arrival_scv + cs))
    return np.asarray(mean), np.asarray(np.clip(1 - (1 - arrival_scv) * rarer, 0.0, 1.0))


def _variation(utilization: Amount, service_scv: Amount, service_skew: Amount) -> FloatArray:
    """Squared coefficient of variation of the wait of those who wait, in M/G/1."""
    mean = (1 + service_scv) / 2 / (1 - np.asarray(utilization))
    square = 2 * utilization * mean**2 + service_skew / 3 / (1 - np.asarray(utilization))
    return np.asarray(square / mean**2 - 1)


def _bend(variation: FloatArray) -> FloatArray:
    """The bend of the wait with a squared coefficient of variation, as near as the family comes.

    `e + k (1 - exp(-e))` has mean 1 + k/2 and variance 1 + k/2 + k^2/12.
    """
    v = np.clip(variation, _LEAST_VARIATION, _MOST_VARIATION)
    return np.asarray((0.5 - v + np.sqrt(v / 3 - 1 / 12)) / (v / 2 - 1 / 6))
