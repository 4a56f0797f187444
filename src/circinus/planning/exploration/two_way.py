"""Means of rows of a table with gaps, the columns' own parts taken out: of configurations over items, say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_ROWS_AT_MOST = 1_000
"""Of a table with gaps: what is solved takes their number cubed."""


@dataclass(frozen=True, eq=False)
class RowMeans:
    """Of r rows of a table."""

    rows: IntArray
    """(r,) which rows can be compared, ascending."""
    means: FloatArray
    """(r,) over the columns that one row has all of."""
    variances: FloatArray
    """(r,) of the errors of these means as those of what rows show in these columns, columns being what they are."""


def two_way_row_means(table: FloatArray, least_variance: float) -> RowMeans:
    """Least squares of value = row + column + rest (Scheffe, The Analysis of Variance, 1959, chapter 4).

    Rows are compared in the columns of the row that has most (of equals the first); rows without any value in these
    cannot be compared. Of many rows with gaps only those with most values are.

    Args:
        table: (rows, columns) NaN where there is no value; one value at least.
        least_variance: of the rests. One rest more of this size is counted, since a few equal values prove nothing.
    """
    present = ~np.isnan(table)
    columns = present[int(present.sum(axis=1).argmax())]
    counts = present[:, columns].sum(axis=1)
    if (counts[counts > 0] < columns.sum()).any():
        counts[np.argsort(-counts, kind="stable")[_ROWS_AT_MOST:]] = 0
    rows = np.flatnonzero(counts)
    values, known = table[np.ix_(rows, columns)], present[np.ix_(rows, columns)]
    if known.all():
        means, units = values.mean(axis=1), np.full(len(rows), 1.0 / known.shape[1])
    else:
        means, units = _solved(values, known)
    parts = np.nanmean(values - means[:, None], axis=0)
    rests = np.where(known, values - means[:, None] - parts, 0.0)
    degrees = int(known.sum()) - known.shape[0] - known.shape[1] + 1
    return RowMeans(rows, means, units * (float((rests**2).sum()) + least_variance) / (degrees + 1))


def _solved(values: FloatArray, known: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """(r,) means, and their variances for rests of variance 1; some row has no gap.

    Columns are eliminated; what is left are differences between rows, to that row. A mean is the row's difference less
    that of the average row of each column, plus the mean of the columns' means, whose errors are independent of those
    of differences.
    """
    reference = int(known.sum(axis=1).argmax())
    others = np.flatnonzero(np.arange(len(values)) != reference)
    weights = known / known.sum(axis=0)
    information = (np.diag(known.sum(axis=1)) - weights @ known.T)[np.ix_(others, others)]
    covariance = np.linalg.inv(information)
    columns = np.nanmean(values, axis=0)
    differences = covariance @ np.nansum(values - columns, axis=1)[others]
    contrasts = (np.eye(len(values)) - weights.mean(axis=1))[:, others]
    means = columns.mean() + contrasts @ differences
    units = np.einsum("ij,ij->i", contrasts @ covariance, contrasts)
    return means, units + float((1.0 / known.sum(axis=0)).mean()) / known.shape[1]
