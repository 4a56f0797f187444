"""Predicting the scores to come from what is known of every item."""

from __future__ import annotations

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.profiling.confidence_sequences.covariates import Covariates

_PSEUDO_ITEMS = 1.0
"""Strength of the ridge: an indicator seen on so many items counts half. From 0.3 to 6 it makes little difference."""
_BETTER = 1.0 - 1e-9
"""A prediction is better below this share of the plain squared errors. At equality, which two items always give,
rounding would decide: otherwise for mirrored scores."""


def predictions(scores: FloatArray, covariates: Covariates) -> FloatArray:
    """Predict the score of every kind of item by ridge regression on the covariates, the intercept unpenalised.

    Covariates that explain nothing would cost: what they seem to explain of few items is noise. So the regression is
    believed only of configurations where it predicts each item seen, from the others seen, better than their mean
    does (leave-one-out errors by leverages: Allen, Technometrics 16, 1974). This chooses by the first items alone and
    is as predictable as the regression.

    Args:
        scores: (k, n) in [0, 1], of the first n items, for each of k configurations; n > 0.
        covariates: of all items, the first n in the same order; columns of size 1 count most.

    Returns:
        (k, kinds) in [0, 1]. Without the limits of the range the residuals of the first n would have mean 0.
    """
    means, moves, errors, plain_errors = _fitted(scores, covariates)
    telling = _are_better(errors, plain_errors)
    predicted: FloatArray = np.clip(means + np.where(telling[:, None], moves, 0.0), 0.0, 1.0)
    return predicted


def leave_one_out_errors(scores: FloatArray, covariates: Covariates) -> FloatArray:
    """(k, n) by how much each of the first n > 1 items scores more than `predictions` from the others say."""
    _, _, errors, plain_errors = _fitted(scores, covariates)
    telling = _are_better(errors, plain_errors)
    left_out: FloatArray = np.where(telling[:, None], errors, plain_errors)
    return left_out


def _fitted(scores: FloatArray, covariates: Covariates) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Means (k, 1), by how much each kind is off them (k, kinds), left-out errors of both, and of the means alone."""
    drawn = scores.shape[1]
    kind = covariates.kind[:drawn]
    means, centre = scores.mean(axis=1, keepdims=True), covariates.rows[kind].mean(axis=0)
    rows = covariates.rows - centre
    seen, deviations = rows[kind], scores - means
    inverse = np.linalg.inv(seen.T @ seen + _PSEUDO_ITEMS * np.eye(seen.shape[1]))
    moves = (deviations @ seen) @ inverse @ rows.T
    # Of kinds or of items, whichever are fewer: strata are few where items are thousands.
    leverages = 1 / drawn + (_norms(rows, inverse)[kind] if len(rows) < drawn else _norms(seen, inverse))
    errors = (deviations - moves[:, kind]) / np.maximum(1.0 - leverages, 1e-9)
    plain_errors = deviations / max(1.0 - 1 / drawn, 1e-9)
    return means, moves, errors, plain_errors


def _are_better(errors: FloatArray, plain_errors: FloatArray) -> BoolArray:
    """(k, n) left-out errors of both -> (k,) whether the regression predicts better than the mean."""
    better: BoolArray = (errors**2).sum(axis=1) < _BETTER * (plain_errors**2).sum(axis=1)
    return better


def _norms(vectors: FloatArray, form: FloatArray) -> FloatArray:
    """(m, d) vectors v and a (d, d) form A -> (m,) v'Av."""
    norms: FloatArray = (vectors @ form * vectors).sum(axis=1)
    return norms


def predicted_means(scores: FloatArray, covariates: Covariates | None, population: int) -> FloatArray:
    """(k, n) scores of the first n > 0 items -> (k,) estimates of the mean of all.

    What was seen counts as it is and what is left as predicted, so that the estimate of all items is their plain mean.
    """
    drawn = scores.shape[1]
    if covariates is None:
        plain: FloatArray = scores.mean(axis=1)
        return plain
    left = predictions(scores, covariates) @ covariates.counts(drawn)
    total: FloatArray = (scores.sum(axis=1) + left) / population
    return total
