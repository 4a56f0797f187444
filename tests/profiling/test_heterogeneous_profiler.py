"""Operators measured on other hardware classes: processes on this machine in which a known factor more time passes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from sample_application import PASSES

from circinus.operators import Item
from circinus.profiling import (
    HardwareClassBackend,
    LocalBackend,
    Machine,
    PipelineProfile,
    Verdict,
    current_machine,
    load_predicted_service_times,
    load_profile,
    profile_pipeline,
)
from circinus.profiling.hardware.class_times import HardwareClassTimes, class_machines
from circinus.profiling.hardware.machine import machine_mismatch
from circinus.profiling.measurement.local_runner import LocalRunner
from circinus.profiling.measurement.runner import NodeLostError, OperatorRunner, OperatorsMeasurement
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_dataset
from circinus.specification import Configuration, Pool, Specification
from hardware_test_app import ITEMS, NAP_S, SLOWNESS, hardware, pool, pool_specification

pytestmark = pytest.mark.slow  # every test starts processes

SLOW = Machine("Slow CPU", 1)


@dataclass
class Elsewhere:
    """A node that is slower, or not; counts what it runs, and may be lost."""

    folder: Path
    machine: Machine = SLOW
    environment: Mapping[str, str] = field(default_factory=lambda: {"POOL_SLOWNESS": "1"})
    answers: int | None = None
    """Calls after which it is lost."""
    ran: list[tuple[str, ...]] = field(default_factory=list)
    """Operators of each item that it ran."""

    @contextmanager
    def operator_runner(self, there: MeasurementKeys, *, timeout_s: float) -> Iterator[OperatorRunner]:
        with mock.patch.dict(os.environ, self.environment), LocalRunner(there, [self.folder]) as runner:
            self._runner = runner
            yield self

    def measure_operators(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> OperatorsMeasurement:
        if self.answers == 0:
            raise NodeLostError("the node is gone")
        self.answers = None if self.answers is None else self.answers - 1
        found = self._runner.measure_operators(configuration, items, operators)
        self.ran += [tuple(sorted(found.runs))] * len(items)
        return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("pool_operators", None)


def _specification(folder: Path, speed: float = 1.0, limit_s: float | None = None) -> Specification:
    """One pool of a class that is declared as fast as this machine."""
    return _of_pools(folder, pool("far", hardware("slow", speed)), limit_s=limit_s)


def _of_pools(folder: Path, *pools: Pool, limit_s: float | None = None) -> Specification:
    """Its operators do not sleep: their time passes, however busy the machine is."""
    specification = pool_specification(folder, *pools, limit_s=limit_s)
    module = folder / "pool_operators.py"
    naps = module.read_text(encoding="utf-8")
    assert naps.count("import time\n") == 1
    module.write_text(naps.replace("import time\n", PASSES).replace("time.sleep(", "passes("), encoding="utf-8")
    return specification


def _profiled(
    specification: Specification, classes: Mapping[str, HardwareClassBackend | None], **arguments: object
) -> PipelineProfile:
    folder = specification.module_paths[0]
    return profile_pipeline(
        specification,
        "naps",
        folder / "store",
        source=LocalBackend([folder]),
        classes=classes,
        **{"exhaustive": True, **arguments},  # type: ignore[arg-type]
    )


def _speeds(profile: PipelineProfile) -> dict[tuple[str, str], float]:
    return {
        (name, str(operator.prefix[name])): operator.speeds.measured["slow"].speed.value
        for found in profile.configurations
        for name, operator in found.operators.items()
        if "slow" in operator.speeds.measured
    }


def test_operators_are_as_slow_there_as_they_are(folder: Path) -> None:
    specification, there = _specification(folder), Elsewhere(folder)
    found = _profiled(specification, {"slow": there})
    (report,) = found.class_reports
    assert (report.hardware_class, report.machine, report.missing, report.failed) == ("slow", SLOW, 0, ())
    speeds = _speeds(found)
    assert len(speeds) == 3  # `ahead` with either effort, `answer`
    for (name, _), speed in speeds.items():
        assert speed == pytest.approx(1 / SLOWNESS[name])
    # The least that tells: every item under each effort, and `answer` once.
    assert sorted(there.ran) == [("ahead",)] * ITEMS + [("ahead", "answer")] * ITEMS
    (slow,) = (p.hardware for p in specification.infrastructure.pools)  # type: ignore[union-attr]
    for configuration in found.configurations:
        for name, operator in configuration.operators.items():
            bounds = operator.speeds.measured["slow"].speed
            assert bounds.lower <= bounds.value <= bounds.upper
            assert operator.slowdown(slow) == 1 / bounds.lower
            assert operator.slowdown(slow) > 1.2  # and not the 1 that is declared
            # The start-up is what was measured there: nothing there makes processes slower.
            assert operator.startup_on(slow) == operator.speeds.measured["slow"].startup_s
            assert name in SLOWNESS


def test_what_is_known_is_not_measured_again_and_all_read_it(folder: Path) -> None:
    specification = _specification(folder)
    before = _profiled(specification, {"slow": Elsewhere(folder)})
    again = Elsewhere(folder)
    after = _profiled(specification, {"slow": again})
    assert again.ran == []
    assert after.class_reports[0].ran_s == 0.0
    read = load_profile(specification, "naps", folder / "store")
    assert _speeds(read) == _speeds(before) == _speeds(after)
    assert read.machine == current_machine()
    configurations = [found.configuration for found in read.configurations]
    expected = load_predicted_service_times(specification, "naps", folder / "store", configurations)
    for found in read.configurations:
        for name, operator in found.operators.items():
            assert expected.services[name, found.configuration].profile.speeds == operator.speeds


def test_times_are_stored_as_those_of_the_class_and_machine(folder: Path) -> None:
    specification = _specification(folder)
    found = _profiled(specification, {"slow": Elsewhere(folder)})
    here = LocalBackend([folder]).addresses(specification.pipelines["naps"], current_machine())
    listed = [one.configuration for one in found.configurations]
    with ProfileStore(folder / "store") as store:
        assert class_machines(store) == {"slow": (SLOW,)}
        dataset = read_dataset(store, here.dataset(), 0)
        assert dataset is not None
        times = HardwareClassTimes(store, here.for_hardware_class("slow", SLOW), listed, dataset.item_ids)
        for configuration in listed:
            there_s = times.service_s("ahead", configuration)
            effort = int(configuration["ahead"].as_dict()["effort"])
            assert len(there_s) == ITEMS
            assert there_s == pytest.approx(effort * NAP_S * SLOWNESS["ahead"])
        for other in (here.for_hardware_class("slow", Machine("Other", 9)), here.for_hardware_class("other", SLOW)):
            assert not HardwareClassTimes(store, other, listed, dataset.item_ids)


def test_another_machine_of_the_class_is_measured_by_itself(folder: Path) -> None:
    specification = _specification(folder)
    _profiled(specification, {"slow": Elsewhere(folder)})
    fast = Elsewhere(folder, machine=Machine("New CPU", 2), environment={})
    found = _profiled(specification, {"slow": fast})
    assert len(fast.ran) == 2 * ITEMS
    assert all(speed == pytest.approx(1.0) for speed in _speeds(found).values())


def test_only_operators_that_may_run_there_are_measured(folder: Path) -> None:
    specification = _of_pools(
        folder, pool("near", hardware("slow", 1.0), tier="device"), pool("far", hardware("local"))
    )
    pipeline = specification.pipelines["naps"]
    ahead, answer = pipeline.operators
    kept = answer.model_copy(update={"allowed_tiers": ("cloud",)})
    changed = pipeline.model_copy(update={"operators": (ahead, kept)})
    there = Elsewhere(folder)
    found = _profiled(
        Specification({"naps": changed}, specification.infrastructure, specification.queries, (folder,)),
        {"slow": there},
    )
    assert {name for name, _ in _speeds(found)} == {"ahead"}
    assert set(there.ran) == {("ahead",)}


def test_what_fails_there_is_told_and_the_rest_goes_on(folder: Path) -> None:
    specification = _specification(folder)
    broken = Elsewhere(folder, environment={"POOL_SLOWNESS": "1", "POOL_BROKEN": "2"})
    found = _profiled(specification, {"slow": broken})
    (report,) = found.class_reports
    assert report.missing == 1
    assert [failure.configuration["ahead"].as_dict() for failure in report.failed] == [{"effort": 2}]
    assert "this node cannot do that" in report.failed[0].reason
    assert len(_speeds(found)) == 2
    assert not found.failed  # here it works
    mended = Elsewhere(folder)
    (later,) = _profiled(specification, {"slow": mended}, earlier=found).class_reports
    assert (later.failed, later.ran_s, mended.ran) == (report.failed, report.ran_s, [])  # not tried again in this run


def test_a_lost_node_ends_it_and_nothing_is_lost(folder: Path) -> None:
    specification = _specification(folder)
    with pytest.raises(NodeLostError, match="the node is gone"):
        _profiled(specification, {"slow": Elsewhere(folder, answers=1)})
    back = Elsewhere(folder)
    found = _profiled(specification, {"slow": back})
    assert found.class_reports[0].missing == 0
    assert len(back.ran) == 2 * ITEMS - 8  # one increment was committed


def test_a_budget_ends_it_and_the_next_run_goes_on(folder: Path) -> None:
    specification, there = _specification(folder), Elsewhere(folder)
    _profiled(specification, {})
    missing = []
    for budget_s in (5.0, 25.0, 40.0, None):
        seconds = count()  # one passes with every look at the clock
        found = _profiled(specification, {"slow": there}, budget_s=budget_s, clock=lambda s=seconds: float(next(s)))
        missing.append(found.class_reports[0].missing)
    assert missing == sorted(missing, reverse=True)
    assert missing[0] > 0
    assert missing[-1] == 0
    assert len(there.ran) == 2 * ITEMS  # nothing twice


def test_where_it_is_allowed_the_declared_speed_stands_for_a_lost_node(folder: Path) -> None:
    found = _profiled(_specification(folder), {"slow": Elsewhere(folder, answers=0)}, skip_lost_nodes=True)
    assert [report.missing for report in found.class_reports] == [3]
    assert _speeds(found) == {}
    without = _profiled(_specification(folder), {"slow": None})
    assert [(report.machine, report.missing) for report in without.class_reports] == [(None, 0)]


def test_what_only_the_declared_speed_makes_too_slow_is_looked_at_again(folder: Path) -> None:
    specification = _specification(folder, speed=0.05, limit_s=20 * NAP_S)
    declared = _profiled(specification, {"slow": None}, exhaustive=False)
    assert {found.verdict for found in declared.verdicts.values()} == {Verdict.INFEASIBLE}
    measured = _profiled(specification, {"slow": Elsewhere(folder, environment={})}, exhaustive=False)
    assert Verdict.INFEASIBLE not in {found.verdict for found in measured.verdicts.values()}


def test_a_profile_made_on_a_pools_node_counts_until_this_machine_profiles_again(folder: Path) -> None:
    specification, other = _specification(folder), Machine("Node CPU", 64)
    _profiled(specification, {})
    with mock.patch("circinus.profiling.measurement.backend.current_machine", return_value=other):
        on_pool = _profiled(specification, {})
    assert (on_pool.machine, on_pool.on_pool) == (other, True)
    read = load_profile(specification, "naps", folder / "store")
    assert (read.machine, read.on_pool) == (other, True)
    assert machine_mismatch(read.machine) is not None
    _profiled(specification, {})
    read = load_profile(specification, "naps", folder / "store")
    assert (read.machine, read.on_pool) == (current_machine(), False)
    assert np.isfinite([one.operators["ahead"].service_s.mean() for one in read.configurations]).all()
