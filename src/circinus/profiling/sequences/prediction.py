"""Predicting the scores to come from what is known of every item."""

from __future__ import annotations

import numpy as np

from circinus.profiling.sequences.arrays import FloatArray
from circinus.profiling.sequences.covariates import Covariates

_PSEUDO_ITEMS = 1.0
"""Strength of the ridge: an indicator seen on so many items counts half. From 0.3 to 6 it makes little difference."""


def predictions(scores: FloatArray, covariates: Covariates) -> FloatArray:
    """Predict the score of every kind of item by ridge regression on the covariates, the intercept unpenalised.

    Args:
        scores: (k, n) in [0, 1], of the first n items, for each of k configurations; n > 0.
        covariates: of all items, the first n in the same order; columns of size 1 count most.

    Returns:
        (k, kinds) in [0, 1]. Without the limits of the range the residuals of the first n would have mean 0.
    """
    seen = covariates.rows[covariates.kind[: scores.shape[1]]]
    means, centre = scores.mean(axis=1), seen.mean(axis=0)
    seen = seen - centre
    gram = seen.T @ seen + _PSEUDO_ITEMS * np.eye(seen.shape[1])
    slopes = np.linalg.solve(gram, seen.T @ (scores - means[:, None]).T)
    predicted: FloatArray = np.clip(means[:, None] + ((covariates.rows - centre) @ slopes).T, 0.0, 1.0)
    return predicted


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
