"""Dependence of consecutive values."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def autocorrelation_time(values: ArrayLike) -> float:
    """Return the variance of a mean of consecutive values, as a multiple of that of independent values; at least 1.

    The sum of autocorrelations ends with the first pair of lags whose sum is not positive (initial positive sequence:
    Geyer, Statistical Science 7, 1992).

    Args:
        values: (n,) values in order of time, n >= 1.
    """
    array = np.asarray(values, dtype=np.float64)
    count, centred = len(array), array - array.mean()
    products = np.fft.irfft(np.abs(np.fft.rfft(centred, 2 * count)) ** 2)[:count]
    if products[0] <= 0:
        return 1.0
    pairs = (products / products[0])[: count // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = int(np.argmax(np.append(pairs, -1.0) <= 0))
    return max(1.0, 2.0 * float(pairs[:positive].sum()) - 1.0)
