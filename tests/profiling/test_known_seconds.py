"""Seconds until a configuration is known, from what is known alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circinus.profiling.measurement.time_estimator import measurement_cost_model
from circinus.specification import configurations, prefix_configuration
from planning_instances import random_instance

SEED = 9


def test_what_was_measured_takes_its_own_mean_for_the_items_that_are_missing() -> None:
    instance = random_instance(SEED)
    assert len(instance.profile.configurations) > 3
    seconds = measurement_cost_model(instance.pipeline, instance.profile)
    for found in instance.profile.configurations:
        item_s = sum(float(operator.service_s.mean()) for operator in found.operators.values())
        assert seconds(found.configuration, len(found.items) + 10) == pytest.approx(10 * item_s)
        assert seconds(found.configuration, len(found.items)) == 0.0


def test_what_was_not_takes_what_is_most_like_it_in_any_order() -> None:
    instance = random_instance(SEED)
    assert len(instance.profile.configurations) > 3
    kept = instance.profile.configurations[:2]
    seconds = measurement_cost_model(instance.pipeline, replace(instance.profile, configurations=kept))
    other = measurement_cost_model(instance.pipeline, replace(instance.profile, configurations=kept[::-1]))
    measured = {
        (name, operator.prefix): float(operator.service_s.mean())
        for found in kept
        for name, operator in found.operators.items()
    }
    for configuration in configurations(instance.pipeline):
        assert seconds(configuration, 100) == other(configuration, 100)
        if configuration in {found.configuration for found in kept}:
            continue
        expected = 0.0
        for operator in instance.pipeline.operators:
            own = measured.get((operator.name, prefix_configuration(instance.pipeline, configuration, operator.name)))
            alike = [s for (n, p), s in measured.items() if n == operator.name]
            same = [
                s for (n, p), s in measured.items()
                if n == operator.name and p[operator.name] == configuration[operator.name]
            ]  # fmt: skip
            chosen = same or alike
            expected += own if own is not None else sum(chosen) / len(chosen)
        assert seconds(configuration, 100) == pytest.approx(100 * expected)
