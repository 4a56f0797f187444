"""Probability that a plan meets its SLOs: an estimate for ranking, not a guarantee."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from circinus.arrays import FloatArray
from circinus.specification import AccuracySlo, LatencySlo
from circinus.statistics.counts import binomial_probabilities, percentile_sample_size
from circinus.statistics.mean_decision import shrunk_variance
from circinus.statistics.student_t import student_t_cdf

_MIN_UNCERTAINTY = 1e-9
"""Minimum distance of an uncertain probability from 0 and 1, despite rounding."""
_MIN_S = 1e-9
"""Minimum time of which a logarithm is taken."""


def comparable_miss(probability: float) -> float:
    """Return the probability of missing SLOs to two significant digits, by which uncertain plans are compared.

    Of plans that are all but certain, one that misses in one of a million cases is better than one of a thousand.
    """
    return float(f"{1 - probability:.2g}")


def accuracy_slo_probability(
    scores: FloatArray, population: int | None, slo: AccuracySlo, score_range: tuple[float, float]
) -> float:
    """Return the probability that the mean score of a population meets an SLO.

    Given n of its N items in random order, the mean of all is assumed to be t-distributed about the mean of
    the n with variance s^2 / n (1 - n / N) (Cochran, Sampling Techniques, 1977, section 2.6), and s^2
    from `shrunk_variance`.

    Limits: this is an approximation, not a bound. It is too high for scores that are mostly equal with rare failures,
    until a failure is observed, and for the best of many configurations.

    Args:
        scores: (n,) scores of the first items.
        population: N, the number of items of the population; None if it is infinite.
    """
    count, mean = len(scores), float(scores.mean())
    if population is not None and count >= population:
        return float(slo.is_met_by(mean))
    remaining = 1.0 if population is None else 1.0 - count / population
    variance = shrunk_variance(float(((scores - mean) ** 2).sum()), count - 1, score_range[1] - score_range[0])
    return _uncertain(float(student_t_cdf(slo.margin(mean) / math.sqrt(variance / count * remaining), count)))


def latency_slo_probability(latency_s: FloatArray, items: int, slo: LatencySlo, risk: float) -> float:
    """Return the probability that the percentile of latency is within its limit.

    With enough items for a distribution-free bound (`percentile_sample_size`): let m of n items be within the limit.
    The result is the probability that fewer than m of n items lie below the true percentile, plus half the probability
    of exactly m (David & Nagaraja, Order Statistics, 2003, section 7.1). With fewer items a log-normal distribution is
    assumed, as in `circinus.estimation.percentiles`: the result is the confidence at which the upper tolerance limit
    equals the SLO's limit (the equation behind Natrella's factor, solved for the probability). An assumed distribution
    replaces no items: the result is at most 1 - risk, or that of n items all within the limit.

    Limits: the waits and links of the scenarios are treated as if each item had a single one of them; a rare slow kind
    of item that was not drawn is not covered.

    Args:
        latency_s: (scenarios,) latency of the plan, not inflated for small samples.
        items: number of measured items behind the scenarios.
    """
    count = min(items, len(latency_s))
    share = slo.percentile / 100
    if items < percentile_sample_size(slo.percentile, risk):
        return _uncertain(min(_most(items, slo, risk), _log_normal_probability(latency_s, count, slo)))
    within = float((latency_s <= slo.limit_s + slo.tolerance).mean()) * count
    fewer = math.floor(within + 1e-9)
    part = max(0.0, within - fewer)
    below = _below(count, share, fewer)
    return _uncertain(below if part == 0 else (1 - part) * below + part * _below(count, share, fewer + 1))


def _most(items: int, slo: LatencySlo, risk: float) -> float:
    """Return the highest probability of meeting a latency SLO that a number of items can show: all within the limit."""
    return max(1 - risk, _below(items, slo.percentile / 100, items))


def bounded_latency_probability(
    latency_s: FloatArray, items: int, slo: LatencySlo, risk: float, *, is_guaranteed: bool
) -> tuple[float, int | None]:
    """Return `latency_slo_probability`, at least 1 - risk of a guaranteed latency and at most 1 - risk of another one.

    Returns:
        The probability, and the number of items if it is the highest that they can show, else None.
    """
    estimated = latency_slo_probability(latency_s, items, slo, risk)
    if not is_guaranteed:
        return min(estimated, 1 - risk), None
    probability = max(estimated, 1 - risk)
    return probability, items if probability >= _most(items, slo, risk) - _MIN_UNCERTAINTY else None


def _uncertain(probability: float) -> float:
    return min(max(probability, _MIN_UNCERTAINTY), 1 - _MIN_UNCERTAINTY)


def _log_normal_probability(latency_s: FloatArray, count: int, slo: LatencySlo) -> float:
    logs = np.log(np.maximum(latency_s, _MIN_S))
    margin, scale = math.log(max(slo.limit_s, _MIN_S)) - float(logs.mean()), float(logs.std())
    if scale <= abs(margin) * 1e-9 or count < 2:
        return float(margin >= 0) if count >= 2 else 0.0
    z_limit = margin / scale
    z_percentile = NormalDist().inv_cdf(slo.percentile / 100)
    return NormalDist().cdf((z_limit - z_percentile) / math.sqrt(1 / count + z_limit**2 / (2 * (count - 1))))


@lru_cache(maxsize=4096)
def _below(count: int, share: float, within: int) -> float:
    """Return P(B < within) + P(B = within) / 2 for a binomial B."""
    probabilities = binomial_probabilities(count, share)
    return min(1.0, float(probabilities[:within].sum() + probabilities[within] / 2))
