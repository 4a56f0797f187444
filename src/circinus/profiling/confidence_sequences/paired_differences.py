"""Two configurations on the same items: how much better one is, and what one says of the other."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling.confidence_sequences.betting import betting_bounds
from circinus.profiling.confidence_sequences.covariates import Covariates, normalize_scores
from circinus.profiling.interval import Interval


def difference_bounds(
    first: FloatArray,
    second: FloatArray,
    population: int,
    *,
    risk: float,
    low: float = 0.0,
    high: float = 1.0,
    covariates: Covariates | None = None,
) -> tuple[Interval, ...]:
    """Bound the mean of `first` less the mean of `second`, measured on the same items.

    Betting on the differences item by item, whose range is [low - high, high - low]. Two configurations that fail
    on the same items differ little where each of them varies much; the sequence notices. Even without any variance
    it cannot tell means that differ by d of a unit range in fewer than about log(1 / risk) / d items, as the
    greatest safe bet is limited by the range. For the sign alone, `threshold_verdicts` of the
    differences at 0 is cheaper.

    Args:
        first: (k, n) scores of the first n items in the order they were drawn, for each of k pairs.
        second: (k, n), or (1, n) for one partner of all.
        population: number of all items, at least n.
        risk: probability with which each side may ever fail, 0 < risk < 1.
        low: least score that can occur.
        high: greatest score that can occur.
        covariates: as for `betting_bounds`.

    Raises:
        ValueError: as for `betting_bounds`.
    """
    normalize_scores(first, population, low, high)
    normalize_scores(second, population, low, high)
    width = high - low
    differences = np.clip(first - second, -width, width)
    return betting_bounds(differences, population, risk=risk, low=-width, high=width, covariates=covariates)


def bounds_via_difference(partner: Interval, difference: Interval, low: float = 0.0, high: float = 1.0) -> Interval:
    """Bounds of a mean from those of a partner's mean and of the difference to it.

    They fail at most where one of the two does: the risks add up. Bounds of one partner serve any number of
    configurations, so that its risk is counted once (`sequence_risk`).
    """
    lower = min(max(partner.lower + difference.lower, low), high)
    upper = max(min(partner.upper + difference.upper, high), lower)
    return Interval(min(max(partner.value + difference.value, lower), upper), lower, upper)
