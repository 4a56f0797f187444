"""Measurements belong to the machine that made them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sample_application import Application

from circinus.profiling import load_profile, profile_pipeline
from circinus.profiling.hardware.machine import Machine, cgroup_limits, current_machine, machine_mismatch
from circinus.profiling.store.measurement_keys import MeasurementKeys, pipeline_code

pytestmark = pytest.mark.usefixtures("inline_replicas")

OTHER = Machine("Another CPU @ 9 GHz", 3)


def _move_to(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("hardware.machine", "measurement.backend"):
        monkeypatch.setattr(f"circinus.profiling.{module}.current_machine", lambda: machine)


def test_a_machine_is_its_cpu_and_its_cores() -> None:
    here = current_machine()
    assert here.cores >= 1
    assert here.cpu_model
    assert str(OTHER) == "Another CPU @ 9 GHz, 3 cores"
    assert machine_mismatch(here) is None
    assert str(OTHER) in str(machine_mismatch(OTHER))
    assert str(here) in str(machine_mismatch(OTHER))
    assert "unrecorded" in str(machine_mismatch(None))


def test_what_another_machine_measured_is_found_and_told(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        _move_to(OTHER, there)
        before = profile_pipeline(application.specification, "sample", application.store)
        assert before.machine == OTHER
        assert machine_mismatch(before.machine) is None
    found = load_profile(application.specification, "sample", application.store)
    assert found.machine == OTHER
    assert len(found.configurations) == len(before.configurations)
    assert found.profiled_s == before.profiled_s


def test_times_of_two_machines_never_mix(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    application.score_alike()
    with monkeypatch.context() as there:
        _move_to(OTHER, there)
        before = profile_pipeline(application.specification, "sample", application.store)
    application.clear_calls()
    now_s = iter(range(10_000))
    partly = profile_pipeline(
        application.specification, "sample", application.store, budget_s=12.0, clock=lambda: float(next(now_s))
    )
    assert partly.machine == current_machine()
    assert 0 < sum(len(p.items) for p in partly.configurations) < sum(len(p.items) for p in before.configurations)
    assert sum(application.calls_of("joined").values()) > 0
    old = {p.configuration: p for p in before.configurations}
    for new in partly.configurations:
        for name, operator in new.operators.items():
            assert (operator.service_s != old[new.configuration].operators[name].service_s[: len(new.items)]).all()
        np.testing.assert_array_equal(new.scores, old[new.configuration].scores[: len(new.items)])
    assert partly.profiled_s != before.profiled_s
    assert load_profile(application.specification, "sample", application.store).machine == current_machine()
    with monkeypatch.context() as there:
        _move_to(OTHER, there)
        back = load_profile(application.specification, "sample", application.store)
    assert (back.machine, back.profiled_s) == (OTHER, before.profiled_s)


def test_what_was_measured_before_machines_were_recorded_is_still_found(application: Application) -> None:
    profile_pipeline(application.specification, "sample", application.store)
    code = pipeline_code(application.pipeline, [application.folder])
    unknown = MeasurementKeys(application.pipeline, code)
    known = MeasurementKeys(application.pipeline, code, machine=current_machine())
    configuration = application.configuration(1, "low")
    assert unknown.service("left", configuration) != known.service("left", configuration)
    assert unknown.replica("left", configuration["left"]) != known.replica("left", configuration["left"])
    assert unknown.profiling_time(configuration) != known.profiling_time(configuration)
    for name in ("output", "replay_output", "score"):
        arguments = ("left", configuration) if name == "output" else (configuration,)
        assert getattr(unknown, name)(*arguments) == getattr(known, name)(*arguments)


def test_a_store_without_a_machine_is_read_as_of_nobody_knows(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr("circinus.profiling.measurement.backend.LocalBackend.machine", property(lambda source: None))
        profile_pipeline(application.specification, "sample", application.store)
    found = load_profile(application.specification, "sample", application.store)
    assert found.machine is None
    assert len(found.configurations) == 4


@pytest.mark.parametrize(
    ("own", "around", "expected"),
    [
        (("max 100000", "max"), ("max 100000", "max"), (math.inf, math.inf)),
        (("150000 100000", "max"), ("max 100000", "4096"), (1.5, 4096.0)),
        (("150000 100000", "8192"), ("50000 100000", "9000"), (0.5, 8192.0)),
        (("", ""), ("nonsense", "nonsense"), (math.inf, math.inf)),
    ],
)
def test_limits_of_control_groups_are_the_least_on_the_way_up(
    tmp_path: Path, own: tuple[str, str], around: tuple[str, str], expected: tuple[float, float]
) -> None:
    mounted, membership = tmp_path / "cgroup", tmp_path / "membership"
    (mounted / "service" / "own").mkdir(parents=True)
    (tmp_path / "memory.max").write_text("1")  # not a group any more
    for folder, (cpus, memory) in [(mounted / "service", around), (mounted / "service" / "own", own)]:
        (folder / "cpu.max").write_text(f"{cpus}\n")
        (folder / "memory.max").write_text(f"{memory}\n")
    membership.write_text("4:memory:/elsewhere\n0::/service/own\n")
    assert cgroup_limits(mounted, membership) == expected


def test_machine_without_control_groups_has_no_such_limits(tmp_path: Path) -> None:
    assert cgroup_limits(tmp_path, tmp_path / "none") == (math.inf, math.inf)
