"""Winsorized means, in which the largest value counts as the second largest.

One value that is a hundred times the others moves the mean of eight by a factor of 13, and their winsorized mean by
nothing (Dixon, Annals of Mathematical Statistics 31, 1960).
"""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray

_MIN_VALUES = 3
"""Minimum number of values of which one may be an outlier."""


def winsorized_mean(values: FloatArray) -> float:
    """Return the mean of (n,) values, n >= 1, of which the largest is replaced by the second largest."""
    kept = np.minimum(values, np.partition(values, -2)[-2]) if len(values) >= _MIN_VALUES else values
    return float(kept.mean())
