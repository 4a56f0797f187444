"""Prediction of scores from covariates by ridge regression."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray
from circinus.statistics.covariates import Covariates

_PSEUDO_ITEMS = 1.0
"""Strength of the ridge: an indicator observed on this many items counts half. From 0.3 to 6 it makes little
difference."""
_BETTER = 1.0 - 1e-9
"""Maximum ratio of squared errors to plain ones for a better prediction. At equality, which two items always give,
rounding would decide, and differently for mirrored scores."""


def predictions(scores: FloatArray, covariates: Covariates) -> FloatArray:
    """Predict the score of every kind of item by ridge regression on the covariates, without penalty on the intercept.

    Uninformative covariates would be harmful: their apparent effect on few items is noise. Therefore the regression is
    only used for configurations where it predicts each observed item, from the other observed items, better than their
    mean does (leave-one-out errors by leverages: Allen, Technometrics 16, 1974). This choice uses the first items only
    and is as predictable as the regression.

    Args:
        scores: (k, n) scores in [0, 1] of the first n items, for each of k configurations; n > 0.
        covariates: covariates of all items, the first n in the same order; columns of magnitude 1 count most.

    Returns:
        (k, kinds) predictions in [0, 1]. Without this clipping the residuals of the first n would have mean 0.
    """
    drawn = scores.shape[1]
    kind = covariates.kind[:drawn]
    means, centre = scores.mean(axis=1, keepdims=True), covariates.rows[kind].mean(axis=0)
    rows = covariates.rows - centre
    observed, deviations = rows[kind], scores - means
    inverse = np.linalg.inv(observed.T @ observed + _PSEUDO_ITEMS * np.eye(observed.shape[1]))
    offsets = (deviations @ observed) @ inverse @ rows.T
    # Computed for kinds or items, whichever are fewer: there are few strata even for thousands of items.
    leverages = 1 / drawn + (_norms(rows, inverse)[kind] if len(rows) < drawn else _norms(observed, inverse))
    errors = (deviations - offsets[:, kind]) / np.maximum(1.0 - leverages, 1e-9)
    plain_errors = deviations / max(1.0 - 1 / drawn, 1e-9)
    is_informative = (errors**2).sum(axis=1) < _BETTER * (plain_errors**2).sum(axis=1)
    predicted: FloatArray = np.clip(means + np.where(is_informative[:, None], offsets, 0.0), 0.0, 1.0)
    return predicted


def _norms(vectors: FloatArray, form: FloatArray) -> FloatArray:
    """Return (m,) v'Av of (m, d) vectors v and a (d, d) form A."""
    norms: FloatArray = (vectors @ form * vectors).sum(axis=1)
    return norms


def predicted_means(scores: FloatArray, covariates: Covariates | None, population: int) -> FloatArray:
    """Return (k,) estimates of the mean of all items, from (k, n) scores of the first n > 0 items.

    Observed items count with their score and remaining ones with their prediction, so that the estimate at n = all is
    the plain mean. An unlimited population is estimated by the mean of the items of the covariates, which have its
    shares.
    """
    drawn = scores.shape[1]
    if covariates is None:
        plain: FloatArray = scores.mean(axis=1)
        return plain
    remaining = predictions(scores, covariates) @ covariates.counts(drawn)
    total: FloatArray = (scores.sum(axis=1) + remaining) / min(population, len(covariates.kind))
    return total
