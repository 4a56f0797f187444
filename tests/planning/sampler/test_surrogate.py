"""Posterior beliefs after some measurements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples, share_of
from circinus.arrays import FloatArray, IntArray
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.gaussian_process import GaussianProcess, KernelInputs, ScoreObservations, covariance
from circinus.planning.sampler.hyperparameters import Hyperparameters
from circinus.planning.sampler.kernel import KnobKernel
from circinus.planning.sampler.surrogate import Surrogate
from planning.sampler.spaces import CASCADE, chain

SPACE = chain([5], [-4, 3], [4])
seeds = st.integers(0, 2**32 - 1)


def smooth(codes: IntArray) -> FloatArray:
    """Return scores that do not depend on the second knob of the middle operator."""
    level = np.array([0.05, 0.2, -0.1, 0.0])[codes[:, 1]]
    return np.asarray(0.4 + 0.3 * np.tanh(codes[:, 0] / 2 - 1) + level + 0.03 * codes[:, 3])


def some(rng: np.random.Generator, space: ConfigurationSpace, count: int) -> IntArray:
    return space.enumerate()[rng.permutation(space.size)[:count]]


@settings(max_examples=examples(60))
@given(seeds, st.booleans(), st.integers(1, 25))
def test_what_was_measured_exactly_is_known_exactly(seed: int, additive: bool, count: int) -> None:
    codes = some(np.random.default_rng(seed), SPACE, count)
    belief = Surrogate.fit(SPACE, codes, smooth(codes), np.zeros(count), additive=additive).predict(codes)
    assert belief.mean == pytest.approx(smooth(codes), abs=2e-3)
    assert belief.deviation.max() < 2e-3


@settings(max_examples=examples(60))
@given(seeds, st.booleans(), st.integers(1, 25))
def test_no_belief_is_wider_than_before(seed: int, additive: bool, count: int) -> None:
    rng = np.random.default_rng(seed)
    space = CASCADE if seed % 2 else SPACE
    codes = some(rng, space, count)
    means, variances = rng.uniform(0, 1, count), rng.uniform(0, 0.1, count)
    surrogate = Surrogate.fit(space, codes, means, variances, additive=additive)
    everything = space.enumerate()
    inputs = KernelInputs(surrogate.kernel.slots(everything), np.ones((space.size, 1)))
    for process in surrogate.processes:
        _, left = process.predict(inputs)
        assert (left <= process.prior_variances(inputs)).all()


def test_far_away_the_prior_is_left() -> None:
    kernel = KnobKernel.of(SPACE)
    h = Hyperparameters(np.full(4, np.log(50.0)), np.array([np.log(0.2)]), 0.8, np.zeros(1))
    here, far = (KernelInputs(kernel.slots(np.array([code])), np.ones((1, 1))) for code in ([0, 0, 0, 0], [4, 2, 2, 3]))
    process = GaussianProcess.condition(kernel, h, ScoreObservations(here, np.array([0.3]), np.array([1e-6])))
    mean, variance = process.predict(far)
    assert mean == pytest.approx(0.0, abs=1e-9)
    assert variance == pytest.approx(0.2**2)
    assert process.predict(here)[0] == pytest.approx(0.3, abs=1e-3)


def test_far_away_a_given_prior_mean_is_left_as_wide_as_its_level_and_slope_are_known() -> None:
    codes, prior = SPACE.enumerate()[:1], np.array([0.5])
    surrogate = Surrogate.fit(SPACE, codes, np.array([0.5]), np.array([1e-6]), prior=prior)
    belief = surrogate.predict(SPACE.enumerate()[-1:].repeat(2, axis=0), np.array([0.5, 0.9]))
    assert belief.mean == pytest.approx([0.5, 0.9], abs=1e-3)
    assert 0.05 < belief.deviation[0] < belief.deviation[1] - 0.02


def test_one_measurement_moves_the_rest_along_and_leaves_them_open() -> None:
    codes = np.array([[2, 1, 1, 1]])
    surrogate = Surrogate.fit(SPACE, codes, np.array([0.8]), np.array([1e-4]))
    belief = surrogate.predict(np.array([[2, 1, 1, 1], [3, 1, 1, 1], [0, 2, 0, 3]]))
    assert belief.mean == pytest.approx([0.8, 0.8, 0.8], abs=0.08)
    assert belief.deviation[0] < 0.012
    assert 0.02 < belief.deviation[1] < belief.deviation[2]
    assert 0.1 < belief.deviation[2] < 0.4


@pytest.mark.parametrize("additive", [False, True])
def test_a_dead_knob_is_found_dead(additive: bool) -> None:
    codes = some(np.random.default_rng(1), SPACE, 40)
    surrogate = Surrogate.fit(SPACE, codes, smooth(codes), np.full(40, 1e-6), additive=additive)
    twins = np.array([[3, 2, choice, 2] for choice in range(3)])
    belief = surrogate.predict(twins)
    assert np.ptp(belief.mean) < 0.005


@settings(max_examples=examples(40))
@given(seeds, st.booleans())
def test_the_order_of_measurements_does_not_matter(seed: int, additive: bool) -> None:
    rng = np.random.default_rng(seed)
    codes = some(rng, SPACE, 12)
    means, variances = smooth(codes) + rng.normal(0, 0.02, 12), rng.uniform(1e-4, 1e-3, 12)
    other = rng.permutation(12)
    one = Surrogate.fit(SPACE, codes, means, variances, additive=additive).predict(SPACE.enumerate())
    two = Surrogate.fit(SPACE, codes[other], means[other], variances[other], additive=additive).predict(
        SPACE.enumerate()
    )
    assert one.mean == pytest.approx(two.mean, abs=1e-3)
    assert one.deviation == pytest.approx(two.deviation, abs=1e-3)


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("count", [2, 10, 30])
def test_the_truth_lies_in_its_intervals_as_often_as_it_should(count: int, additive: bool) -> None:
    """Truths are drawn from the prior, hyperparameters included."""
    rng = np.random.default_rng(count)
    kernel = KnobKernel.of(SPACE, additive=additive)
    expected = Hyperparameters.expected(kernel, about_prior=False)
    inside = []
    for _ in range(max(10, share_of(30))):
        drawn = expected.at(expected.parameters + expected.scales * rng.normal(size=len(expected.parameters)))
        codes = some(rng, SPACE, count + 40)
        inputs = KernelInputs(kernel.slots(codes), np.ones((len(codes), 1)))
        whole, _ = covariance(kernel, inputs, replace(drawn, trend_deviation=np.array([0.2])))
        truth = 0.5 + np.linalg.cholesky(whole + 1e-10 * np.eye(len(codes))) @ rng.normal(size=len(codes))
        means = truth[:count] + rng.normal(0, 0.005, count)
        surrogate = Surrogate.fit(SPACE, codes[:count], means, np.full(count, 0.005**2), additive=additive)
        belief = surrogate.predict(codes[count:])
        inside.append((abs(truth[count:] - belief.mean) <= 1.645 * belief.deviation).mean())
    assert 0.83 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize("additive", [False, True])
def test_it_beats_the_mean_of_what_was_measured(additive: bool) -> None:
    rng = np.random.default_rng(2)
    errors = []
    for _ in range(10):
        codes = some(rng, SPACE, 20)
        means = smooth(codes) + rng.normal(0, 0.01, 20)
        belief = Surrogate.fit(SPACE, codes, means, np.full(20, 1e-4), additive=additive).predict(SPACE.enumerate())
        truth = smooth(SPACE.enumerate())
        errors.append((np.sqrt(np.mean((belief.mean - truth) ** 2)), np.sqrt(np.mean((means.mean() - truth) ** 2))))
    ours, constant = np.mean(errors, axis=0)
    assert ours < 0.3 * constant


def test_a_good_prior_mean_narrows_what_is_believed_and_is_followed() -> None:
    codes = some(np.random.default_rng(6), SPACE, 5)
    everything = SPACE.enumerate()
    wavy = 0.02 * np.sin(np.arange(SPACE.size))
    prior = dict(zip(map(tuple, everything.tolist()), smooth(everything) + wavy, strict=True))
    at = np.array([prior[tuple(code)] for code in codes.tolist()])
    surrogate = Surrogate.fit(SPACE, codes, smooth(codes), np.full(5, 1e-6), prior=at)
    belief = surrogate.predict(everything, smooth(everything) + wavy)
    without = Surrogate.fit(SPACE, codes, smooth(codes), np.full(5, 1e-6)).predict(everything)
    assert abs(belief.mean - smooth(everything)).mean() < 0.03
    assert belief.deviation.mean() < 0.5 * without.deviation.mean()


def test_scores_may_have_any_range() -> None:
    codes = some(np.random.default_rng(7), SPACE, 12)
    variances = np.full(12, 1e-4)
    one = Surrogate.fit(SPACE, codes, smooth(codes), variances).predict(SPACE.enumerate())
    scaled = Surrogate.fit(SPACE, codes, 200 * smooth(codes) - 50, variances * 200**2, score_range=(-50.0, 150.0))
    two = scaled.predict(SPACE.enumerate())
    assert two.mean == pytest.approx(200 * one.mean - 50, abs=0.1)
    assert two.deviation == pytest.approx(200 * one.deviation, abs=0.1)


def test_a_pipeline_without_knobs_has_one_score() -> None:
    space = chain([], [])
    codes = space.enumerate()
    belief = Surrogate.fit(space, codes, np.array([0.7]), np.array([1e-4])).predict(codes)
    assert belief.mean == pytest.approx([0.7], abs=0.01)


def test_what_does_not_fit_together_is_refused() -> None:
    codes = some(np.random.default_rng(9), SPACE, 3)
    means, variances = smooth(codes), np.full(3, 1e-4)
    surrogate = Surrogate.fit(SPACE, codes, means, variances)
    with pytest.raises(ValueError, match="prior mean"):
        surrogate.predict(codes, means)
    with pytest.raises(ValueError, match="prior mean"):
        Surrogate.fit(SPACE, codes, means, variances, prior=means).predict(codes)
    with pytest.raises(ValueError, match="nonnegative"):
        Surrogate.fit(SPACE, codes, means, -variances)
    with pytest.raises(ValueError, match="shapes differ"):
        Surrogate.fit(SPACE, codes[:0], means[:0], variances[:0])


def test_what_one_configuration_has_by_itself_is_its_own() -> None:
    rng = np.random.default_rng(8)
    codes = some(rng, SPACE, 30)
    own = rng.normal(0, 0.05, 30)
    rough = Surrogate.fit(SPACE, codes, smooth(codes) + own, np.full(30, 1e-6))
    even = Surrogate.fit(SPACE, codes, smooth(codes), np.full(30, 1e-6))
    assert rough.residual_variance > 5 * even.residual_variance
    assert rough.predict(codes).mean == pytest.approx(smooth(codes) + own, abs=0.01)
    assert (rough.predict(codes).deviation < 0.01).all()
