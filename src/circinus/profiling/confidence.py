"""Bounds for a mean that hold however often one looks: betting on scores drawn without replacement."""

from __future__ import annotations

import numpy as np

from circinus.profiling.bounded import Bounded
from circinus.profiling.profile import FloatArray

_FRACTIONS = np.array([1.0, 0.75, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05, 0.03, 0.015])
"""Shares of the greatest safe bet on which parts of the capital are put."""
_PARTS = _FRACTIONS / _FRACTIONS.sum()
"""More capital on the bold bets: it pays on the few items that one wants to get along with."""
_HALVINGS = 24


def mean_bounds(scores: FloatArray, population: int, *, risk: float, low: float = 0.0, high: float = 1.0) -> Bounded:
    """Bound the mean of all `population` scores by those of the first n items.

    See `means_bounds`, which does this for many samples at once.
    """
    return means_bounds(np.atleast_2d(scores), population, risk=risk, low=low, high=high)[0]


def means_bounds(
    scores: FloatArray, population: int, *, risk: float, low: float = 0.0, high: float = 1.0
) -> tuple[Bounded, ...]:
    """Bound the means of finite populations by samples drawn without replacement.

    The bounds form an anytime-valid confidence sequence: the probability that the lower one *ever* exceeds the mean,
    looking after every item, is at most `risk`; likewise the upper one. They only ever tighten, and are the exact
    mean once all items were seen.

    Method: somebody bets that the mean is greater than m, against odds that would be fair if it were m; the
    capital is then a martingale, which exceeds 1/risk with probability at most risk (Ville), and m is excluded once
    it did. Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024):
    bets on a fixed grid of fractions of the greatest safe bet, in fixed parts (hedged grid-Kelly); without
    replacement, m is replaced by the mean of what is left if the whole had mean m (their section 5). The capital
    falls in m, so that the bound is found by bisection, all samples at once.

    Limits: the promise is for a uniformly random order. An order that is balanced over strata (`order`) only
    lessens the variance of the beginnings; that the promise holds there too is checked by simulation, not proved.

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k samples; 0 <= n.
        population: number of all items, at least n.
        risk: probability with which each side may fail, 0 < risk < 1.
        low: least score that can occur.
        high: greatest score that can occur.

    Returns:
        For each sample its mean (the middle of the range for n = 0), moved to the nearer bound where it lies outside.

    Raises:
        ValueError: a score outside [low, high], or more scores than the population has.
    """
    drawn = scores.shape[1]
    if drawn > population:
        raise ValueError(f"found {drawn} scores, expected at most the population's {population}")
    if not ((scores >= low) & (scores <= high)).all():
        raise ValueError(f"found scores outside [{low}, {high}]")
    if drawn == 0:
        return tuple(Bounded((low + high) / 2, low, high) for _ in scores)
    means = scores.mean(axis=1)
    if drawn == population or low == high:
        return tuple(Bounded.exactly(float(mean)) for mean in means)
    unit = np.clip((scores - low) / (high - low), 0.0, 1.0)
    lower = low + (high - low) * _lower_bounds(unit, population, risk)
    upper = high - (high - low) * _lower_bounds(1.0 - unit, population, risk)
    # Both sides fail together with probability at most 2 risk; the interval between them is then the best there is.
    lower, upper = np.minimum(lower, upper), np.maximum(lower, upper)
    values = np.clip(means, lower, upper)
    return tuple(Bounded(float(v), float(a), float(b)) for v, a, b in zip(values, lower, upper, strict=True))


def _lower_bounds(scores: FloatArray, population: int, risk: float) -> FloatArray:
    """(k, n) scores in [0, 1] -> (k,) greatest means that were excluded from below at some time."""
    drawn = scores.shape[1]
    before = np.cumsum(scores, axis=1) - scores
    left = population - np.arange(drawn)
    certain: FloatArray = scores.sum(axis=1) / population
    excluded: FloatArray = certain
    possible: FloatArray = certain + (population - drawn) / population
    for _ in range(_HALVINGS):
        middle = (excluded + possible) / 2
        conditional = (population * middle[:, None] - before) / left
        gone = _greatest_capital(scores, conditional) >= 1 / risk
        excluded, possible = np.where(gone, middle, excluded), np.where(gone, possible, middle)
    return excluded


def _greatest_capital(scores: FloatArray, means: FloatArray) -> FloatArray:
    """(k, n) scores and the means that make the bets fair -> (k,) greatest capital at any time, from 1."""
    # A conditional mean of 0 (by rounding) allows no bet: what is left is then certain to be 0.
    gain = np.where(means > 0, scores / np.maximum(means, 1e-12), 1.0) - 1.0
    with np.errstate(over="ignore", invalid="ignore"):  # infinite capital excludes; infinity times zero is passed over
        each = np.cumprod(1.0 + _FRACTIONS[:, None, None] * gain, axis=2)
        capital = (_PARTS[:, None, None] * each).sum(axis=0)
    greatest: FloatArray = np.fmax.reduce(capital, axis=1)
    return greatest
