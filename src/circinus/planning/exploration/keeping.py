"""How probable it is that mean scores keep a threshold."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def keeps(mean: FloatArray, deviation: FloatArray, threshold: float, *, at_least: bool) -> FloatArray:
    """(k,) beliefs of mean scores -> probability that a threshold is kept.

    By Student's distribution with five degrees of freedom: deviations are estimated from few items themselves, and to
    what is three of them away the normal distribution gives a quarter of the probability that it has.

    Args:
        mean: of each belief.
        deviation: standard deviation of each.
        threshold: of the objective.
        at_least: whether scores are to be at least the threshold; else at most.
    """
    margin = (mean - threshold) if at_least else (threshold - mean)
    # In units in which x / sqrt(5) is what the closed form is made of; the distribution has a variance of 5/3.
    x = np.asarray(margin / np.maximum(deviation, 1e-12) / math.sqrt(3.0), dtype=np.float64)
    share = 1.0 / (1.0 + x**2)
    return np.asarray(0.5 + (np.arctan(x) + x * share * (1.0 + 2.0 / 3.0 * share)) / math.pi)
