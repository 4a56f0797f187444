"""Order of items in which every prefix is a sample stratified by K-means clusters."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray, IntArray

_ROUNDS = 50


def clustered_order(features: FloatArray, clusters: int, rng: np.random.Generator) -> IntArray:
    """Return (N,) indices of the items: random within a cluster, clusters in proportion in every prefix.

    Args:
        features: (N, f) features of the items that exist before any measurement.
        clusters: maximum number of clusters.
        rng: draws the initial centres and the order within a cluster.
    """
    labels = k_means(features, clusters, rng)
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        position[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    return np.argsort(position, kind="stable")


def k_means(points: FloatArray, clusters: int, rng: np.random.Generator) -> IntArray:
    """Return (N,) cluster of each point (N, f), by Lloyd's algorithm (IEEE Trans. Information Theory 28, 1982).

    Initial centres are drawn in proportion to squared distances (Arthur & Vassilvitskii, "k-means++", SODA 2007).
    """
    centres = points[rng.integers(len(points))][None, :]
    while len(centres) < clusters:
        squared = _squared(points, centres).min(axis=1)
        if not squared.sum() > 0:
            break
        centres = np.vstack([centres, points[rng.choice(len(points), p=squared / squared.sum())]])
    labels: IntArray = _squared(points, centres).argmin(axis=1)
    for _ in range(_ROUNDS):
        centres = np.array([points[labels == c].mean(axis=0) for c in np.unique(labels)])
        reassigned = _squared(points, centres).argmin(axis=1)
        if np.array_equal(reassigned, labels):
            break
        labels = reassigned
    return labels


def _squared(points: FloatArray, centres: FloatArray) -> FloatArray:
    return np.asarray(((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2))
