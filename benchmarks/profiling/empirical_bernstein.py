"""Empirical Bernstein bounds: cheaper to compute than betting bounds, and wider."""

from __future__ import annotations

import math

import numpy as np

from circinus.arrays import FloatArray
from circinus.statistics.betting import denormalize_bounds, normalize_scores
from circinus.statistics.interval import Interval

_MAX_BET = 0.5
"""Maximum bet; the sequence is valid below 1."""


def empirical_bernstein_bounds(
    scores: FloatArray, population: int, *, risk: float, low: float = 0.0, high: float = 1.0
) -> tuple[Interval, ...]:
    """Return bounds of the means of finite populations from samples drawn without replacement.

    Guarantee, order and arguments are those of `betting_bounds`. Bets do not depend on the tested mean, so that no
    bisection is needed; in return the bounds are wider by an amount that falls as 1/n.

    Predictable plug-in empirical Bernstein confidence sequence without replacement: Waudby-Smith & Ramdas, "Confidence
    sequences for sampling without replacement", NeurIPS 33 (2020), section 3, for each side separately.

    Raises:
        ValueError: a score is outside [low, high], or there are more scores than items.
    """
    unit = normalize_scores(scores, population, low, high)
    drawn = scores.shape[1]
    if drawn == 0:
        return tuple(Interval((low + high) / 2, low, high) for _ in scores)
    if drawn == population or low == high:
        return tuple(Interval.exact(float(mean)) for mean in scores.mean(axis=1))
    centres, radii = _centres_and_radii(unit, population, risk)
    certain = unit.sum(axis=1) / population
    lower = np.maximum(certain, (centres - radii).max(axis=1))
    upper = np.minimum(certain + (population - drawn) / population, (centres + radii).min(axis=1))
    return denormalize_bounds(unit.mean(axis=1), lower, upper, low, high)


def _centres_and_radii(scores: FloatArray, population: int, risk: float) -> tuple[FloatArray, FloatArray]:
    """Return (k, n) centres and half widths after each item, from (k, n) scores in [0, 1]."""
    steps = np.arange(1, scores.shape[1] + 1)
    sums = np.cumsum(scores, axis=1)
    means = (0.5 + sums) / (steps + 1)
    variances = (0.25 + np.cumsum((scores - means) ** 2, axis=1)) / (steps + 1)
    prior = np.full((len(scores), 1), 0.5)
    previous_means = np.hstack([prior, means[:, :-1]])
    previous_variances = np.hstack([prior / 2, variances[:, :-1]])
    bets = np.minimum(_MAX_BET, np.sqrt(2 * math.log(1 / risk) / (previous_variances * steps * np.log(1 + steps))))
    remaining = population - steps + 1
    weights = np.cumsum(bets * (1 + (steps - 1) / remaining), axis=1)
    centres = np.cumsum(bets * (scores + (sums - scores) / remaining), axis=1) / weights
    variation = np.cumsum((scores - previous_means) ** 2 * (-np.log1p(-bets) - bets), axis=1)
    return centres, (variation + math.log(1 / risk)) / weights
