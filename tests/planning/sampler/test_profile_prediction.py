"""Measured prefixes are preserved, and unmeasured ones are predicted on the cheap side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circinus.planning.sampler.configuration_space import ConfigurationSpace
from circinus.planning.sampler.initial_design import covering_array
from circinus.planning.sampler.operator_models import OperatorModel
from circinus.planning.sampler.profile_prediction import CAUTION, ProfilePredictor
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.specification import Configuration, KnobValues, configurations, prefix_configuration
from planning.sampler.spaces import chain_of, knob
from planning_instances import Instance, random_instance

SEEDS = (9, 10, 15, 18, 21, 23, 33, 39, 45, 48, 49, 51, 56)
"""Random instances of at least three configurations."""


def _known(instance: Instance, share: float, seed: int = 0) -> PipelineProfile:
    """Return the profile of a covering design and some more configurations."""
    space = ConfigurationSpace.of(instance.pipeline)
    rng = np.random.default_rng(seed)
    chosen = set(space.decode(covering_array(space)))
    chosen |= {c for c in configurations(instance.pipeline) if rng.random() < share}
    kept = tuple(c for c in instance.profile.configurations if c.configuration in chosen)
    return replace(instance.profile, configurations=kept)


def _predicted(instance: Instance, known: PipelineProfile) -> PipelineProfile:
    predictor = ProfilePredictor(instance.pipeline, ConfigurationSpace.of(instance.pipeline))
    assert predictor.learn(known)
    return predictor.predict(known, tuple(configurations(instance.pipeline)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cover_predicts_every_configuration_on_the_same_items(seed: int) -> None:
    instance = random_instance(seed)
    found = _predicted(instance, _known(instance, 0.0))
    assert {c.configuration for c in found.configurations} == set(configurations(instance.pipeline))
    assert len({c.items.tobytes() for c in found.configurations}) == 1
    for profile in found.configurations:
        for name, operator in profile.operators.items():
            assert operator.prefix == prefix_configuration(instance.pipeline, profile.configuration, name)
            assert np.isfinite(operator.service_s).all()
            assert (operator.service_s >= 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_measured_of_a_prefix_is_kept(seed: int) -> None:
    instance = random_instance(seed)
    known = _known(instance, 0.4, seed)
    measured = {(n, o.prefix): o for c in known.configurations for n, o in c.operators.items()}
    for profile in _predicted(instance, known).configurations:
        for name, operator in profile.operators.items():
            if (name, operator.prefix) in measured:
                truth = measured[name, operator.prefix].service_s[: len(profile.items)]
                np.testing.assert_array_equal(operator.service_s, truth)


def test_failed_configurations_are_left_out_and_nothing_is_predicted_of_nothing() -> None:
    instance = random_instance(SEEDS[0])
    predictor = ProfilePredictor(instance.pipeline, ConfigurationSpace.of(instance.pipeline))
    assert not predictor.learn(replace(instance.profile, configurations=()))


PIPELINE = chain_of([knob("size", 5, ordered=True), knob("dead", 4)], [knob("width", 4, ordered=True), knob("kind", 3)])


def _service_s(own: Configuration) -> float:
    """Return the second operator's service time: its knobs and the size before it multiply."""
    first, second = (own[name].as_dict() for name in ("o0", "o1"))
    return float(0.01 * 1.5 ** int(first["size"]) * 2 ** int(second["width"]) * [1, 3, 1.2][int(second["kind"])])


def _operator(own: Configuration) -> OperatorProfile:
    return OperatorProfile("o1", own, np.full(4, _service_s(own)), np.full(4, 100.0), 1e6, 0.1, {(1.0, 1): 1.0})


def test_the_model_of_an_operator_learns_what_multiplies_and_what_is_dead() -> None:
    space, rng = ConfigurationSpace.of(PIPELINE), np.random.default_rng(0)
    errors = {}
    for count in (6, 24):
        known = {c: _operator(c) for c in space.decode(space.random(rng, count))}
        model = OperatorModel.of(space, PIPELINE, "o1", known, np.full(len(known), 50.0))
        codes = space.random(np.random.default_rng(1), 300)
        truth = np.log([_service_s(c) for c in space.decode(codes)])
        found = model.predict(codes, np.full(len(codes), 50.0))
        errors[count] = float(np.sqrt(np.mean((found.log_service_s - truth) ** 2)))
        covered = np.log(found.service_s(CAUTION)) <= truth + 0.05
        assert covered.mean() > 0.9
    assert errors[24] < 0.15 < truth.std() / 5
    assert errors[24] < errors[6]


def test_an_operator_without_knobs_takes_what_it_took() -> None:
    bare = chain_of([], [knob("width", 3)])
    space = ConfigurationSpace.of(bare)
    own = Configuration.of({"o0": KnobValues()})
    profile = OperatorProfile("o0", own, np.full(4, 0.25), np.full(4, 9.0), 1e6, 0.1, {(1.0, 1): 1.0})
    model = OperatorModel.of(space, bare, "o0", {own: profile}, np.array([9.0]))
    found = model.predict(space.enumerate(), np.full(3, 9.0))
    np.testing.assert_allclose(found.service_s(0.0), 0.25, rtol=0.01)
