"""Strata found by clustering: against a naive K-means and the best of all partitions, and the same in every process."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.profiling.dataset.stratification import cluster_strata, k_means, standardize


def _spread(points: np.ndarray, cluster: np.ndarray) -> float:
    groups = [points[cluster == number] for number in np.unique(cluster)]
    return float(sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups))


def _best_spread(points: np.ndarray, clusters: int) -> float:
    """Of all partitions: the squares of the points less those of the means, each as often as its cluster has points."""
    labels = np.array(list(itertools.product(range(clusters), repeat=len(points))))
    belongs = (labels[:, None, :] == np.arange(clusters)[:, None]).astype(float)  # (partitions, clusters, points)
    means_squares = ((belongs @ points) ** 2).sum(axis=2) / np.maximum(belongs.sum(axis=2), 1)
    return float((points**2).sum() - means_squares.sum(axis=1).max())


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3), st.integers(1, 6), st.integers(1, 5))
def test_every_point_is_with_the_nearest_mean(
    seed: int, items: int, columns: int, clusters: int, distinct: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(distinct * 4, columns))[rng.integers(0, distinct * 4, items)]
    cluster = k_means(points, clusters, rng)
    found = np.unique(cluster)
    assert found.tolist() == list(range(min(clusters, len(np.unique(points, axis=0)))))
    first = [int(np.flatnonzero(cluster == number)[0]) for number in found]
    assert first == sorted(first)
    means = np.array([points[cluster == number].mean(axis=0) for number in found])
    for point, own in zip(points, cluster, strict=True):  # Lloyd's fixed point, in plain loops
        distances = [float(sum((point - mean) ** 2)) for mean in means]
        assert distances[own] <= min(distances) + 1e-9


def test_small_cases_come_close_to_the_best_of_all_partitions() -> None:
    rng = np.random.default_rng(2)
    ratios = []
    for _ in range(20):
        points = rng.normal(size=(8, 2))
        ratios.append(_spread(points, k_means(points, 3, rng)) / _best_spread(points, 3))
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(ratios) < 1.05
    assert np.median(ratios) == pytest.approx(1.0)


def test_groups_that_lie_apart_are_found() -> None:
    rng = np.random.default_rng(1)
    group = rng.integers(0, 4, 300)
    features = np.hstack([10 * np.eye(4)[group] + rng.normal(size=(300, 4)), np.full((300, 2), 3.0)])
    strata = cluster_strata(features * [1, 1e6, 1e-6, 1, 1, 1], np.random.default_rng(0))
    assert len({(s["features/4"], g) for s, g in zip(strata, group.tolist(), strict=True)}) == 4
    assert set(strata[0]) == {"features/2", "features/4", "features/8"}


@pytest.mark.parametrize(("items", "numbers"), [(15, []), (16, [2]), (31, [2]), (32, [2, 4]), (64, [2, 4, 8])])
def test_each_cluster_has_eight_items_on_average(items: int, numbers: list[int]) -> None:
    strata = cluster_strata(np.random.default_rng(0).normal(size=(items, 2)), np.random.default_rng(0))
    assert len(strata) == items
    assert all(list(s) == [f"features/{k}" for k in numbers] for s in strata)


def test_what_does_not_differ_has_no_strata() -> None:
    rng = np.random.default_rng(0)
    assert cluster_strata(np.ones((50, 3)), rng) == ({},) * 50
    assert cluster_strata(np.zeros((50, 0)), rng) == ({},) * 50
    three = np.repeat([0.0, 1.0, 5.0], 30)[:, None]
    assert set(cluster_strata(three, rng)[0]) == {"features/2"}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_any_finite_features_are_standardised(column: list[float]) -> None:
    found = standardize(np.array(column)[:, None])
    assert np.isfinite(found).all()
    assert np.abs(found).max(initial=0) <= 4


def test_one_outlier_is_no_cluster_of_its_own() -> None:
    rng = np.random.default_rng(0)
    features = np.hstack([rng.normal(size=(200, 1)), np.zeros((200, 1))])
    features[7, 1] = 1e9
    cluster = [s["features/2"] for s in cluster_strata(features, rng)]
    assert 50 < cluster.count("0") < 150


CODE = """
import hashlib, numpy as np
from circinus.operators import Item
from circinus.profiling.dataset.item_features import item_features
from circinus.profiling.dataset.stratification import cluster_strata
rng = np.random.default_rng(3)
values = [{"sound": rng.normal(size=5000) * (1 + i % 3), "note": "ab C" * (i % 7)} for i in range(100)]
features = item_features([Item(str(i), value, None) for i, value in enumerate(values)], "plain", (), "data")
strata = [sorted(found.items()) for found in cluster_strata(features, np.random.default_rng(0))]
print(hashlib.sha256(repr(strata).encode()).hexdigest(), len(set(map(repr, strata))))
"""


@pytest.mark.slow
def test_every_process_finds_the_same() -> None:
    told = set()
    for hash_seed, threads in (("1", "1"), ("2", "2")):
        environment = {"PYTHONHASHSEED": hash_seed, "OPENBLAS_NUM_THREADS": threads}
        run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=environment)
        told.add(run.stdout)
    assert len(told) == 1
    assert int(told.pop().split()[1]) >= 8
