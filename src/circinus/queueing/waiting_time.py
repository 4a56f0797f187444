"""Waiting times for a free server, by formula.

Sources: Erlang C by the recursion of Erlang B (Cooper, Introduction to Queueing Theory, 1981); mean waits by the
two-moment approximation of Allen and Cunneen with the interpolation of Kimura (1986) between M/M/c and M/D/c, for the
latter Cosmetatos' (1976) correction, capped as in Whitt, Approximations for the GI/G/m Queue (1993); regular arrivals
after Kraemer and Langenbach-Belz (1976); the variance of waits from the second moment of M/G/1 (Kleinrock, Queueing
Systems I, 1975, section 5.7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from circinus.arrays import FloatArray
from circinus.errors import PlanningError

Amount = float | FloatArray
"""Number or array of numbers; several of them broadcast."""

_NO_LOAD = 1e-300
"""Positive substitute for no load in a denominator."""

_MIN_UTILIZATION = 1e-9
"""Minimum utilization in a denominator."""

_MAX_CORRECTION = 0.24
"""Whitt's cap of Cosmetatos' correction, which grows without bound in light traffic, where it is not valid."""

_MIN_VARIATION, _MAX_VARIATION = 0.36, 7 / 3
"""Squared coefficients of variation that `WaitDistribution` can have: at 1/3 it would be uniform, at 7/3 its density
ends at 0."""


@dataclass(frozen=True)
class WaitDistribution:
    """Distribution of a waiting time: 0 with some probability, else from a family that matches mean and variance.

    The wait at a draw e of a standard exponential distribution is proportional to `e + shape (1 - exp(-e))`: an
    exponential tail, behind a nearly uniform head if the shape is large, like the residual life of a constant service
    time. Exact for M/M/c (shape 0); for M/G/1 mean and variance are exact, percentiles are not.
    """

    probability: Amount
    """Probability of waiting at all; all fields broadcast, or all are numbers."""
    conditional_mean_s: Amount
    """Mean wait, given that it is positive."""
    tail_shape: Amount
    """Shape, at least -1; negative if the tail is heavier than exponential."""

    @property
    def mean_s(self) -> Amount:
        return self.probability * self.conditional_mean_s

    def at(self, exponentials: FloatArray) -> FloatArray:
        """Return the waits at given draws.

        Args:
            exponentials: (n,) draws -log(1 - u) of uniforms u; further axes before them broadcast with the fields.

        Returns:
            (..., n) waits for this distribution of shape (...), in the precision of the draws.
        """
        tail_shape, scale = self.tail_shape, self.conditional_mean_s / (1 + self.tail_shape / 2)
        if _are_numbers(self.probability, tail_shape, scale):
            shift: Amount = float(np.log(self.probability)) if self.probability > 0 else -math.inf
            tail_shape, scale = float(tail_shape), float(scale)  # NumPy's numbers have a precision of their own
        else:
            with np.errstate(divide="ignore"):
                fields = np.log(self.probability), tail_shape, scale
            shift, tail_shape, scale = (np.asarray(field)[..., None].astype(exponentials.dtype) for field in fields)
        beyond = np.maximum(0.0, exponentials + shift)
        return np.asarray((beyond - tail_shape * np.expm1(-beyond)) * scale)

    def quantile(self, uniforms: ArrayLike) -> FloatArray:
        """Return (..., n) quantiles at n levels in [0, 1)."""
        return self.at(-np.log1p(-np.asarray(uniforms, dtype=np.float64)))


def erlang_c(servers: Amount, load: Amount) -> Amount:
    """Return the probability of waiting in M/M/c.

    Args:
        servers: integers >= 1.
        load: offered load, the mean number of requests in service; from `servers` on, every request waits.

    Returns:
        The probabilities, in the broadcast shape of the arguments.
    """
    if _are_numbers(servers, load):
        return _scalar_erlang_c(int(servers), float(load))
    count, offered = np.asarray(servers, dtype=np.float64), np.asarray(load, dtype=np.float64)
    blocked = np.ones(np.broadcast_shapes(count.shape, offered.shape))
    for k in range(1, int(count.max(initial=0)) + 1):
        blocked = np.where(k <= count, offered * blocked / (k + offered * blocked), blocked)
    free = 1.0 - np.minimum(offered / count, 1.0)
    return np.asarray(blocked / (blocked + free * (1.0 - blocked)))


@lru_cache(maxsize=65_536)
def _scalar_erlang_c(servers: int, load: float) -> float:
    """Return `erlang_c` of scalars by the same recursion, without the overhead of arrays.

    It forgets where it began within ten standard deviations of the number of busy servers, and ends where nobody is
    blocked: the time grows with the square root of the load.
    """
    first = max(1, int(load - 10.0 * math.sqrt(load)))
    blocked = 1.0 - (first - 1) / load if first > 1 else 1.0
    for k in range(first, servers + 1):
        blocked = load * blocked / (k + load * blocked)
        if blocked < _NO_LOAD:
            blocked = 0.0
            break
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
    """Return the waiting time in GI/G/c: FCFS, one queue for all servers, unbatched.

    All arguments are numbers or arrays; arrays broadcast. The formula is good for utilizations up to 0.7, service times
    whose squared coefficient of variation is at most 2, and Poisson arrivals: means are exact for one server, and
    within 5 % for several; 95th and 99th percentiles are mostly within 5 % for one server (up to 15 % if services are
    constant and waits short), and within 10 % for several. Beyond that the mean is still about right, but far
    percentiles may be off by a fifth. For more regular arrivals the mean is a two-moment approximation.

    Args:
        servers: number of servers, integer >= 1.
        utilization: share of the time that a server is busy, in [0, 1).
        service_s: mean service time in seconds.
        service_scv: squared coefficient of variation of the service time.
        service_skew: mean cube of the service time over the cube of its mean; default: that of a gamma distribution.
        arrival_scv: squared coefficient of variation of interarrival times, at most 1, the value of Poisson arrivals.

    Raises:
        PlanningError: the utilization is 1 or more.
    """
    lowest, highest = _range(utilization)
    if lowest < 0 or highest >= 1:
        raise PlanningError(
            f"utilization must be in [0, 1), got {highest:.3g}",
            code="load.overloaded",
            hint="Add replicas, or send fewer requests.",
        )
    skew = (1 + service_scv) * (1 + 2 * service_scv) if service_skew is None else service_skew
    probability = erlang_c(servers, utilization * servers)
    conditional_s = service_s / servers * (1 + service_scv) / 2 / (1 - utilization)
    conditional_s = conditional_s * _correction(servers, utilization, service_scv)
    if arrival_scv < 1:
        mean_ratio, probability_ratio = _regular_arrival_factors(utilization, max(arrival_scv, 0.0), service_scv)
        probability = probability * probability_ratio
        conditional_s = conditional_s * mean_ratio / np.maximum(probability_ratio, _NO_LOAD)
    variation = _variation(utilization, service_scv, skew)
    # With more servers, the wait for the first free one becomes more exponential.
    if not _are_numbers(servers, variation):
        variation = np.where((np.asarray(servers) > 1) & (variation < 1), (1 + variation) / 2, variation)
    elif servers > 1 and variation < 1:
        variation = (1 + variation) / 2
    return WaitDistribution(probability, conditional_s, _tail_shape(variation))


def _correction(servers: Amount, utilization: Amount, service_scv: Amount) -> Amount:
    """Return Kimura's interpolated mean wait relative to that of Allen and Cunneen; 1 for a single server."""
    light = (1 - utilization) * (servers - 1) * ((4 + 5 * servers) ** 0.5 - 2)
    correction = _clip(light / _clip(16 * utilization * servers, _NO_LOAD, math.inf), 0.0, _MAX_CORRECTION)
    return (1 + correction) / (1 + correction * service_scv)


def _regular_arrival_factors(
    utilization: Amount, arrival_scv: float, service_scv: Amount
) -> tuple[FloatArray, FloatArray]:
    """Return mean wait and probability of waiting, relative to Poisson arrivals (Kraemer and Langenbach-Belz)."""
    cs, rho = np.asarray(service_scv), np.maximum(utilization, _MIN_UTILIZATION)
    both = np.maximum(arrival_scv + cs, _MIN_UTILIZATION)
    mean = both / (1 + cs) * np.exp(-2 * (1 - rho) / (3 * rho) * (1 - arrival_scv) ** 2 / both)
    rarer = (1 - rho) * (1 + arrival_scv + rho * cs) / (1 + rho * (cs - 1) + rho**2 * (4 * arrival_scv + cs))
    return np.asarray(mean), np.asarray(np.clip(1 - (1 - arrival_scv) * rarer, 0.0, 1.0))


def _variation(utilization: Amount, service_scv: Amount, service_skew: Amount) -> Amount:
    """Return the squared coefficient of variation of positive waits in M/G/1."""
    mean = (1 + service_scv) / 2 / (1 - utilization)
    square = 2 * utilization * mean**2 + service_skew / 3 / (1 - utilization)
    return square / mean**2 - 1


def _tail_shape(variation: Amount) -> Amount:
    """Return the shape for a squared coefficient of variation, as close as the family allows.

    `e + k (1 - exp(-e))` has mean 1 + k/2 and variance 1 + k/2 + k^2/12.
    """
    v = _clip(variation, _MIN_VARIATION, _MAX_VARIATION)
    square = v / 3 - 1 / 12
    root = math.sqrt(square) if isinstance(square, float) else np.sqrt(square)
    return (0.5 - v + root) / (v / 2 - 1 / 6)


# The formulas above hold for numbers and arrays. Arrays of a single number would take ten times as long.


def _are_numbers(*amounts: Amount) -> bool:
    return all(isinstance(amount, (float, int)) for amount in amounts)


def _range(amount: Amount) -> tuple[float, float]:
    return (amount, amount) if isinstance(amount, (float, int)) else (float(amount.min()), float(amount.max()))


def _clip(amount: Amount, lower: float, upper: float) -> Amount:
    return min(max(amount, lower), upper) if isinstance(amount, (float, int)) else np.clip(amount, lower, upper)
