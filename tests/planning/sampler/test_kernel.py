"""The kernel is positive semidefinite, and 1 for equal codes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.gaussian_process import KernelInputs, ScoreObservations, minus_log_likelihood
from circinus.planning.sampler.hyperparameters import Hyperparameters
from circinus.planning.sampler.kernel import KnobKernel
from planning.sampler.spaces import CASCADE, chain

SPACES = [CASCADE, chain([5, 3], [-4], [2]), chain([1, -1], [3])]


def matern(distance: list[float]) -> np.ndarray:
    """Return the closed form of the Matern correlation with smoothness 5/2."""
    scaled = np.sqrt(5.0) * np.array(distance)
    return (1 + scaled + scaled**2 / 3) * np.exp(-scaled)


@settings(max_examples=examples(120))
@given(st.sampled_from(SPACES), st.booleans(), st.integers(0, 2**32 - 1))
def test_it_is_symmetric_and_positive_whatever_the_sharpness(
    space: ConfigurationSpace, additive: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kernel = KnobKernel.of(space, additive=additive)
    slots = kernel.slots(space.enumerate())
    for matrix in kernel.correlations(slots, slots, np.exp(rng.normal(0, 3, len(space.columns)))):
        assert np.allclose(matrix, matrix.T)
        assert np.allclose(np.diag(matrix), 1)
        assert matrix.min() >= 0
        assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_ordered_choices_are_as_far_as_their_positions_and_others_all_alike() -> None:
    kernel = KnobKernel.of(chain([5], [-3]))
    slots = kernel.slots(np.array([[0, 0], [1, 0], [4, 0], [0, 1], [0, 2]]))
    found = kernel.correlations(slots[:1], slots, np.array([2.0, 0.7]))[0, 0]
    assert found == pytest.approx(matern([0, 2 / 4, 2, 0.7, 0.7]))


def test_a_missing_knob_is_a_choice_of_its_own() -> None:
    kernel = KnobKernel.of(CASCADE)
    beam = [knob.name for knob in CASCADE.columns].index("beam")
    codes = np.zeros((4, 4), dtype=np.int64)
    codes[:, beam] = [-1, 0, 1, 2]
    inverse_lengthscale = np.zeros(4)
    inverse_lengthscale[beam] = 1.0
    found = kernel.correlations(kernel.slots(codes), kernel.slots(codes), inverse_lengthscale)[0]
    assert found[0, 1:] == pytest.approx(matern([1.0]) * matern([0.5, 0.0, 0.5]))


def test_components_are_the_operators_and_all_together() -> None:
    kernel = KnobKernel.of(chain([3, 2], [], [4]), additive=True)
    assert kernel.components.tolist() == [[True, True, False], [False, False, True], [True, True, True]]
    assert KnobKernel.of(CASCADE, additive=True).components.tolist() == [[True] * 4]


@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("space", SPACES[:2])
def test_the_gradient_is_that_of_the_likelihood(space: ConfigurationSpace, additive: bool) -> None:
    rng = np.random.default_rng(5)
    kernel = KnobKernel.of(space, additive=additive)
    inputs = KernelInputs(kernel.slots(space.random(rng, 12)), np.ones((12, 1)))
    observations = ScoreObservations(inputs, rng.normal(0, 0.2, 12), np.diag(rng.uniform(1e-4, 1e-2, 12)))
    h = Hyperparameters.expected(kernel, about_prior=False)
    at = h.parameters + rng.normal(0, 0.5, len(h.parameters))
    _, gradient = minus_log_likelihood(kernel, h.at(at), observations)
    differences = [
        minus_log_likelihood(kernel, h.at(at + step), observations)[0]
        - minus_log_likelihood(kernel, h.at(at - step), observations)[0]
        for step in 1e-5 * np.eye(len(at))
    ]
    assert gradient == pytest.approx(np.array(differences) / 2e-5, rel=1e-4, abs=1e-5)
