"""Scores as every sequence takes them: checked, and moved to the unit range."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def normalize_scores(scores: FloatArray, population: int, low: float, high: float) -> FloatArray:
    """Check scores and move [low, high] to [0, 1].

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k configurations.
        population: number of all items, at least n.
        low: least score that can occur.
        high: greatest score that can occur, greater than `low`.

    Raises:
        ValueError: a score outside [low, high] (its row and column are named), more scores than the population
            has, or a range that is empty.
    """
    if scores.ndim != 2:
        raise ValueError(f"found scores of shape {scores.shape}, expected (configurations, items)")
    if scores.shape[1] > population:
        raise ValueError(f"found {scores.shape[1]} scores, expected at most the population's {population}")
    if not low <= high:
        raise ValueError(f"found the range [{low}, {high}], expected the least score first")
    outside = ~((scores >= low) & (scores <= high))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        found = scores[row, column]
        raise ValueError(f"found score {found} of configuration {row}, item {column}, outside [{low}, {high}]")
    if low == high:
        return np.zeros_like(scores)
    unit: FloatArray = np.clip((scores - low) / (high - low), 0.0, 1.0)
    return unit
