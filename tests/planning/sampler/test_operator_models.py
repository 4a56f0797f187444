"""Factors are recovered, irrelevant groups are identified, and uncertainty widens the predictions."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.planning.sampler.operator_models import LogLinear

GROUPS = ((0.1, 0.5), (0.005, 0.2))


def _features(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(4)[rng.integers(0, 4, count)], np.eye(3)[rng.integers(0, 3, count)]


def test_what_was_observed_is_predicted_and_the_rest_by_its_factors() -> None:
    rng = np.random.default_rng(0)
    effects = np.array([-0.8, -0.2, 0.3, 0.7])
    first, second = _features(rng, 24)
    found = LogLinear.learn(GROUPS, (first, second), 2.0 + first @ effects)
    mean, deviation = found.predict((first, second))
    np.testing.assert_allclose(mean, 2.0 + first @ effects, atol=0.02)
    others = _features(rng, 50)
    mean, deviation = found.predict(others)
    np.testing.assert_allclose(mean, 2.0 + others[0] @ effects, atol=0.05)
    assert (deviation < 0.1).all()


@pytest.mark.parametrize("count", [3, 8, 30])
def test_the_truth_lies_within_two_deviations_most_of_the_time(count: int) -> None:
    inside = []
    for seed in range(60):
        rng = np.random.default_rng([count, seed])
        own, other = rng.normal(0, 0.4, 4), rng.normal(0, 0.05, 3)
        first, second = _features(rng, count)
        found = LogLinear.learn(GROUPS, (first, second), first @ own + second @ other + rng.normal(0, 0.05, count))
        fresh = _features(rng, 40)
        mean, deviation = found.predict(fresh)
        truth = fresh[0] @ own + fresh[1] @ other + rng.normal(0, 0.05, 40)
        inside.append((np.abs(truth - mean) <= 2 * deviation).mean())
    assert np.mean(inside) > 0.85


def test_one_observation_says_little() -> None:
    first, second = np.eye(4)[[0]], np.eye(3)[[0]]
    found = LogLinear.learn(GROUPS, (first, second), np.array([1.0]))
    mean, deviation = found.predict((np.eye(4), np.eye(3)[[0, 0, 0, 0]]))
    assert mean[0] == pytest.approx(1.0, abs=0.01)
    assert deviation[0] < 0.35
    assert (deviation[1:] > deviation[0]).all()
