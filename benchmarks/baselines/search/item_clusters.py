"""Items in an order of which every beginning is a sample stratified by K-means clusters."""

from __future__ import annotations

import numpy as np

from circinus.arrays import FloatArray, IntArray

_ROUNDS = 50


def clustered_order(features: FloatArray, clusters: int, rng: np.random.Generator) -> IntArray:
    """(N,) numbers of the items: within a cluster at random, the clusters in proportion all along.

    Args:
        features: (N, f) what is known of the items before anything is measured.
        clusters: how many at most.
        rng: decides the first centres and the order within a cluster.
    """
    labels = k_means(features, clusters, rng)
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    return np.argsort(place, kind="stable")


def k_means(points: FloatArray, clusters: int, rng: np.random.Generator) -> IntArray:
    """(N,) cluster of each point (N, f): Lloyd's rounds (IEEE Trans. Information Theory 28, 1982), from centres that
    are drawn in proportion to squared distances (Arthur & Vassilvitskii, "k-means++", SODA 2007)."""
    centres = points[rng.integers(len(points))][None, :]
    while len(centres) < clusters:
        squared = _squared(points, centres).min(axis=1)
        if not squared.sum() > 0:
            break
        centres = np.vstack([centres, points[rng.choice(len(points), p=squared / squared.sum())]])
    labels: IntArray = _squared(points, centres).argmin(axis=1)
    for _ in range(_ROUNDS):
        centres = np.array([points[labels == c].mean(axis=0) for c in np.unique(labels)])
        moved = _squared(points, centres).argmin(axis=1)
        if np.array_equal(moved, labels):
            break
        labels = moved
    return labels


def _squared(points: FloatArray, centres: FloatArray) -> FloatArray:
    return np.asarray(((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2))
