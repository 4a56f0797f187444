"""Strata for items that declare none: clusters of their features.

K-means is written out here. SciPy and scikit-learn have it, for 35 MB and more where forty lines do, and their results
change with their versions; what is found is part of a data set's fingerprint and decides its order.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray

NUMBERS_OF_CLUSTERS = (2, 4, 8)
_ITEMS_PER_CLUSTER = 8
_STARTS = 4
_MOST_ROUNDS = 50
_FARTHEST = 4.0
"""Standard deviations beyond which a feature is cut off: one outlier shall not be a cluster."""


def cluster_strata(features: FloatArray, rng: np.random.Generator) -> tuple[Mapping[str, str], ...]:
    """Cluster items into 2, 4 and 8, as far as there are 8 items for each cluster, and call these their conditions.

    Which number explains scores is not known before scores are, and must not be chosen by looking at them all: the
    proof of the bounds needs covariates that no score had a say in (`side_bets`). So all numbers are offered at once,
    and the regression on the items measured before decides, from item to item, how much each of them explains.

    Args:
        features: (N, features) finite numbers; what is constant says nothing.
        rng: draws the starts.

    Returns:
        For each item a condition `features/k` for each number k of clusters that was found; the same conditions for the
        same features, whatever the other columns' units.
    """
    points = standardize(features)
    found: dict[str, IntArray] = {}
    for clusters in NUMBERS_OF_CLUSTERS:
        if points.shape[1] and len(points) >= clusters * _ITEMS_PER_CLUSTER:
            cluster = k_means(points, clusters, rng)
            if cluster.max() == clusters - 1:  # fewer distinct items than clusters: said by a smaller number already
                found[f"features/{clusters}"] = cluster
    return tuple({name: str(cluster[item]) for name, cluster in found.items()} for item in range(len(points)))


def standardize(features: FloatArray) -> FloatArray:
    """(N, F) -> (N, at most F) columns of mean 0 and variance 1 before outliers are cut off, without constant ones."""
    if not features.size:
        return np.zeros((len(features), 0))
    largest = np.abs(features).max(axis=0)
    centred = features / np.where(largest > 0, largest, 1.0)  # huge ones would overflow when squared
    centred = centred - centred.mean(axis=0)
    deviation = np.sqrt((centred**2).mean(axis=0))
    varies = deviation > 1e-9
    # Rounded, as the last digits differ between processors and must not decide anything.
    rounded: FloatArray = np.round(np.clip(centred[:, varies] / deviation[varies], -_FARTHEST, _FARTHEST), 9)
    return rounded


def k_means(points: FloatArray, clusters: int, rng: np.random.Generator) -> IntArray:
    """Lloyd's iteration (IEEE Transactions on Information Theory 28, 1982) from the best of four k-means++ starts.

    Args:
        points: (N, F), N > 0, F > 0.
        clusters: how many are wanted.
        rng: draws the starts (Arthur & Vassilvitskii, SODA 2007).

    Returns:
        (N,) cluster of each point, numbered in the order in which they first occur; fewer clusters where fewer points
        are distinct.
    """
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(_STARTS):
        cluster, spread = _lloyd(points, _spread_centres(points, clusters, rng))
        if spread < least * (1 - 1e-9):
            best, least = cluster, spread
    _, first, inverse = np.unique(best, return_index=True, return_inverse=True)
    numbers: IntArray = np.argsort(np.argsort(first))[inverse.reshape(-1)]
    return numbers


def _spread_centres(points: FloatArray, clusters: int, rng: np.random.Generator) -> FloatArray:
    """(at most clusters, F) points, each drawn by its squared distance to the nearest before it."""
    centres = [points[rng.integers(len(points))]]
    distance = _squared_distances(points, np.array(centres))[0]
    while len(centres) < clusters and distance.sum() > 0:
        cumulated = np.cumsum(distance)
        chosen = int(np.searchsorted(cumulated, rng.random() * cumulated[-1], side="right"))
        centres.append(points[min(chosen, int(np.flatnonzero(distance)[-1]))])
        distance = np.minimum(distance, _squared_distances(points, np.array(centres[-1:]))[0])
    return np.array(centres)


def _lloyd(points: FloatArray, centres: FloatArray) -> tuple[IntArray, float]:
    """(N,) nearest centre of each point once nothing moves any more, and the sum of squared distances."""
    cluster = np.full(len(points), -1, dtype=np.int64)
    for _ in range(_MOST_ROUNDS):
        distances = _squared_distances(points, centres)
        nearest: IntArray = distances.argmin(axis=0)
        if np.array_equal(nearest, cluster):
            break
        cluster = nearest
        sizes = np.bincount(cluster, minlength=len(centres))
        sums = np.stack([np.bincount(cluster, column, len(centres)) for column in points.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(1, sizes)[:, None], centres)
    return cluster, float(_squared_distances(points, centres)[cluster, np.arange(len(points))].sum())


def _squared_distances(points: FloatArray, centres: FloatArray) -> NDArray[np.float64]:
    """(centres, N); summed without BLAS, whose rounding depends on the number of threads."""
    return np.stack([((points - centre) ** 2).sum(axis=1) for centre in centres])
