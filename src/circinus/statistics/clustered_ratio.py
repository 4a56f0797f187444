"""Ratio of two totals, with its standard error, from values in clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def clustered_ratio(
    numerators: ArrayLike, denominators: ArrayLike, clusters: Sequence[str]
) -> tuple[float, float | None]:
    """Return the ratio of two totals and its standard error, if values of one cluster are no independent draws.

    The error is that of a ratio estimate from cluster totals, linearised (Cochran, Sampling Techniques, 3rd ed.,
    chapter 6). With denominators of 1 the ratio is the mean, and the estimate that of chapter 9A.

    Args:
        numerators: (n,) values, n >= 1.
        denominators: (n,) values whose total is not zero.
        clusters: name of the cluster of each value.

    Returns:
        (ratio, standard error); the error is None with fewer than two clusters.
    """
    values, bases = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    ratio = float(values.sum() / bases.sum())
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    residuals = np.bincount(cluster, weights=values - ratio * bases)
    count = len(residuals)
    if count < 2:
        return ratio, None
    return ratio, math.sqrt(count / (count - 1) * float(residuals @ residuals)) / float(bases.sum())
