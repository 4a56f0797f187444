"""Factors and trends are recovered, irrelevant groups are identified, and uncertainty widens the predictions."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.operator_models import LogLinear, OperatorFeatures
from planning.sampler.spaces import chain_of, knob

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


def test_groups_without_features_displace_no_combination_from_the_average() -> None:
    rng = np.random.default_rng(0)
    (first, _), nothing = _features(rng, 6), np.zeros((6, 1))
    logarithms = first @ rng.normal(0, 0.4, 4) + rng.normal(0, 0.2, 6)
    alone = LogLinear.learn(GROUPS[:1], (first,), logarithms)
    assert len(alone.fits) >= 3
    among_others = LogLinear.learn((*GROUPS, (0.01, 0.7)), (first, nothing, nothing), logarithms)
    rows = np.zeros((4, 1))
    for expected, found in zip(alone.predict((np.eye(4),)), among_others.predict((np.eye(4), rows, rows)), strict=True):
        np.testing.assert_allclose(found, expected)


def test_effects_that_no_observation_shows_are_as_uncertain_as_the_widest_scale() -> None:
    first, second = np.eye(4)[[0, 1, 2, 3]], np.zeros((4, 1))
    found = LogLinear.learn(GROUPS, (first, second), np.zeros(4))
    mean, deviation = found.predict((first[:2], np.array([[0.0], [1.0]])))
    np.testing.assert_allclose(mean, 0.0, atol=1e-9)
    assert np.hypot(deviation[0], GROUPS[1][-1]) == pytest.approx(deviation[1], rel=0.1)


@pytest.mark.parametrize("ordered", [True, False])
def test_the_ends_of_an_ordered_knob_follow_from_its_middle(ordered: bool) -> None:
    pipeline = chain_of([knob("batch", 9, ordered=ordered)])
    features = OperatorFeatures.of(ConfigurationSpace.of(pipeline), pipeline, "o0", np.ones(1))
    codes = np.array([[3], [4], [5], [6]])
    found = LogLinear.learn(((0.1, 0.4, 1.0),), features.at(codes, np.ones(4))[:1], 0.4 * codes[:, 0])
    mean, deviation = found.predict(features.at(np.array([[0], [8]]), np.ones(2))[:1])
    if ordered:
        assert mean[0] < 1.2
        assert mean[1] > 2.2
        assert (np.abs(mean - [0.0, 3.2]) < 2 * deviation).all()
    else:
        np.testing.assert_allclose(mean, 1.8, atol=0.01)
