"""Side bets on the next item, by which covariates tighten bounds at an unchanged guarantee."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.statistics.covariates import Covariates
from circinus.statistics.martingale import FRACTIONS, UNLIMITED
from circinus.statistics.prediction import predictions

_FIRST_FIT = 4
_MAX_STAKES = 2**16
"""Number of stakes computed at once: enough that calls cost little, few enough for the cache of a CPU."""


def covariate_bet_payoffs(
    scores: FloatArray, covariates: Covariates, begin: int = 0, *, population: int | None = None
) -> FloatArray:
    """Return payoffs of the wealth that is not bet on scores: high for items with low predicted scores.

    Covariates (strata, scores of a reference that was measured on every item) are known for every item in advance.
    Before each item is drawn, the wealth not bet on scores is bet on *which* item it will be. All remaining items are
    equally likely, so payoffs whose mean over the remaining items is 1 are fair for any scores: the wealth stays a
    supermartingale and the guarantee of `BettingMartingales` stays exact, for bad predictions as for good ones. A good
    prediction cancels the luck of the draw: the wealth then varies with the error of the prediction instead of the
    score. In the limit the relevant variance is that of the residuals, which for strata is the variance left by
    proportional stratification. To first order the payoff is the control variate x - (f - mean of f over the remaining
    items), the f being predictable. Where the control variate's larger range would forbid bold bets, the payoff is
    clipped at 0 and rescaled to be fair instead.

    The selection of covariates must not depend on scores, except those of items drawn before: for instance a reference
    that is measured on all items by a decision made in advance. Selecting the best-fitting reference afterwards, or one
    that happened to be measured to the end, counts as trying them all (`per_sequence_alpha`).

    Predictions for an item use only a prefix that ended before it. They are fitted again after 4, 8, 12, 16, 20, 24,
    28, 32, 40, ... items, independently of the number of drawn items, so that more items change no bet of the past.

    Limits: the proof needs each next item to be uniformly random among *all* remaining items, given the past: a random
    permutation of the population. In an order that is balanced over strata the next item's stratum is predictable, so
    that a side bet on strata is not fair; nothing is proved there.

    Args:
        scores: (k, n) scores in [0, 1] of the first n items in the order they were drawn.
        covariates: covariates of all items: the first n in the order they were drawn, the others in any.
        begin: number of items before the first one with a payoff.
        population: `UNLIMITED` if scores are bet on with the weights of their kinds (`betting_bounds`), which stakes
            then predict; default: the items of the covariates.

    Returns:
        (fractions, k, n - begin) payoffs of at least 0.
    """
    drawn = scores.shape[1]
    payoffs = np.ones((len(FRACTIONS), len(scores), drawn - begin))
    for fitted, end in pairwise([*_fits_before(drawn), drawn]):
        start = max(fitted, begin)
        if start < end:
            of_part = _weighted_payoffs if population == UNLIMITED else _payoffs
            payoffs[:, :, start - begin : end - begin] = of_part(scores, covariates, fitted, start, end)
    return payoffs


def _payoffs(scores: FloatArray, covariates: Covariates, fitted: int, begin: int, end: int) -> FloatArray:
    """Return (fractions, k, end - begin) payoffs of items `begin` to `end`, predicted from the first `fitted` ones."""
    population = len(covariates.kind)
    predicted = predictions(scores[:, :fitted], covariates)
    # Relative to its mean, which is the fair price of a score if the prediction is right.
    mean = predicted @ covariates.counts(fitted) / (population - fitted)
    relative = predicted / np.maximum(mean, 1e-9)[:, None]
    remaining, later = population - np.arange(begin, end), covariates.counts(end)
    stakes = np.maximum(0.0, 1.0 - FRACTIONS[:, None, None] * relative)
    payoffs = _fair(stakes[:, :, covariates.kind[begin:end]], stakes @ later, remaining)
    payoffs[FRACTIONS == 1.0] = 1.0  # all wealth is bet on scores: none is left for side bets
    return payoffs


def _weighted_payoffs(scores: FloatArray, covariates: Covariates, fitted: int, begin: int, end: int) -> FloatArray:
    """Return the payoffs of `_payoffs` where scores are weighted with the share over the chance of their kind."""
    predicted = predictions(scores[:, :fitted], covariates)
    relative = predicted / np.maximum(predicted @ covariates.shares, 1e-9)[:, None]
    chances, weights = covariates.chances(begin, end), covariates.weights(begin, end)
    expected = relative[:, None, :] * weights
    items, kind = np.arange(end - begin), covariates.kind[begin:end]
    payoffs = np.ones((len(FRACTIONS), len(scores), end - begin))
    at_once = max(1, _MAX_STAKES // expected.size)
    for first in range(1, len(FRACTIONS), at_once):  # fraction 1 bets all wealth on scores
        part = slice(first, first + at_once)
        stakes = np.maximum(0.0, 1.0 - FRACTIONS[part, None, None, None] * expected)
        means = (stakes * chances).sum(axis=3)
        payoffs[part] = np.where(means > 1e-12, stakes[:, :, items, kind] / np.maximum(means, 1e-12), 1.0)
    return payoffs


def _fits_before(drawn: int) -> list[int]:
    """Return the sample sizes after which predictions are fitted again: four per doubling."""
    sizes, step = [_FIRST_FIT], _FIRST_FIT
    while sizes[-1] + step < drawn:
        sizes.append(sizes[-1] + step)
        if sizes[-1] >= 8 * step:
            step *= 2
    return sizes if drawn > _FIRST_FIT else []


def _fair(stakes: FloatArray, later: FloatArray, remaining: IntArray) -> FloatArray:
    """Return payoffs of stakes on the next n items, scaled to mean 1 over the remaining items.

    Args:
        stakes: (fractions, k, n) stakes of at least 0 on each of the next n items.
        later: (fractions, k) sum of the stakes on all items after these.
        remaining: (n,) number of remaining items before each.
    """
    # Summed from the end: a difference of sums would be inexact if few stakes remain.
    means = (np.cumsum(stakes[..., ::-1], axis=-1)[..., ::-1] + later[..., None]) / remaining
    return np.where(means > 1e-12, stakes / np.maximum(means, 1e-12), 1.0)
