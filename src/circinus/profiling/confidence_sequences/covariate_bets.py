"""Side bets on which item comes next: how covariates make bounds tighter and leave the promise as it is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.confidence_sequences.covariates import Covariates
from circinus.profiling.confidence_sequences.prediction import predictions
from circinus.profiling.confidence_sequences.wealth_process import FRACTIONS

_FIRST_FIT = 4


def covariate_bet_payoffs(scores: FloatArray, covariates: Covariates) -> FloatArray:
    """Payoffs of the capital that does not buy scores: high for items that are predicted to score low.

    Covariates (strata, scores of a partner that was measured on every item) are known of every item beforehand.
    Before each item is drawn, the money that is not in scores is put on *which* item that will be. All items left
    are equally likely, so payoffs whose mean over the items left is 1 are fair, whatever the scores are: the capital
    stays a supermartingale and the promise of `greatest_capital` stays exact, with a bad prediction as with a good
    one. What a good prediction does is to take back the luck of the draw: the capital then swings with the error of
    the prediction instead of with the score. In the limit the variance that counts is that of the residuals, which
    for strata is what proportional stratification leaves. To first order the payoff is the control variate
    x - (f - mean of f over the items left), the f being predictable; but where the control variate's greater
    range would forbid bold bets, this one is cut off at 0 and made fair again instead.

    The covariates themselves are to be chosen without regard to scores, or only to those of items drawn before: a
    partner, say, that is measured on everything because it was so decided beforehand. To take the partner that fits
    best afterwards, or the one that happened to be measured to the end, is to try them all (`sequence_risk`).

    Only a beginning that ended before an item predicts it. The predictions are fitted again after 4, 8, 12, 16, 20,
    24, 28, 32, 40, ... items, independently of how many were drawn, so that more items change no bet of the past.

    Limits: the proof needs that each next item is uniformly random among *all* items left, given the past: a random
    permutation of the population. In an order that is balanced over strata the next item's stratum can be told in
    advance, so that a side bet on strata is not fair; nothing is proved there.

    Args:
        scores: (k, n) in [0, 1], of the first n items in the order they were drawn.
        covariates: of all items: the first n in the order they were drawn, the others in any.

    Returns:
        (fractions, k, n) of at least 0.
    """
    drawn = scores.shape[1]
    payoffs = np.ones((len(FRACTIONS), *scores.shape))
    for begin, end in pairwise([*_fits_before(drawn), drawn]):
        payoffs[:, :, begin:end] = _payoffs(scores, covariates, begin, begin, end)
    return payoffs


class CovariateBets:
    """`side_bets` of one configuration, to which items are added."""

    def __init__(self, covariates: Covariates) -> None:
        """Begin with no item."""
        self._covariates = covariates
        self._items = 0

    def extend(self, scores: FloatArray) -> FloatArray:
        """(n,) all scores, of which the first m are known -> (fractions, n - m) payoffs of the new ones."""
        known, drawn = self._items, len(scores)
        payoffs = np.ones((len(FRACTIONS), drawn - known))
        for begin, end in pairwise([*_fits_before(drawn), drawn]):
            start = max(begin, known)
            if start < end:
                found = _payoffs(scores[None], self._covariates, begin, start, end)
                payoffs[:, start - known : end - known] = found[:, 0]
        self._items = drawn
        return payoffs


def _payoffs(scores: FloatArray, covariates: Covariates, fitted: int, begin: int, end: int) -> FloatArray:
    """(fractions, k, end - begin) of the items from `begin` to `end`, predicted from the first `fitted` ones."""
    population = len(covariates.kind)
    predicted = predictions(scores[:, :fitted], covariates)
    # Relative to its mean, which is the fair price of a score if the prediction is right.
    mean = predicted @ covariates.counts(fitted) / (population - fitted)
    relative = predicted / np.maximum(mean, 1e-9)[:, None]
    left, later = population - np.arange(begin, end), covariates.counts(end)
    payoffs = np.ones((len(FRACTIONS), len(scores), end - begin))
    for number, fraction in enumerate(FRACTIONS):
        if fraction == 1.0:
            continue  # buys scores with everything: no money is left for the side
        stakes = np.maximum(0.0, 1.0 - fraction * relative)
        payoffs[number] = _fair(stakes[:, covariates.kind[begin:end]], stakes @ later, left)
    return payoffs


def _fits_before(drawn: int) -> list[int]:
    """Numbers of items after which predictions are fitted again: four to each doubling."""
    found, step = [_FIRST_FIT], _FIRST_FIT
    while found[-1] + step < drawn:
        found.append(found[-1] + step)
        if found[-1] >= 8 * step:
            step *= 2
    return found if drawn > _FIRST_FIT else []


def _fair(stakes: FloatArray, later: FloatArray, left: IntArray) -> FloatArray:
    """Payoffs of stakes on the next n items, so that their mean over the items left is 1.

    Args:
        stakes: (k, n) of at least 0, on each of the next n items.
        later: (k,) sum of the stakes on all items after those.
        left: (n,) numbers of items left before each.
    """
    # Summed from the end: a difference of sums would leave rounding errors where little is left.
    means = (np.cumsum(stakes[:, ::-1], axis=1)[:, ::-1] + later[:, None]) / left
    return np.where(means > 1e-12, stakes / np.maximum(means, 1e-12), 1.0)
