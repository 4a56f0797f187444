"""What scores on the same items say of mean scores, the items' own difficulty taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_ROUNDS = 30
"""Alternations; each takes a good part of what is left of the error."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Estimates of the mean scores of n configurations."""

    means: FloatArray
    """(n,)"""
    variances: FloatArray
    """(n,) of the errors that each estimate has by itself."""
    common_variance: float
    """Of the error that all have in common, because the items measured are a little easier or harder than all."""


def evidence_of(scores: Sequence[FloatArray], population: int, score_range: float) -> Evidence:
    """Estimate mean scores under score = configuration + item + rest, by alternating means.

    The two-way layout (Scheffe, The Analysis of Variance, 1959, chapter 4). All configurations are measured on a
    beginning of the same order of items, so that by how much the first items are easier is seen by those that were
    measured on more. On real scores the items carry most of the variance.

    Limits: that the parts add up is an assumption; near the ends of the range items matter less. It guides what is
    measured, and no promise rests on it.

    Args:
        scores: of each configuration on its first items, at least one each.
        population: number of all items.
        score_range: greatest score less the least. A few equal scores are no proof of certainty: one rest more, a
            quarter of this, is counted.
    """
    counts = np.array([len(own) for own in scores])
    table = np.full((len(scores), int(counts.max())), np.nan)
    for row, own in enumerate(scores):
        table[row, : len(own)] = own
    known = ~np.isnan(table)
    items = np.zeros(table.shape[1])
    means = np.nanmean(table, axis=1)
    for _ in range(_ROUNDS):
        items = np.nanmean(table - means[:, None], axis=0)
        items -= items.mean()
        means = np.nanmean(table - items, axis=1)
    rests = np.where(known, table - means[:, None] - items, 0.0)
    degrees = max(int(known.sum()) - len(scores) - table.shape[1] + 1, 0)
    variance = (float((rests**2).sum()) + score_range**2 / 16) / (degrees + 1)
    most = table.shape[1]
    left = 1.0 - most / population
    spread = float((items**2).sum() + score_range**2 / 16) / most
    return Evidence(means, variance / counts, spread / most * left)
