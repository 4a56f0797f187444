"""How likely a plan keeps its query's objectives, as far as was measured: a guide, where bounds are promises."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from circinus.profiling.race.slo_requirements import percentile_sample_size
from circinus.specification import AccuracySlo, LatencySlo

FloatArray = NDArray[np.floating]

_PRIOR_SPREAD = 0.25
"""Standard deviation of scores, as a share of the metric's range, that is held against those measured."""
_PRIOR_ITEMS = 1
"""What that weighs, in items."""
_UNSURE = 1e-9
"""What is not known for certain is neither certain nor impossible, whatever rounding makes of it."""
_SHORTEST_S = 1e-9
"""Stands for no time at all where logarithms are taken."""


@dataclass(frozen=True)
class SloProbabilities:
    """Probabilities that objectives are kept; 1 where there is none.

    Where the bound of an objective keeps it, its probability is at least 1 - risk: that is promised. All together is
    the product: scores and times are taken as independent. Cost is computed, so its probability is 0 or 1.
    """

    latency: float
    accuracy: float
    cost: float
    joint: float

    @classmethod
    def of(cls, latency: float, accuracy: float, cost: float) -> SloProbabilities:
        """From those of each objective."""
        return cls(latency, accuracy, cost, latency * accuracy * cost)


def accuracy_slo_probability(
    scores: FloatArray, population: int | None, slo: AccuracySlo, score_range: tuple[float, float]
) -> float:
    """The probability that the mean score of all items keeps an objective.

    Given the first n of N items in random order, the mean of all is taken as t-distributed about theirs with the
    variance s^2 / n (1 - n / N) (Cochran, Sampling Techniques, 1977, section 2.6), where s^2 is pooled with a prior
    spread of a quarter of the range that counts like one item: few scores that happen to be equal are no certainty. The
    t distribution is turned into a normal one after Wallace (Annals of Mathematical Statistics 30, 1959).

    Limits: an approximation, and no bound. Scores that are mostly equal with rare failures look surer than they are
    until a failure was seen; looking at many configurations and taking the best makes its probability too high.

    Args:
        scores: (n,) of the first items.
        population: N, the items that may be profiled; None: as if endless.
        slo: the objective.
        score_range: of the metric.
    """
    count, mean = len(scores), float(scores.mean())
    if population is not None and count >= population:
        return float(slo.is_met_by(mean))
    left = 1.0 if population is None else 1.0 - count / population
    freedom = count - 1 + _PRIOR_ITEMS
    prior = _PRIOR_SPREAD * (score_range[1] - score_range[0])
    variance = (float(((scores - mean) ** 2).sum()) + _PRIOR_ITEMS * prior**2) / freedom
    margin = mean - slo.threshold if slo.comparison == ">=" else slo.threshold - mean
    t = margin / math.sqrt(variance / count * left)
    z = math.copysign((8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom)), t)
    return _unsure(NormalDist().cdf(z))


def latency_slo_probability(latency_s: FloatArray, items: int, slo: LatencySlo, risk: float) -> float:
    """The probability that the percentile of latency is within its limit.

    With as many items as bound the percentile without assumptions (`items_for_percentile`): the percentile of all is
    within the limit with the probability that of n items fewer than those seen within it lie below the percentile,
    plus half of that of as many (order statistics; David & Nagaraja, Order Statistics, 2003, section 7.1). With fewer
    items a log-normal distribution is assumed as in `circinus.estimation.percentiles`: the probability is that at which
    the
    upper tolerance limit is the objective's limit (the equation behind Natrella's factor, solved for the probability).

    Limits: the waits and links of the scenarios are taken as if each item had met one of them; a rare slow kind of item
    that was not drawn is not seen.

    Args:
        latency_s: (scenarios,) latency of the plan, not stretched by the allowance for few items.
        items: on how many items they rest.
        slo: the objective.
        risk: of the query.
    """
    count = min(items, len(latency_s))
    if items < percentile_sample_size(slo.percentile, risk):
        return _unsure(_log_normal_odds(latency_s, count, slo))
    share = slo.percentile / 100
    within = float((latency_s <= slo.limit_s).mean()) * count
    fewer = math.floor(within + 1e-9)
    part = max(0.0, within - fewer)
    below = _below(count, share, fewer)
    return _unsure(below if part == 0 else (1 - part) * below + part * _below(count, share, fewer + 1))


def _unsure(probability: float) -> float:
    return min(max(probability, _UNSURE), 1 - _UNSURE)


def _log_normal_odds(latency_s: FloatArray, count: int, slo: LatencySlo) -> float:
    logs = np.log(np.maximum(latency_s, _SHORTEST_S))
    margin, spread = math.log(max(slo.limit_s, _SHORTEST_S)) - float(logs.mean()), float(logs.std())
    if spread <= abs(margin) * 1e-9 or count < 2:
        return float(margin >= 0) if count >= 2 else 0.0
    reach = margin / spread
    wanted = NormalDist().inv_cdf(slo.percentile / 100)
    return NormalDist().cdf((reach - wanted) / math.sqrt(1 / count + reach**2 / (2 * (count - 1))))


@lru_cache(maxsize=4096)
def _below(count: int, share: float, within: int) -> float:
    """P(B < within) + P(B = within) / 2 of a binomial B."""
    terms = [
        math.exp(
            math.lgamma(count + 1)
            - math.lgamma(k + 1)
            - math.lgamma(count - k + 1)
            + k * math.log(share)
            + (count - k) * math.log1p(-share)
        )
        for k in range(min(within, count) + 1)
    ]
    return min(1.0, sum(terms[:-1]) + terms[-1] / 2)
