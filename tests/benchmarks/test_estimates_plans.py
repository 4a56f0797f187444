"""Plans of the real pipelines and their predictions, on invented measurements."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from benchmarks.estimates.computing import COMPUTED, computed_plan
from benchmarks.estimates.predictions import prediction, without_queueing_s
from benchmarks.estimates.profiles import CONFIGURATIONS, configuration_of, halves, on_items, only
from benchmarks.estimates.real_plans import CHOICES, Choice, RealPlan, name_of, real_plan
from benchmarks.estimates.replay import LEVELS
from hypothesis import given
from hypothesis import strategies as st
from measured_examples import ITEMS, measured_example

from budget import LEVEL
from circinus.operators import Item
from circinus.profiling import Dataset
from circinus.serving import Mode
from circinus.serving.desired_state import build_desired_state
from circinus.serving.local.capacity import MachineCapacity, require_capacity
from circinus.serving.state_serialization import validate_state
from circinus.specification.configurations import configuration_count, has_knob_values, knob_values

_measured = cache(measured_example)


@pytest.mark.parametrize("example", list(CONFIGURATIONS))
def test_configurations_are_the_examples_own_and_can_be_measured_alone(example: str) -> None:
    pipeline = _measured(example).pipeline
    found = [configuration_of(pipeline, knobs) for knobs in CONFIGURATIONS[example]]
    assert len(set(found)) == len(found) >= 6
    for configuration in found:
        assert all(has_knob_values(operator, configuration[operator.name]) for operator in pipeline.operators)
        alone = only(pipeline, configuration)
        assert configuration_count(alone) == 1
        assert all(knob_values(operator) == (configuration[operator.name],) for operator in alone.operators)


def test_there_are_enough_plans_of_all_kinds() -> None:
    assert len(CHOICES) >= 20
    assert len({name_of(choice) for choice in CHOICES}) == len(CHOICES)
    assert {count for choice in CHOICES for count in choice.replicas} == {1, 2, 3, 4}
    assert {place for choice in CHOICES for place in choice.places} == set("dec")
    assert sum(bool(choice.batched) for choice in CHOICES) >= 3


@pytest.mark.parametrize("choice", CHOICES, ids=name_of)
def test_the_busiest_is_as_busy_as_its_level_says(choice: Choice) -> None:
    measured = _measured(choice.example)
    real = real_plan(choice, measured, 50.0)
    levels = list(LEVELS)
    if LEVEL != "thorough":  # they take turns
        levels = [levels[CHOICES.index(choice) % len(levels)]]
    for level in levels:
        found = prediction(real, real.query(level), measured.of(real.plan.configuration))
        assert found is not None
        assert found.utilization == pytest.approx(level, rel=1e-6)
        assert found.planned.query.rate_per_s == pytest.approx(50.0 * level)
        state = build_desired_state(
            found.matching, real.specification(found.planned.query), Mode.REPLAY, measured.store / "store"
        )
        validate_state(state)
        assert {d.deployment: d.replicas for d in state.deployments} == real.replicas
    assert prediction(real, real.query(1.1), measured.of(real.plan.configuration)) is None


def test_nothing_queues_where_queues_are_not_known() -> None:
    measured = measured_example("meeting", lambda operator, rng: rng.permutation(np.linspace(0.1, 0.3, ITEMS)))
    real = real_plan(Choice("meeting", 0, "dddd", (1, 1, 2, 1)), measured, 50.0)
    profile = measured.of(real.plan.configuration)
    speed = real.infrastructure.pool("device").hardware.speed
    all_s = np.sort(sum(operator.service_s for operator in profile.operators.values()) / speed)
    found = [without_queueing_s(real, real.query(level), profile) for level in LEVELS]
    # The 95th percentile over equally many scenarios of each item; an item more or less where they do not divide.
    assert all(all_s[-3] - 1e-9 <= s <= all_s[-1] + 1e-9 for s in found)
    predicted = [prediction(real, real.query(level), profile) for level in LEVELS]
    latencies_s = [one.estimate.latency_s.value for one in predicted if one is not None]
    assert found[0] < latencies_s[0] < latencies_s[1] < latencies_s[2]


def test_transfers_are_known_without_queues() -> None:
    measured = _measured("documents")
    near, far = (real_plan(Choice("documents", 0, place * 4, (1, 1, 1, 1)), measured, 50.0) for place in "de")
    profile = measured.of(near.plan.configuration)
    link = next(iter(far.network.links))
    speeds = [real.infrastructure.pool(p).hardware.speed for real, p in ((near, "device"), (far, "edge"))]
    at_least_s = without_queueing_s(near, near.query(0.3), profile) * speeds[0] / speeds[1] + 2 * link.one_way_s
    at_least_s += float(profile.input_bytes.min()) / link.bandwidth_bytes_per_s
    most_s = at_least_s + float(np.ptp(profile.input_bytes) + 2e3) / link.bandwidth_bytes_per_s
    assert at_least_s < without_queueing_s(far, far.query(0.3), profile) < most_s


def test_what_traffic_carries_stands_in_the_order_asked_for() -> None:
    measured = _measured("meeting")
    configuration = measured.configurations[2]
    keys = [item.key for item in measured.items][::-1]
    backwards, known = measured.of_traffic(configuration, keys), measured.of(configuration)
    np.testing.assert_array_equal(backwards.input_bytes, known.input_bytes[::-1])
    for name, operator in backwards.operators.items():
        np.testing.assert_array_equal(operator.service_s, known.operators[name].service_s[::-1])
        np.testing.assert_array_equal(operator.output_bytes, known.operators[name].output_bytes[::-1])


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=40), st.integers(0, 9))
def test_plans_and_traffic_have_half_of_each_stratum(strata: list[str], seed: int) -> None:
    items = tuple(Item(str(number), None, None, {"kind": stratum}) for number, stratum in enumerate(strata))
    dataset = Dataset(items, tuple(range(len(items))), 0, 0, "", ("",) * len(items), (0,) * len(items))
    planned, traffic = halves(dataset, np.random.default_rng(seed))
    assert sorted(planned + traffic) == list(range(len(items)))
    for stratum in "abc":
        counts = [sum(strata[index] == stratum for index in side) for side in (planned, traffic)]
        assert abs(counts[0] - counts[1]) <= 1


def test_traffic_carries_what_plans_were_not_made_on() -> None:
    whole = _measured("meeting")
    split = whole.split(1)
    planned = {whole.items[index].key for index in split.profile.configurations[0].items}
    assert planned.isdisjoint(item.key for item in split.items)
    assert len(planned) == len(split.items) == ITEMS / 2
    assert whole.split(2).items != split.items == whole.split(1).items


def test_a_profile_of_some_items_has_those_alone() -> None:
    whole = _measured("documents").profile
    part = on_items(whole, [7, 3, 30])
    for found, known in zip(part.configurations, whole.configurations, strict=True):
        np.testing.assert_array_equal(found.items, [3, 7, 30])
        np.testing.assert_array_equal(found.input_bytes, known.input_bytes[[3, 7, 30]])
        for name, operator in found.operators.items():
            np.testing.assert_array_equal(operator.service_s, known.operators[name].service_s[[3, 7, 30]])
            np.testing.assert_array_equal(operator.output_bytes, known.operators[name].output_bytes[[3, 7, 30]])


@pytest.mark.parametrize("choice", COMPUTED, ids=name_of)
def test_what_computes_fits_on_two_cpus(choice: Choice) -> None:
    machine = MachineCapacity(cpus=2.0, memory_bytes=4 * 2.0**30, gpus=0)
    measured = _measured(choice.example)
    real: RealPlan = computed_plan(choice, measured, machine)
    for level in LEVELS:
        found = prediction(real, real.query(level), measured.of(real.plan.configuration))
        assert found is not None
        assert found.utilization == pytest.approx(level, rel=1e-6)
        state = build_desired_state(found.matching, real.specification(found.planned.query), Mode.REAL)
        require_capacity(state, machine)
