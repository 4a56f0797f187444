"""Paired comparison of two configurations on the same items."""

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
    """Return bounds of the mean of `first` minus the mean of `second`, measured on the same items.

    Bets are on the differences item by item, whose range is [low - high, high - low]. If two configurations fail on the
    same items, their difference varies much less than their scores, which the sequence exploits. Even without any
    variance it cannot separate means that differ by d of a unit range in fewer than about log(1 / risk) / d items, as
    the largest safe bet is limited by the range. For the sign alone, `threshold_decisions` of the differences at 0 is
    cheaper.

    Args:
        first: (k, n) scores of the first n items in the order they were drawn, for each of k pairs.
        second: (k, n) scores, or (1, n) for one reference of all.
        population: number of all items, at least n.
        risk: probability that a side ever fails, 0 < risk < 1.
        low: minimum possible score.
        high: maximum possible score.
        covariates: see `betting_bounds`.

    Raises:
        ValueError: see `betting_bounds`.
    """
    normalize_scores(first, population, low, high)
    normalize_scores(second, population, low, high)
    width = high - low
    differences = np.clip(first - second, -width, width)
    return betting_bounds(differences, population, risk=risk, low=-width, high=width, covariates=covariates)


def bounds_via_difference(reference: Interval, difference: Interval, low: float = 0.0, high: float = 1.0) -> Interval:
    """Return bounds of a mean from those of a reference's mean and of the difference to it.

    They fail only if one of the two does: the risks add up. The bounds of one reference serve any number of
    configurations, so that its risk is counted once (`per_sequence_alpha`).
    """
    lower = min(max(reference.lower + difference.lower, low), high)
    upper = max(min(reference.upper + difference.upper, high), lower)
    return Interval(min(max(reference.value + difference.value, lower), upper), lower, upper)
