"""Student's t distribution, by its finite series."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from circinus.arrays import FloatArray

_HALVINGS = 60


def student_t_cdf(t: ArrayLike, degrees_of_freedom: int) -> FloatArray:
    """Return the probabilities of smaller values (Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3-4).

    Args:
        t: values, of any shape.
        degrees_of_freedom: at least 1.
    """
    x = np.asarray(t, dtype=np.float64) / math.sqrt(degrees_of_freedom)
    share, is_odd = np.asarray(1.0 / (1.0 + x**2)), degrees_of_freedom % 2
    numerators = np.arange(1 + is_odd, degrees_of_freedom - 2, 2)
    series = 1.0 + np.cumprod(share[..., None] * numerators / (numerators + 1), axis=-1).sum(axis=-1)
    if degrees_of_freedom == 1:
        inside = np.arctan(x) * 2.0 / math.pi
    elif is_odd:
        inside = (np.arctan(x) + x * share * series) * 2.0 / math.pi
    else:
        inside = x * np.sqrt(share) * series
    return np.asarray((1.0 + inside) / 2.0)


@lru_cache(maxsize=4096)
def student_t_quantile(risk: float, degrees_of_freedom: int) -> float:
    """Return the value that is exceeded with probability `risk` (0 < risk < 0.5), by bisection.

    Args:
        risk: probability of a greater value.
        degrees_of_freedom: at least 1.
    """
    low, high = 0.0, 1.0
    while student_t_cdf(-high, degrees_of_freedom) > risk:
        low, high = high, 2.0 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(-middle, degrees_of_freedom) > risk else (low, middle)
    return high
