"""What scores on the same items say of mean scores, the items' own difficulty taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


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
    """Estimate mean scores under score = configuration + item + rest, by least squares.

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
    reference = int(np.argmax([len(own) for own in scores]))
    table = np.full((len(scores), len(scores[reference])), np.nan)
    for row, own in enumerate(scores):
        table[row, : len(own)] = own
    known = ~np.isnan(table)
    others = np.flatnonzero(np.arange(len(scores)) != reference)
    # Least squares with the items' parts eliminated, as differences to the reference, which has scores on all items.
    weights = known / known.sum(axis=0)
    information = (np.diag(known.sum(axis=1)) - weights @ known.T)[np.ix_(others, others)]
    covariance = np.linalg.inv(information)
    items = np.nanmean(table, axis=0)
    differences = np.zeros(len(scores))
    differences[others] = covariance @ np.nansum(table - items, axis=1)[others]
    items = np.nanmean(table - differences[:, None], axis=0)
    means = differences + items.mean()
    items = items - items.mean()
    rests = np.where(known, table - means[:, None] - items, 0.0)
    degrees = int(known.sum()) - len(scores) - table.shape[1] + 1
    variance = (float((rests**2).sum()) + score_range**2 / 16) / (degrees + 1)
    unit_variances = np.full(len(scores), 1.0 / table.shape[1])
    unit_variances[others] += np.diag(covariance)
    spread = (float((items**2).sum()) + score_range**2 / 16) / table.shape[1]
    return Evidence(means, variance * unit_variances, spread / table.shape[1] * (1.0 - table.shape[1] / population))
