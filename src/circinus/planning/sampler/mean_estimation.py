"""What scores on the same items say of mean scores, the items' own difficulty taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.profiling.confidence_sequences import Covariates
from circinus.profiling.confidence_sequences.prediction import leave_one_out_errors, predicted_means

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


_PSEUDO_REST = 1 / 16
"""Share of the range by which one item more is taken to be off: a few equal scores are no proof of certainty."""
_POOLED_ITEMS = 4.0
"""Items whose weight the rests of all configurations have in what is taken of one's own."""


@dataclass(frozen=True, eq=False)
class MeanScoreEstimates:
    """Estimates of the mean scores of n configurations over all items."""

    means: FloatArray
    """(n,)"""
    variances: FloatArray
    """(n,) of the errors that each estimate has by itself."""
    common_variance: float
    """Of the error that all have in common, because the items measured are a little easier or harder than all."""
    slopes: FloatArray
    """(n,) by how much more than on average items' difficulty matters to each configuration."""
    shared: FloatArray
    """(n, n) covariance of the errors by itself of configurations that are alike: items measured of both are the same
    for both, further items of one of them say nothing of the other's."""

    def common_deviation(self, means: FloatArray) -> FloatArray:
        """(m,) means -> (m,) standard deviation of the common error of configurations that score so.

        Near the ends of the range items matter less; so slopes are taken from configurations that score alike.
        """
        away = (means[:, None] - self.means[None, :]) / max(float(np.ptp(self.means)) / 4, 1e-9)
        weights = np.exp(-0.5 * away**2) + 1e-3
        slopes = weights @ np.abs(self.slopes) / weights.sum(axis=1)
        return np.asarray(np.sqrt(self.common_variance) * slopes)


def estimate_mean_scores(
    scores: Sequence[FloatArray], population: int, score_range: float, covariates: Covariates | None = None
) -> MeanScoreEstimates:
    """Estimate mean scores under score = configuration + slope * item + rest.

    The two-way layout (Scheffe, The Analysis of Variance, 1959, chapter 4). All configurations are measured on a
    beginning of the same order of items, so that by how much the first items are easier is seen by those that were
    measured on more. On real scores the items carry most of the variance, and most of that is predicted by what is
    known of the items beforehand. Of a configuration measured on all items nothing is uncertain.

    Limits: that the parts add up is an assumption; near the ends of the range items matter less. It guides what is
    measured, and no promise rests on it.

    Args:
        scores: of each configuration on its first items, at least one each.
        population: number of all items.
        score_range: greatest score less the least.
        covariates: what is known of the items, in the order of measuring; None: nothing.
    """
    reference = int(np.argmax([len(own) for own in scores]))
    longest = len(scores[reference])
    table = np.full((len(scores), longest), np.nan)
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
    level, variance = _level(items, population, score_range, covariates)
    parts = items - level  # so that those of all items are expected to add up to nothing
    counts = known.sum(axis=1)
    slopes = _slopes(table, known, parts)
    own_parts = np.where(known, parts, 0.0).sum(axis=1) / counts
    means = np.nanmean(table, axis=1) - slopes * own_parts
    rests = np.where(known, table - means[:, None] - slopes[:, None] * parts, 0.0)
    variances = _rest_variances(rests, known, score_range) / counts * (1.0 - counts / population)
    shared = _shared(variances, counts, population)
    return MeanScoreEstimates(means, variances, variance / longest * (1.0 - longest / population), slopes, shared)


def _shared(variances: FloatArray, counts: NDArray[np.int64], population: int) -> FloatArray:
    """See `Evidence.shared`; positive semidefinite, as the lesser of two numbers is a covariance of Brownian motion."""
    left = 1.0 / counts - 1.0 / population
    both = np.minimum(left[:, None], left[None, :])
    deviations = np.sqrt(variances / np.maximum(left, 1e-12))
    return np.asarray(both * deviations[:, None] * deviations[None, :])


def _slopes(table: FloatArray, known: NDArray[np.bool_], parts: FloatArray) -> FloatArray:
    """(n,) by how much more than on average the items' parts matter to each configuration, drawn towards 1."""
    own = np.where(known, parts, 0.0)
    centred = np.where(known, own - (own.sum(axis=1) / known.sum(axis=1))[:, None], 0.0)
    usual = _POOLED_ITEMS * max(float(parts.var()), 1e-12)
    squares = (centred**2).sum(axis=1)
    return np.asarray(((centred * np.where(known, table, 0.0)).sum(axis=1) + usual) / (squares + usual))


def _rest_variances(rests: FloatArray, known: NDArray[np.bool_], score_range: float) -> FloatArray:
    """(n,) variance of single rests of each configuration, drawn towards that of all."""
    total = int(known.sum())
    degrees = max(total - known.shape[0] - known.shape[1] + 1, 0)
    pooled = (float((rests**2).sum()) + (_PSEUDO_REST * score_range) ** 2) / (degrees + 1)
    own_degrees = known.sum(axis=1) * (degrees / total)
    return np.asarray(((rests**2).sum(axis=1) + _POOLED_ITEMS * pooled) / (own_degrees + _POOLED_ITEMS))


def _level(
    items: FloatArray, population: int, score_range: float, covariates: Covariates | None
) -> tuple[float, float]:
    """Mean of (m,) item parts over all items as predicted, and the variance of one about its prediction."""
    count = len(items)
    if covariates is None or count in (1, population):
        level, errors = float(items.mean()), (items - items.mean()) * (count / max(count - 1, 1))
    else:
        low, width = float(items.min()), max(float(np.ptp(items)), 1e-12)
        unit = ((items - low) / width)[None]
        level = low + width * float(predicted_means(unit, covariates, population)[0])
        errors = width * leave_one_out_errors(unit, covariates)[0]
    variance = (float((errors**2).sum()) + (_PSEUDO_REST * score_range) ** 2) / count
    # What few items say of their variance is uncertain itself: that of Student's distribution.
    return level, variance * (count - 1) / (count - 3) if count > 3 else 4.0 * variance
