"""Bounds of mean scores, as the profiler reports them."""

from __future__ import annotations

import numpy as np

from circinus.profiling.bounded import Bounded
from circinus.profiling.profile import FloatArray
from circinus.profiling.sequences import betting_bounds


def mean_bounds(scores: FloatArray, population: int, *, risk: float, low: float = 0.0, high: float = 1.0) -> Bounded:
    """Bound the mean of all `population` scores by those of the first n items.

    See `betting_bounds`, which does this for many samples at once.
    """
    return means_bounds(np.atleast_2d(scores), population, risk=risk, low=low, high=high)[0]


def means_bounds(
    scores: FloatArray, population: int, *, risk: float, low: float = 0.0, high: float = 1.0
) -> tuple[Bounded, ...]:
    """Bound the means of finite populations by samples drawn without replacement: `betting_bounds`."""
    return betting_bounds(scores, population, risk=risk, low=low, high=high)
