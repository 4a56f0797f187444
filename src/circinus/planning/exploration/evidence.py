"""What scores on the same items say of mean scores, the items' own difficulty taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from circinus.profiling.sequences import Covariates
from circinus.profiling.sequences.prediction import leave_one_out_errors, predicted_means

FloatArray = NDArray[np.float64]

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
