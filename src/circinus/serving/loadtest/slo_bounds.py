"""Bounds of what a load test measures, and verdicts on SLOs that chance alone does not explain.

Each bound fails with about the query's risk, and more often for latencies of deployments that are nearly full
(`latency_interval`). Requests for one item are no independent evidence of requests to come: distinct items count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from statistics import NormalDist

import numpy as np

from circinus.arrays import FloatArray
from circinus.estimation.percentiles import tolerance_factor
from circinus.specification import Slo
from circinus.statistics.autocorrelation import autocorrelation_time
from circinus.statistics.betting import betting_bounds
from circinus.statistics.counts import percentile_bounds
from circinus.statistics.interval import Interval
from circinus.statistics.martingale import UNLIMITED

_MIN_S = 1e-9
"""Minimum latency of which a logarithm is taken."""


class SloVerdict(StrEnum):
    """Verdict on an SLO, or on all SLOs of a query."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"
    """The bounds contain the limit."""

    @classmethod
    def of_all(cls, verdicts: Iterable[SloVerdict]) -> SloVerdict:
        """Return the verdict on several SLOs together."""
        seen = set(verdicts)
        return cls.NO if cls.NO in seen else cls.UNSURE if cls.UNSURE in seen else cls.YES

    @classmethod
    def of(cls, slo: Slo, bounds: Interval | None) -> SloVerdict:
        """Return whether an SLO holds for all values within bounds, for none of them, or for some."""
        if bounds is None:
            return cls.UNSURE
        if slo.is_met_by(slo.worst(bounds)):
            return cls.YES
        return cls.UNSURE if slo.is_met_by(slo.best(bounds)) else cls.NO


def latency_interval(latency_s: FloatArray, items: Sequence[str], percentile: float, risk: float) -> Interval:
    """Return a percentile of the latencies of requests to come, with bounds from order statistics.

    As many requests count as are independent: at most one for each item, since slow items slow down others in the queue
    as well, and fewer if slow requests follow each other (`autocorrelation_time` of their ranks). If these are too few
    for an upper bound, it is the upper tolerance limit of a log-normal distribution over the slowest request of each
    item, as in estimates from few items (`SmallSampleInflation`).

    Limits: at utilizations of 0.8, tests of some hundred requests do not show the longest queues, and a bound of risk
    0.05 fails in 10 to 30 % of simulated tests. At 0.5 it fails in 0 to 9 %, from 100 requests on.

    Args:
        latency_s: (n,) latencies in order of schedule, n >= 1; infinite without an answer.
        items: key of the item of each request.
        percentile: percentile in (0, 100).
        risk: probability that a bound fails.
    """
    value = float(np.percentile(latency_s, percentile, method="inverted_cdf"))
    _, rank = np.unique(latency_s, return_inverse=True)
    effective = min(len(set(items)), len(latency_s) / autocorrelation_time(rank))
    lower, upper = percentile_bounds(latency_s, percentile, risk, effective)
    if math.isinf(upper):
        upper = _tolerance_limit_s(latency_s, items, percentile, risk, effective)
    return Interval(value, min(value, max(lower, 0.0)), max(value, upper))


def _tolerance_limit_s(
    latency_s: FloatArray, items: Sequence[str], percentile: float, risk: float, effective: float
) -> float:
    _, item = np.unique(np.asarray(items), return_inverse=True)
    slowest_s = np.zeros(item.max() + 1)
    np.maximum.at(slowest_s, item, latency_s)
    factor = tolerance_factor(int(min(effective, len(slowest_s))), percentile / 100, risk)
    if math.isinf(factor) or not np.isfinite(slowest_s).all():
        return math.inf
    logs = np.log(np.maximum(slowest_s, _MIN_S))
    return math.exp(max(float(logs.max()), float(logs.mean() + factor * logs.std(ddof=1))))


def score_interval(scores: Sequence[float], items: Sequence[str], risk: float, low: float, high: float) -> Interval:
    """Return the mean score of requests to come, with betting bounds of the mean over items.

    Args:
        scores: (n,) scores in order of schedule, n >= 1.
        items: key of the item of each request.
        risk: probability that a bound fails.
        low: minimum possible score.
        high: maximum possible score.
    """
    by_item: dict[str, list[float]] = {}
    for score, item in zip(scores, items, strict=True):
        by_item.setdefault(item, []).append(score)
    means = np.clip([[float(np.mean(of_item)) for of_item in by_item.values()]], low, high)
    (bounds,) = betting_bounds(means, UNLIMITED, risk=risk, low=low, high=high)
    value = float(np.mean(scores))
    return Interval(value, min(value, bounds.lower), max(value, bounds.upper))


def cost_interval(cost_usd_per_h: float, standard_error: float, risk: float) -> Interval:
    """Return the cost with normal bounds."""
    reach = NormalDist().inv_cdf(1 - risk) * standard_error if risk < 0.5 else 0.0
    return Interval(cost_usd_per_h, max(0.0, cost_usd_per_h - reach), cost_usd_per_h + reach)
