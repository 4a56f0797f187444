"""Strata of items that declare none: clusters of their features.

K-means is implemented here in forty lines. SciPy and scikit-learn would add 35 MB and more, and their results change
between versions, while clusters are part of a data set's fingerprint and determine its order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from circinus.arrays import FloatArray, IntArray

NUMBERS_OF_CLUSTERS = (2, 4, 8)
_ITEMS_PER_CLUSTER = 8
_STARTS = 4
_MAX_ROUNDS = 50
_CLIPPING_THRESHOLD = 4.0
"""Clipping threshold of features in standard deviations, so that an outlier does not become a cluster."""


def cluster_strata(features: FloatArray, rng: np.random.Generator) -> tuple[Mapping[str, str], ...]:
    """Cluster items into 2, 4 and 8 clusters, given at least 8 items per cluster, and return these as conditions.

    The number of clusters that explains the scores is unknown before scores are, and must not be chosen from all
    scores: the proof of the bounds needs covariates independent of the scores (`covariate_bets`). Therefore all numbers
    are offered, and the regression on the previously measured items weighs them, item by item.

    Args:
        features: (N, features) finite numbers; constant columns are ignored.
        rng: source of the starting centres.

    Returns:
        For each item a condition `features/k` for each number k of clusters; equal features get equal conditions,
        independent of the units of the columns.
    """
    points = standardize(features)
    clusterings: dict[str, IntArray] = {}
    for clusters in NUMBERS_OF_CLUSTERS:
        if points.shape[1] and len(points) >= clusters * _ITEMS_PER_CLUSTER:
            cluster = k_means(points, clusters, rng)
            if cluster.max() == clusters - 1:  # else there are fewer distinct items, as in the smaller clustering
                clusterings[f"features/{clusters}"] = cluster
    return tuple({name: str(cluster[item]) for name, cluster in clusterings.items()} for item in range(len(points)))


def standardize(features: FloatArray) -> FloatArray:
    """Return (N, at most F) columns of mean 0 and variance 1 before clipping of outliers, without constant columns."""
    if not features.size:
        return np.zeros((len(features), 0))
    largest = np.abs(features).max(axis=0)
    centred = features / np.where(largest > 0, largest, 1.0)  # huge values would overflow when squared
    centred = centred - centred.mean(axis=0)
    deviation = np.sqrt((centred**2).mean(axis=0))
    varies = deviation > 1e-9
    # The last digits differ between processors and must not affect the clusters.
    rounded: FloatArray = np.round(
        np.clip(centred[:, varies] / deviation[varies], -_CLIPPING_THRESHOLD, _CLIPPING_THRESHOLD), 9
    )
    return rounded


def k_means(points: FloatArray, clusters: int, rng: np.random.Generator) -> IntArray:
    """Return the best of four k-means clusterings (Lloyd, IEEE Transactions on Information Theory 28, 1982).

    Args:
        points: (N, F), N > 0, F > 0.
        clusters: requested number of clusters.
        rng: source of the k-means++ starting centres (Arthur & Vassilvitskii, SODA 2007).

    Returns:
        (N,) cluster of each point, numbered in the order of first occurrence; fewer clusters if fewer points are
        distinct.
    """
    best, best_inertia = np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(_STARTS):
        cluster, inertia = _lloyd(points, _spread_centres(points, clusters, rng))
        if inertia < best_inertia * (1 - 1e-9):
            best, best_inertia = cluster, inertia
    _, first_index, inverse = np.unique(best, return_index=True, return_inverse=True)
    renumbered: IntArray = np.argsort(np.argsort(first_index))[inverse.reshape(-1)]
    return renumbered


def _spread_centres(points: FloatArray, clusters: int, rng: np.random.Generator) -> FloatArray:
    """Return (at most clusters, F) points, each drawn by its squared distance to the nearest previous centre."""
    centres = [points[rng.integers(len(points))]]
    distance = _squared_distances(points, np.array(centres))[0]
    while len(centres) < clusters and distance.sum() > 0:
        cumulated = np.cumsum(distance)
        selected = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
        centres.append(points[min(selected, int(np.flatnonzero(distance)[-1]))])
        distance = np.minimum(distance, _squared_distances(points, np.array(centres[-1:]))[0])
    return np.array(centres)


def _lloyd(points: FloatArray, centres: FloatArray) -> tuple[IntArray, float]:
    """Return (N,) the nearest centre of each point after convergence, and the sum of squared distances."""
    cluster = np.full(len(points), -1, dtype=np.int64)
    for _ in range(_MAX_ROUNDS):
        distances = _squared_distances(points, centres)
        nearest: IntArray = distances.argmin(axis=0)
        if np.array_equal(nearest, cluster):
            break
        cluster = nearest
        sizes = np.bincount(cluster, minlength=len(centres))
        sums = np.stack([np.bincount(cluster, column, len(centres)) for column in points.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(1, sizes)[:, None], centres)
    return cluster, float(_squared_distances(points, centres)[cluster, np.arange(len(points))].sum())


def _squared_distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    """Return (centres, N) distances, summed without BLAS, whose rounding depends on the number of threads."""
    return np.stack([((points - centre) ** 2).sum(axis=1) for centre in centres])
