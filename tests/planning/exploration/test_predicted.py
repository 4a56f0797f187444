"""What is known of a prefix is kept, and what is guessed comes from the most similar one, on the cheap side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circinus.planning.exploration.cover import covering
from circinus.planning.exploration.predicted import CAUTION, LEAST_SPREAD, Predicted, predict
from circinus.spec import configurations, prefix
from instances import Instance, random_instance

SEEDS = [s for s in range(60) if 2 < len(random_instance(s).profile.configurations) <= 30][:25]


def _predicted(instance: Instance, share: float, seed: int = 0) -> tuple[Predicted, set[object]]:
    """From a cover and some more of the configurations."""
    listed = tuple(configurations(instance.pipeline))
    rng = np.random.default_rng(seed)
    chosen = set(covering(listed)) | {c for c in listed if rng.random() < share}
    known = replace(
        instance.profile,
        configurations=tuple(c for c in instance.profile.configurations if c.configuration in chosen),
    )
    found = predict(instance.pipeline, known, listed)
    assert found is not None
    return found, {c.configuration for c in known.configurations}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cover_predicts_every_configuration_on_the_same_items(seed: int) -> None:
    instance = random_instance(seed)
    found, _ = _predicted(instance, 0.0)
    listed = tuple(configurations(instance.pipeline))
    assert {c.configuration for c in found.profile.configurations} == set(listed)
    assert len({c.items.tobytes() for c in found.profile.configurations}) == 1
    assert found.spread >= LEAST_SPREAD


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_exact_is_what_was_measured(seed: int) -> None:
    instance = random_instance(seed)
    found, measured = _predicted(instance, 0.4, seed)
    truth = {c.configuration: c for c in instance.profile.configurations}
    assert measured <= found.exact
    for profile in found.profile.configurations:
        if profile.configuration in found.exact:
            for name, operator in profile.operators.items():
                known = truth[profile.configuration].operators[name]
                np.testing.assert_array_equal(operator.service_s, known.service_s[: len(profile.items)])
                assert operator.prefix == known.prefix


@pytest.mark.parametrize("seed", SEEDS)
def test_a_guess_has_the_operators_own_knobs_and_is_cheaper_than_its_source(seed: int) -> None:
    instance = random_instance(seed)
    found, _ = _predicted(instance, 0.1, seed)
    exact = {
        (name, operator.prefix): operator
        for profile in found.profile.configurations
        if profile.configuration in found.exact
        for name, operator in profile.operators.items()
    }
    for profile in found.profile.configurations:
        for name, operator in profile.operators.items():
            assert operator.prefix == prefix(instance.pipeline, profile.configuration, name)
            if (name, operator.prefix) not in exact and profile.configuration not in found.exact:
                sources = [s for (n, p), s in exact.items() if n == name and p[name] == profile.configuration[name]]
                assert any(
                    np.allclose(operator.service_s, s.service_s * np.exp(-CAUTION * found.spread)) for s in sources
                )


def test_nothing_is_predicted_of_nothing() -> None:
    instance = random_instance(SEEDS[0])
    nothing = replace(instance.profile, configurations=())
    assert predict(instance.pipeline, nothing, tuple(configurations(instance.pipeline))) is None


def test_an_unseen_operator_leaves_its_configurations_out() -> None:
    instance = random_instance(SEEDS[0])
    one = instance.profile.configurations[0]
    found = predict(
        instance.pipeline,
        replace(instance.profile, configurations=(one,)),
        tuple(configurations(instance.pipeline)),
    )
    assert found is not None
    assert {c.configuration for c in found.profile.configurations} == {one.configuration}
