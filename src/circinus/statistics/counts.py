"""Probabilities of counts, and bounds of quantiles by order statistics, which follow for any distribution.

David & Nagaraja, Order Statistics, 2003, chapter 7.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from circinus.arrays import FloatArray
from circinus.statistics.interval import Interval


def binomial_probabilities(count: int, share: float) -> FloatArray:
    """Return (count + 1,) probabilities of 0, 1, ..., `count` successes, each of probability `share` in (0, 1)."""
    successes = np.arange(count + 1)
    logs = successes * math.log(share) + (count - successes) * math.log1p(-share)
    return np.asarray(np.exp(_log_binomials(count, count) + logs))


@lru_cache(maxsize=1024)
def hypergeometric_critical_count(drawn: int, population: int, marked: int, risk: float) -> int:
    """Return the smallest count of marked items among those drawn that is reached with a probability of at most `risk`.

    Args:
        drawn: number of items drawn without replacement.
        population: number of items they are drawn from; may be huge.
        marked: number of marked items in the population.
        risk: maximum probability of the count or more, 0 < risk < 1.
    """
    logs = _log_binomials(marked, drawn) + _log_binomials(population - marked, drawn)[::-1]
    logs -= _log_binomials(population, drawn)[-1]
    reached = np.cumsum(np.exp(logs)[::-1])[::-1]
    return int((reached > risk).sum())


def _log_binomials(count: int, most: int) -> FloatArray:
    """Return (most + 1,) logarithms of the numbers of ways to select 0, 1, ..., `most` of `count` items."""
    selected = np.arange(most)
    with np.errstate(divide="ignore"):  # there is no way to select more than all
        steps = np.log(np.maximum(count - selected, 0)) - np.log(selected + 1)
    return np.concatenate(([0.0], np.cumsum(steps)))


def percentile_sample_size(percentile: float, risk: float) -> int:
    """Return the minimum number of items whose maximum reaches a percentile with probability 1 - risk.

    Without assumptions about the distribution, no bound from fewer items keeps the risk: n values drawn at random are
    all below the p-th percentile with probability (p/100)^n (Wilks, Annals of Mathematical Statistics 12, 1941). For
    the 95th percentile at a risk of 0.05 these are 59. Drawing without replacement needs no more.

    Args:
        percentile: percentile in (0, 100).
        risk: risk in (0, 1).
    """
    return max(1, math.ceil(math.log(risk) / math.log(percentile / 100.0)))


def median_bounds(values: FloatArray, risk: float) -> Interval:
    """Return the median of a distribution, bounded by two order statistics of n values drawn from it.

    The k-th smallest of n values is above the median with probability P(B < k), B binomial(n, 1/2). If even the
    extremes do not reach the risk, they are the bounds, and the risk is 2^(1-n).

    Args:
        values: (n,), n >= 1, independent.
        risk: probability that the median lies outside the bounds, both sides combined.
    """
    n = len(values)
    below = np.cumsum(binomial_probabilities(n, 0.5)[: n // 2])
    lowest = max(int((below <= risk / 2).sum()) - 1, 0)
    ordered = np.sort(values)
    return Interval(float(np.median(values)), float(ordered[lowest]), float(ordered[n - 1 - lowest]))


def percentile_bounds(values: FloatArray, percentile: float, risk: float, effective: float) -> tuple[float, float]:
    """Return the bounds of a percentile of a distribution by two order statistics of values drawn from it.

    The k-th smallest of n independent values is above the percentile with probability P(B < k), B binomial(n, p/100),
    and below it with probability P(B >= k) at most. Where values depend on each other, n is the number of independent
    values that estimate a share as precisely, and ranks are scaled to the number of values (Woodruff, Journal of the
    American Statistical Association 47, 1952; Korn & Graubard, Survey Methodology 24, 1998).

    Args:
        values: (n,), n >= 1; may be infinite.
        percentile: percentile in (0, 100).
        risk: probability that the percentile is below the lower bound; likewise above the upper one.
        effective: effective number of values, at most n.

    Returns:
        (lower, upper); infinite where even the extremes do not keep the risk.
    """
    count = max(1, int(effective))
    at_most = np.cumsum(binomial_probabilities(count, percentile / 100))
    lowest, highest = int((at_most <= risk).sum()), int((1 - at_most > risk).sum()) + 1
    ordered, scale = np.sort(values), len(values) / count
    lower = float(ordered[int(lowest * scale) - 1]) if lowest else -math.inf
    upper = float(ordered[min(math.ceil(highest * scale), len(values)) - 1]) if highest <= count else math.inf
    return lower, upper


@lru_cache(maxsize=256)
def median_unbiased_ranks(percentile: float, size: int) -> tuple[int, int]:
    """Return the ranks, from 1, of order statistics at most (at least) the percentile with probability 1/2."""
    below = binomial_probabilities(size, percentile / 100)
    at_most = np.cumsum(below)  # at_most[k]: P(at most k of the values lie below the percentile)
    reaching = np.flatnonzero(at_most[:-1] >= 0.5)
    upper = int(reaching[0]) + 1 if len(reaching) else size
    at_least = 1 - np.concatenate(([0.0], at_most[:-1]))
    lower = max(1, int(np.flatnonzero(at_least >= 0.5)[-1]))
    return lower, upper
