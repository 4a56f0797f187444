"""Estimation of mean scores from scores on shared items, adjusted for item difficulty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray

_MAX_ROWS = 1_000
"""Maximum number of rows of a table with gaps, as the solution takes cubic time."""


@dataclass(frozen=True, eq=False)
class RowMeans:
    """Estimated means of r rows of a table."""

    rows: IntArray
    """(r,) indexes of the comparable rows, ascending."""
    means: FloatArray
    """(r,) means over the columns of the reference row."""
    variances: FloatArray
    """(r,) error variances of the means, conditional on the columns."""


def two_way_row_means(table: FloatArray, prior_variance: float) -> RowMeans:
    """Return row means by least squares of value = row + column + residual.

    This is the two-way layout (Scheffe, The Analysis of Variance, 1959, chapter 4). Rows are compared in the columns of
    the row with most values (of equal ones the first); rows without a value in these columns cannot be compared. Of
    many rows with gaps only those with most values are used.

    Args:
        table: (rows, columns) values, NaN for missing ones; at least one value.
        prior_variance: prior variance of the residuals, with the weight of one residual, as few equal values prove
            nothing.
    """
    present = ~np.isnan(table)
    columns = present[int(present.sum(axis=1).argmax())]
    counts = present[:, columns].sum(axis=1)
    if (counts[counts > 0] < columns.sum()).any():
        counts[np.argsort(-counts, kind="stable")[_MAX_ROWS:]] = 0
    rows = np.flatnonzero(counts)
    values, observed = table[np.ix_(rows, columns)], present[np.ix_(rows, columns)]
    if observed.all():
        means, units = values.mean(axis=1), np.full(len(rows), 1.0 / observed.shape[1])
    else:
        means, units = _solved(values, observed)
    column_effects = np.nanmean(values - means[:, None], axis=0)
    residuals = np.where(observed, values - means[:, None] - column_effects, 0.0)
    degrees = int(observed.sum()) - observed.shape[0] - observed.shape[1] + 1
    return RowMeans(rows, means, units * (float((residuals**2).sum()) + prior_variance) / (degrees + 1))


def _solved(values: FloatArray, observed: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return (r,) means, and their variances for residuals of variance 1; some row has no gap.

    A mean is the row's difference minus the average row of each column, plus the mean of the columns' means, whose
    errors are independent of those of the differences.
    """
    remaining, differences, covariance = _differences(values, observed)
    columns = np.nanmean(values, axis=0)
    weights = (observed / observed.sum(axis=0)).mean(axis=1)
    contrasts = (np.eye(len(values)) - weights)[:, remaining]
    means = columns.mean() + contrasts @ differences
    units = np.einsum("ij,ij->i", contrasts @ covariance, contrasts)
    return means, units + float((1.0 / observed.sum(axis=0)).mean()) / observed.shape[1]


def _differences(values: FloatArray, observed: BoolArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return least-squares differences of the rows to the reference row, which has most values, columns eliminated.

    Returns:
        (r - 1,) other rows, (r - 1,) differences, and their covariance for residuals of variance 1.
    """
    reference = int(observed.sum(axis=1).argmax())
    remaining = np.flatnonzero(np.arange(len(values)) != reference)
    weights = observed / observed.sum(axis=0)
    information = (np.diag(observed.sum(axis=1)) - weights @ observed.T)[np.ix_(remaining, remaining)]
    covariance = np.linalg.inv(information)
    differences = covariance @ np.nansum(values - np.nanmean(values, axis=0), axis=1)[remaining]
    return remaining, differences, covariance


_PSEUDO_RESIDUAL = 1 / 16
"""Error of one pseudo-item, as a share of the score range; a few equal scores do not prove certainty."""
_POOLED_ITEMS = 4.0
"""Weight, in items, of the residuals of all configurations in the residual variance of one."""


@dataclass(frozen=True, eq=False)
class MeanScoreEstimates:
    """Estimates of the mean scores of n configurations over all items."""

    means: FloatArray
    """(n,)"""
    variances: FloatArray
    """(n,) variances of the individual errors of the estimates."""
    common_variance: float
    """Variance of the common error: the measured items may be easier or harder than all items."""


def estimate_mean_scores(scores: Sequence[FloatArray], population: int, score_range: float) -> MeanScoreEstimates:
    """Estimate mean scores in the model score = configuration + slope * item + residual.

    This is a two-way layout (Scheffe, The Analysis of Variance, 1959, chapter 4). All configurations are measured on a
    prefix of one order of items, so configurations with more items reveal how much easier the first items are. On real
    scores the items account for most of the variance. One measured on a whole population has no uncertainty.

    Limits: additivity is an assumption, and item difficulty matters less near the ends of the range. The estimates
    guide measurements; no guarantee depends on them.

    Args:
        scores: scores of each configuration on its first items, at least one each.
        population: number of items of the population that mean scores are of.
        score_range: greatest score minus the least.
    """
    max_items = max(len(own) for own in scores)
    table = np.full((len(scores), max_items), np.nan)
    for row, own in enumerate(scores):
        table[row, : len(own)] = own
    observed = ~np.isnan(table)
    remaining, own_differences, _ = _differences(table, observed)
    differences = np.zeros(len(scores))
    differences[remaining] = own_differences
    items = np.nanmean(table - differences[:, None], axis=0)
    level, variance = _level(items, score_range)
    effects = items - level  # item effects have mean 0 over all items
    counts = observed.sum(axis=1)
    slopes = _slopes(table, observed, effects)
    own_effects = np.where(observed, effects, 0.0).sum(axis=1) / counts
    means = np.nanmean(table, axis=1) - slopes * own_effects
    residuals = np.where(observed, table - means[:, None] - slopes[:, None] * effects, 0.0)
    variances = _residual_variances(residuals, observed, score_range) / counts * (1.0 - counts / population)
    return MeanScoreEstimates(means, variances, variance / max_items * (1.0 - max_items / population))


def _slopes(table: FloatArray, observed: BoolArray, effects: FloatArray) -> FloatArray:
    """Return (n,) sensitivity of each configuration to item difficulty, shrunk towards 1."""
    own = np.where(observed, effects, 0.0)
    centred = np.where(observed, own - (own.sum(axis=1) / observed.sum(axis=1))[:, None], 0.0)
    shrinkage = _POOLED_ITEMS * max(float(effects.var()), 1e-12)
    squares = (centred**2).sum(axis=1)
    return np.asarray(((centred * np.where(observed, table, 0.0)).sum(axis=1) + shrinkage) / (squares + shrinkage))


def _residual_variances(residuals: FloatArray, observed: BoolArray, score_range: float) -> FloatArray:
    """Return (n,) residual variance of each configuration, shrunk towards the pooled one."""
    total = int(observed.sum())
    degrees = max(total - observed.shape[0] - observed.shape[1] + 1, 0)
    pooled = (float((residuals**2).sum()) + (_PSEUDO_RESIDUAL * score_range) ** 2) / (degrees + 1)
    own_degrees = observed.sum(axis=1) * (degrees / total)
    return np.asarray(((residuals**2).sum(axis=1) + _POOLED_ITEMS * pooled) / (own_degrees + _POOLED_ITEMS))


def _level(items: FloatArray, score_range: float) -> tuple[float, float]:
    """Return the mean of (m,) item effects, and the variance of one."""
    count, level = len(items), float(items.mean())
    errors = (items - level) * (count / max(count - 1, 1))
    variance = (float((errors**2).sum()) + (_PSEUDO_RESIDUAL * score_range) ** 2) / count
    # The variance of few items is uncertain itself, so use the variance of Student's distribution.
    return level, variance * (count - 1) / (count - 3) if count > 3 else 4.0 * variance
