"""The relative speed of a machine: right where it is known, bounded where it varies, refused where nothing compares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sample_application import Application

from circinus.errors import ProfileError
from circinus.profiling import (
    MeasurementTrace,
    PipelineProfile,
    TraceBackend,
    calibrate,
    load_profile,
    profile_pipeline,
)
from circinus.profiling.hardware.machine import Machine, current_machine
from raised import raises_code
from random_traces import random_trace, specification_of, trace_pipeline

pytestmark = pytest.mark.usefixtures("inline_replicas")

PIPELINE = trace_pipeline()
SPECIFICATION = specification_of(PIPELINE)
THERE, HERE = Machine("A CPU", 8), Machine("Another CPU", 2)


def _recorded(tmp_path: Path) -> tuple[MeasurementTrace, PipelineProfile]:
    trace = replace(random_trace(PIPELINE, 40, seed=0), machine=THERE)
    return trace, profile_pipeline(SPECIFICATION, PIPELINE.name, tmp_path / "store", source=TraceBackend(trace))


def test_a_machine_twice_as_fast_is_found_to_be(tmp_path: Path) -> None:
    trace, profile = _recorded(tmp_path)
    fast = replace(trace, service_s=trace.service_s / 2, machine=HERE)
    found = calibrate(SPECIFICATION, profile, backend=TraceBackend(fast))
    assert (found.speed.value, found.speed.lower, found.speed.upper) == (2.0, 2.0, 2.0)
    assert (found.machine, found.recorded_on, found.items) == (HERE, THERE, 24)
    seconds = {p.configuration: sum(o.service_s.mean() for o in p.operators.values()) for p in profile.configurations}
    assert seconds[found.configuration] == min(seconds.values())


def test_the_bounds_hold_every_operator(tmp_path: Path) -> None:
    """One gains threefold, the others nothing: no one number is right for all."""
    trace, profile = _recorded(tmp_path)
    service_s = trace.service_s.copy()
    service_s[trace.rows[:, 1]] /= 3
    found = calibrate(SPECIFICATION, profile, backend=TraceBackend(replace(trace, service_s=service_s, machine=HERE)))
    assert found.operators["second"].value == pytest.approx(3.0)
    assert found.operators["first"].value == 1.0
    assert 1.0 == found.speed.lower < found.speed.value < found.speed.upper == pytest.approx(3.0)


def test_other_data_compare_with_nothing(tmp_path: Path) -> None:
    trace, profile = _recorded(tmp_path)
    with raises_code(ProfileError, "dataset.other_version") as caught:
        calibrate(SPECIFICATION, profile, backend=TraceBackend(replace(trace, dataset_fingerprint="other")))
    assert "version other" in caught.value.message
    with raises_code(ProfileError, "profile.empty"):
        calibrate(SPECIFICATION, replace(profile, configurations=()), backend=TraceBackend(trace))


def test_the_operators_themselves_are_measured_again_and_nothing_is_stored(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr("circinus.profiling.measurement.backend.current_machine", lambda: THERE)
        profile_pipeline(application.specification, "sample", application.store)
    recorded = load_profile(application.specification, "sample", application.store, from_other_machines=True)
    application.clear_calls()
    monkeypatch.setattr("inline_replica.InlineReplica.worker_waited_share", 0.5)
    found = calibrate(application.specification, recorded, items=5)
    assert set(found.disturbed) == {operator.name for operator in application.pipeline.operators}
    assert (found.machine, found.recorded_on, found.items) == (current_machine(), THERE, 5)
    assert 0 < found.speed.lower <= found.speed.value <= found.speed.upper
    monkeypatch.setattr("inline_replica.InlineReplica.worker_waited_share", 0.0)
    assert not calibrate(application.specification, recorded, items=2).disturbed
    assert len(application.calls_of("joined")) == 5
    assert load_profile(application.specification, "sample", application.store).machine == THERE


def test_what_this_machine_measured_can_be_left_out(application: Application) -> None:
    profile_pipeline(application.specification, "sample", application.store)
    with raises_code(ProfileError, "profile.not_measured") as caught:
        load_profile(application.specification, "sample", application.store, from_other_machines=True)
    assert "on another machine" in caught.value.message
