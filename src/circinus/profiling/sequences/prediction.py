"""Predicting the scores to come from what is known of every item."""

from __future__ import annotations

import numpy as np

from circinus.profiling.sequences.arrays import FloatArray

_PSEUDO_ITEMS = 1.0
"""Strength of the ridge: an indicator seen on so many items counts half. From 0.3 to 6 it makes little difference."""


def predictions(scores: FloatArray, covariates: FloatArray) -> FloatArray:
    """Predict the score of every item by ridge regression on the covariates, the intercept unpenalised.

    Args:
        scores: (k, n) in [0, 1], of the first n items, for each of k configurations; n > 0.
        covariates: (items, columns) in the same order, those of size 1 counting most.

    Returns:
        (k, items) in [0, 1]. Without the limits of the range the residuals of the first n would have mean 0.
    """
    drawn = scores.shape[1]
    means, centre = scores.mean(axis=1), covariates[:drawn].mean(axis=0)
    centred = covariates - centre
    seen = centred[:drawn]
    gram = seen.T @ seen + _PSEUDO_ITEMS * np.eye(seen.shape[1])
    slopes = np.linalg.solve(gram, seen.T @ (scores - means[:, None]).T)
    predicted: FloatArray = np.clip(means[:, None] + (centred @ slopes).T, 0.0, 1.0)
    return predicted


def predicted_means(scores: FloatArray, covariates: FloatArray | None, population: int) -> FloatArray:
    """(k, n) scores of the first n > 0 items -> (k,) estimates of the mean of all.

    What was seen counts as it is and what is left as predicted, so that the estimate of all items is their plain mean.
    """
    drawn = scores.shape[1]
    if covariates is None or drawn == population:
        plain: FloatArray = scores.mean(axis=1)
        return plain
    left = predictions(scores, covariates)[:, drawn:]
    total: FloatArray = (scores.sum(axis=1) + left.sum(axis=1)) / population
    return total
