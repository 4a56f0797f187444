"""What is learnt from observations: the model's properties, and where factors apply."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.estimation import NO_CORRECTIONS, Correction, learn_corrections
from circinus.estimation.corrections import (
    HALF_LIFE_DAYS,
    KNOBS_SCALE,
    MAX_FACTOR,
    MIN_FACTOR,
    OPERATOR_SCALE,
    RUN_SCALE,
)
from circinus.profiling import Machine, ServiceTimeObservation
from circinus.specification import HardwareClass, KnobValues
from planning_instances import random_instance

NOW = datetime(2025, 6, 1, tzinfo=UTC)
SMALL, LARGE = KnobValues.of({"size": 0}), KnobValues.of({"size": 1})
SEEN = ServiceTimeObservation(
    at=NOW.isoformat(),
    mode="real",
    plan="",
    pipeline="p",
    operator="op",
    uses="m:op",
    version="v",
    knobs=SMALL,
    hardware_class="edge",
    speed=0.5,
    profiled_on=Machine("CPU", 4),
    cpus=1.0,
    batch_size=1,
    log_ratio=0.1,
    standard_error=0.02,
    requests=100,
    items=16,
)

ratios = st.floats(-3, 3)
observations = st.builds(
    lambda log_ratio, error, days, knobs: replace(
        SEEN,
        log_ratio=log_ratio,
        standard_error=error,
        at=(NOW - timedelta(days=days)).isoformat(),
        knobs=KnobValues.of({"size": knobs}),
    ),
    ratios,
    st.floats(0, 1),
    st.floats(0, 400),
    st.integers(0, 2),
)


def factor(seen: list[ServiceTimeObservation], knobs: KnobValues | None = SMALL) -> Correction:
    (found,) = [entry for entry in learn_corrections(seen, NOW).entries if entry.knobs == knobs]
    return found


def test_without_observations_nothing_is_corrected() -> None:
    assert learn_corrections([], NOW) == NO_CORRECTIONS
    instance = random_instance(3)
    assert NO_CORRECTIONS.applied_to(instance.profile, instance.pipeline) is instance.profile
    operator = next(iter(instance.profile.configurations[0].operators.values()))
    assert operator.correction(instance.network.infrastructure.pools[0].hardware) == 1.0


@given(st.lists(observations, min_size=1, max_size=6))
def test_factors_are_shrunk_towards_1_and_within_their_range(seen: list[ServiceTimeObservation]) -> None:
    least, greatest = min(o.log_ratio for o in seen), max(o.log_ratio for o in seen)
    for entry in learn_corrections(seen, NOW).entries:
        assert MIN_FACTOR * (1 - 1e-12) <= entry.factor.lower <= entry.factor.value
        assert entry.factor.value <= entry.factor.upper <= MAX_FACTOR * (1 + 1e-12)
        assert min(least, 0) - 1e-12 <= math.log(entry.factor.value) <= max(greatest, 0) + 1e-12


@given(st.lists(observations, min_size=1, max_size=6), st.integers(0, 5), st.floats(0, 2))
def test_a_greater_ratio_never_makes_a_smaller_factor(
    seen: list[ServiceTimeObservation], which: int, more: float
) -> None:
    which %= len(seen)
    slower = [replace(o, log_ratio=o.log_ratio + more) if i == which else o for i, o in enumerate(seen)]
    for before, after in zip(learn_corrections(seen, NOW).entries, learn_corrections(slower, NOW).entries, strict=True):
        assert after.factor.value >= before.factor.value * (1 - 1e-12)


@settings(max_examples=examples(40))
@given(st.floats(-0.6, 1.3), st.floats(0, 0.5))
def test_many_runs_are_believed(log_ratio: float, error: float) -> None:
    found = factor([replace(SEEN, log_ratio=log_ratio, standard_error=error)] * 20_000)
    assert math.log(found.factor.value) == pytest.approx(log_ratio, abs=0.01)
    assert found.factor.upper / found.factor.lower < 1.03


@given(ratios, st.floats(0, 0.5), st.floats(0.01, 0.5))
def test_what_is_less_sure_counts_less(log_ratio: float, error: float, more: float) -> None:
    sure, unsure = (
        factor([replace(SEEN, log_ratio=log_ratio, standard_error=e)]).factor for e in (error, error + more)
    )
    assert abs(math.log(unsure.value)) <= abs(math.log(sure.value)) + 1e-12


def test_one_run_is_the_normal_posterior() -> None:
    """Closed form: precisions add."""
    prior, noise = OPERATOR_SCALE**2 + KNOBS_SCALE**2, 0.02**2 + RUN_SCALE**2
    found = factor([SEEN]).factor
    assert math.log(found.value) == pytest.approx(0.1 * prior / (prior + noise))
    deviation = math.sqrt(prior * noise / (prior + noise))
    assert math.log(found.upper / found.value) == pytest.approx(1.959964 * deviation)
    assert math.log(found.value / found.lower) == pytest.approx(1.959964 * deviation)


def test_knobs_learn_from_each_other_as_the_joint_normal_distribution_says() -> None:
    """Against conditioning the whole covariance matrix of (small, large, another one) and what was observed."""
    seen = [
        SEEN,
        replace(SEEN, log_ratio=0.5, standard_error=0.1),
        replace(SEEN, knobs=LARGE, log_ratio=0.3, at=(NOW - timedelta(days=HALF_LIFE_DAYS)).isoformat()),
    ]
    which, noise = [0, 0, 1], [0.02**2 + RUN_SCALE**2, 0.1**2 + RUN_SCALE**2, 2 * (0.02**2 + RUN_SCALE**2)]
    prior = OPERATOR_SCALE**2 + KNOBS_SCALE**2 * np.eye(3)
    design = np.eye(3)[which]
    gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + np.diag(noise))
    means = gain @ np.array([o.log_ratio for o in seen])
    deviations = np.sqrt(np.diag(prior - gain @ design @ prior))
    for knobs, mean, deviation in zip((SMALL, LARGE, None), means, deviations, strict=True):
        found = factor(seen, knobs).factor
        assert math.log(found.value) == pytest.approx(mean)
        assert math.log(found.upper / found.value) == pytest.approx(1.959964 * deviation)


def test_recent_runs_weigh_more_and_old_ones_are_forgotten() -> None:
    old = replace(SEEN, log_ratio=-0.3, at=(NOW - timedelta(days=3 * HALF_LIFE_DAYS)).isoformat())
    new = replace(SEEN, log_ratio=0.3)
    assert factor([old, new]).factor.value > 1.1
    aged = learn_corrections([new], NOW + timedelta(days=30 * HALF_LIFE_DAYS)).entries[0].factor.value
    assert aged == pytest.approx(1.0, abs=1e-3)


def test_runs_in_the_future_weigh_as_those_of_now() -> None:
    ahead = replace(SEEN, at=(NOW + timedelta(days=400)).isoformat())
    assert factor([ahead]).factor == factor([SEEN]).factor


def test_a_replay_teaches_nothing_of_real_hardware() -> None:
    replayed = replace(SEEN, mode="replay", log_ratio=1.0)
    assert learn_corrections([replayed], NOW) == NO_CORRECTIONS
    assert factor([SEEN, replayed]) == factor([SEEN])
    assert learn_corrections([replayed], NOW, mode="replay").entries


@pytest.mark.parametrize(
    "other",
    [
        {"hardware_class": "cloud"},
        {"speed": 0.4},
        {"uses": "m:another"},
        {"version": "edited"},
        {"profiled_on": Machine("CPU", 8)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_not_comparable_is_kept_apart(other: dict[str, object]) -> None:
    both = learn_corrections([SEEN, replace(SEEN, log_ratio=1.0, **other)], NOW)  # type: ignore[arg-type]
    assert len(both.entries) == 4
    assert set(learn_corrections([SEEN], NOW).entries) < set(both.entries)


def test_pipelines_and_allocations_share_what_is_learnt_of_an_operator() -> None:
    elsewhere = replace(SEEN, pipeline="q", operator="other", cpus=2.0, batch_size=4, requests=50)
    found = factor([SEEN, replace(elsewhere, at=(NOW - timedelta(hours=1)).isoformat())])
    assert (found.runs, found.requests) == (2, 150)


def test_factors_apply_to_their_operator_version_machine_and_hardware_only() -> None:
    instance = random_instance(3)
    first, *rest = instance.pipeline.operators
    operators = (first.model_copy(update={"uses": "m:op"}), *rest)
    pipeline = instance.pipeline.model_copy(update={"operators": operators})
    profile = replace(instance.profile, code_versions={"m:op": "v"}, machine=Machine("CPU", 4))
    values = {c.configuration[first.name] for c in profile.configurations}
    learnt = learn_corrections([replace(SEEN, knobs=next(iter(sorted(values))))], NOW)
    edge, fast = HardwareClass(name="edge", relative_speed=0.5), HardwareClass(name="edge", relative_speed=2.0)
    corrected = learnt.applied_to(profile, pipeline)
    specific = {entry.knobs: entry.factor.value for entry in learnt.entries}
    for found in corrected.configurations:
        operator = found.operators[first.name]
        knobs = found.configuration[first.name]
        assert operator.correction(edge) == specific.get(knobs, specific[None])
        assert operator.correction(fast) == 1.0
        assert all(found.operators[o.name].correction(edge) == 1.0 for o in rest)
    distinct = {id(c.operators[first.name]) for c in profile.configurations}
    assert len({id(c.operators[first.name]) for c in corrected.configurations}) == len(distinct)
    again = learnt.applied_to(corrected, pipeline)
    assert again.configurations[0].operators[first.name].corrections == (
        corrected.configurations[0].operators[first.name].corrections
    )
    for stranger in (replace(profile, machine=None), replace(profile, code_versions={"m:op": "edited"})):
        assert learnt.applied_to(stranger, pipeline) is stranger
    pools = [p.model_copy(update={"hardware": edge}) for p in instance.network.infrastructure.pools]
    profiles = {pipeline.name: profile}
    assert learnt.for_pipelines({pipeline.name: pipeline}, profiles, pools) == learnt
    assert (
        learnt.for_pipelines({pipeline.name: pipeline}, profiles, instance.network.infrastructure.pools).entries == ()
    )
