"""Measuring the sample for real: what is in the profile, what is not measured twice, and what an end leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from sample_application import Application, accuracy_query, first_keys, sample_pipeline

from budget import HANG_LIMIT_S
from circinus.api.profile_summary import machine_warning
from circinus.errors import OperatorError, ProfileError
from circinus.operators.pickling import pickled_bytes
from circinus.profiling import (
    FailedConfiguration,
    PipelineProfile,
    load_dataset,
    profile_pipeline,
    record_for_replay,
)
from circinus.profiling.race.race_state import Verdict
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import Configuration, DatasetSpec, MetricSpec
from circinus.statistics.interval import Interval
from raised import raises_code

INLINE = pytest.mark.usefixtures("inline_replicas")

OPERATORS = ("prepare", "left", "right", "joined")


def _profile(application: Application, **arguments: object) -> PipelineProfile:
    return profile_pipeline(application.specification, application.pipeline.name, application.store, **arguments)  # type: ignore[arg-type]


class Failures:
    def __init__(self) -> None:
        self.found: list[FailedConfiguration] = []

    def progressed(self, progress: object) -> None:
        pass

    def failed(self, failure: FailedConfiguration) -> None:
        self.found.append(failure)


@pytest.mark.slow
def test_the_profile_has_what_was_measured(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circinus.profiling.measurement.local_runner.available_cpus", lambda: 2.0)
    application.queries = (accuracy_query(0.75).model_copy(update={"risk": 0.1}),)
    operators = tuple(
        o.model_copy(update={"cpus": (1.0, 2.0), "batch_sizes": (1, 3)}) if o.name == "left" else o
        for o in application.pipeline.operators
    )
    application.pipeline = sample_pipeline(operators=operators)
    profile = _profile(application)
    dataset = load_dataset(application.pipeline, [application.folder])
    assert profile.pipeline == "sample"
    assert profile.dataset_fingerprint == dataset.fingerprint
    assert (profile.dataset_items, profile.hardware_class, profile.risk) == (24, "local", 0.1)
    assert {p.configuration for p in profile.configurations} == set(application.configurations)
    assert (profile.unmeasured, profile.undecided, profile.failed, profile.interrupted) == (0, (), (), False)
    assert set(profile.verdicts) == set(application.configurations)
    confidence = _confidence(application, risk=0.1)
    code = application.addresses().code
    assert profile.code_versions.items() >= code.operators.items()
    assert {code.metric, code.dataset} <= set(profile.code_versions.values())
    for found in profile.configurations:
        n = len(found.items)
        assert found.items.tolist() == list(dataset.order[:n])
        expected = [_score(found.configuration, i) for i in found.items]
        np.testing.assert_allclose(found.scores, expected)
        assert found.accuracy == confidence.bounds(found.scores[None])[0]
        assert found.input_bytes.tolist() == [pickled_bytes(dataset.items[i].value) for i in found.items]
        assert set(found.operators) == set(OPERATORS)
        for name, operator in found.operators.items():
            assert operator.operator == name
            assert set(operator.prefix) == {*application.pipeline.ancestors(name), name}
            assert len(operator.service_s) == len(operator.output_bytes) == n
            assert operator.service_s.min() > 0
            assert operator.startup_s is not None
            assert 0 < operator.load_s < operator.startup_s
            assert operator.peak_memory_bytes > 5_000_000
        keys = [dataset.items[i].key for i in found.items]
        assert found.operators["right"].output_bytes.tolist() == [pickled_bytes(key) for key in keys]
        left = found.operators["left"]
        assert set(left.batch_ratio) == {(1.0, 1), (1.0, 3), (2.0, 1), (2.0, 3)} == left.measured_allocations
        assert left.batch_ratio[1.0, 1] == 1.0
        assert found.operators["right"].batch_ratio == {(1.0, 1): 1.0}
    assert profile.profiled_s > 0
    assert profile.saved_s > 0


def _confidence(application: Application, risk: float) -> RunConfidence:
    dataset = load_dataset(application.pipeline, [application.folder])
    strata = [dataset.items[index].strata for index in dataset.profiling_items]
    pipeline = application.pipeline
    return RunConfidence.of_run(
        pipeline.metric, strata, risk, len(application.configurations), population=pipeline.dataset.population
    )


def _score(configuration: object, item: int) -> float:
    values = dict(configuration.operators)  # type: ignore[attr-defined]
    x = item / 100 * values["prepare"].as_dict()["gain"] + (0.3 if values["left"].as_dict()["quality"] == "low" else 0)
    return float(max(0.0, 1.0 - abs(x - item / 100)))


@INLINE
def test_a_second_call_measures_nothing(application: Application) -> None:
    first = _profile(application)
    application.clear_calls()
    second = _profile(application)
    assert set(application.calls()) == {"dataset -"}
    assert second.profiled_s == first.profiled_s
    for before, after in zip(first.configurations, second.configurations, strict=True):
        np.testing.assert_array_equal(
            before.operators["left"].service_s, after.operators["left"].service_s, strict=True
        )


@INLINE
def test_disturbed_runs_are_repeated_once_the_machine_is_quiet(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    def times(profile: PipelineProfile) -> dict[tuple[Configuration, str], list[float]]:
        return {
            (c.configuration, n): o.service_s.tolist() for c in profile.configurations for n, o in c.operators.items()
        }

    def warning(profile: PipelineProfile) -> str:
        return machine_warning(profile, application.specification) or ""

    monkeypatch.setattr("inline_replica.InlineReplica.worker_waited_share", 0.5)
    first = _profile(application)
    assert all(found.disturbed == set(OPERATORS) for found in first.configurations)
    assert first.configurations[0].operators["left"].worker_waited_share == pytest.approx(0.5)
    assert all(name in warning(first) for name in OPERATORS)
    monkeypatch.setattr("inline_replica.InlineReplica.worker_waited_share", 0.05)
    monkeypatch.setattr("inline_replica.InlineReplica.waited_share", 0.6)
    assert times(_profile(application)) == times(first)  # the machine is still busy
    monkeypatch.setattr("circinus.profiling.profiler.busy_share", lambda: 0.0)
    better = _profile(application)
    assert all(found.disturbed == set(OPERATORS) for found in better.configurations)
    assert better.configurations[0].operators["left"].waited_share == pytest.approx(0.6)
    monkeypatch.setattr("inline_replica.InlineReplica.waited_share", 0.1)
    second = _profile(application)
    assert not any(found.disturbed for found in second.configurations)
    assert not warning(second)
    assert all(set(times(second)[key]).isdisjoint(seconds) for key, seconds in times(first).items())
    application.clear_calls()
    assert times(_profile(application)) == times(second)
    assert set(application.calls()) == {"dataset -"}


@INLINE
def test_more_queries_need_more_items_and_only_those(application: Application) -> None:
    application.pipeline = sample_pipeline(
        dataset=DatasetSpec(uses="sample_data:items", arguments={"count": 120}, held_out=0.0)
    )
    _profile(application)
    application.clear_calls()
    application.queries = (accuracy_query(0.92),)
    profile = _profile(application)
    assert 32 < max(len(p.items) for p in profile.configurations) < 120
    first = set(first_keys(application, 32))
    assert first.isdisjoint(key for name in ("left-high", "joined", "right") for key in application.calls_of(name))


@pytest.mark.slow
def test_one_bad_configuration_does_not_end_it(application: Application) -> None:
    """The crash takes its process with it."""
    application.edit("sample_second", 'self.quality == "high"', '(self.quality == "high" or os.abort())')
    failures = Failures()
    profile = _profile(application, observer=failures)
    bad = {application.configuration(gain, "low") for gain in (1, 20)}
    assert {p.configuration for p in profile.configurations} == set(application.configurations) - bad
    assert {failure.configuration for failure in profile.failed} == bad
    assert set(failures.found) == set(profile.failed)
    assert profile.unmeasured == 0
    for failure in profile.failed:
        assert failure.item_key is not None
        assert "operator left (sample_second:Left): its process was killed by SIGABRT" in failure.reason


@INLINE
def test_a_failure_is_tried_again_and_forgotten_when_it_goes_well(application: Application) -> None:
    marker = application.folder / "broken"
    marker.touch()
    application.edit(
        "sample_second",
        "self.quality = quality",
        f"self.quality = quality\n        assert quality == 'high' or not os.path.exists({str(marker)!r})",
    )
    profile = _profile(application)
    assert [failure.item_key for failure in profile.failed] == [None, None]
    assert "cannot be loaded: AssertionError" in profile.failed[0].reason
    marker.unlink()
    healed = _profile(application)
    assert healed.failed == ()
    assert len(healed.configurations) == 4


@INLINE
def test_an_edit_invalidates_what_it_can_have_changed(application: Application) -> None:
    application.score_alike()
    before = _profile(application)
    application.clear_calls()
    application.edit("sample_second", "import os", "import os  # another version")
    after = _profile(application)
    assert len(after.configurations) == len(before.configurations)
    # `left`, `right` and `joined` are measured again; `prepare` runs to feed them, and keeps its first measurement.
    assert sum(application.calls_of("left-high").values()) >= 24
    for old, new in zip(before.configurations, after.configurations, strict=True):
        assert (old.operators["left"].service_s != new.operators["left"].service_s).any()
        np.testing.assert_array_equal(old.operators["prepare"].service_s, new.operators["prepare"].service_s)
    application.edit("sample_second", "import os  # another version", "import os")
    application.clear_calls()
    _profile(application)
    assert set(application.calls()) == {"dataset -"}  # back to the first version: it is all there still


@INLINE
def test_another_metric_scores_the_stored_outputs(application: Application) -> None:
    application.score_alike()
    before = _profile(application)
    application.clear_calls()
    application.edit("sample_data", "1.0 - int", "1.0 - 0.5 * int")
    after = _profile(application)
    assert set(application.calls()) == {"dataset -"}
    np.testing.assert_allclose(1 - after.configurations[0].scores, (1 - before.configurations[0].scores) / 2)


@INLINE
def test_a_new_item_leaves_the_others_measured(application: Application) -> None:
    application.score_alike()
    _profile(application)
    application.clear_calls()
    application.pipeline = sample_pipeline(
        dataset=DatasetSpec(uses="sample_data:items", arguments={"count": 25}, held_out=0.0)
    )
    profile = _profile(application)
    assert profile.dataset_items == 25
    assert set(application.calls_of("joined")) == {"i24"}


@INLINE
def test_equal_beginnings_of_pipelines_are_measured_once(application: Application) -> None:
    _profile(application)
    application.clear_calls()
    application.pipeline = sample_pipeline(name="twin")
    assert len(_profile(application).configurations) == 4
    assert set(application.calls()) == {"dataset -"}


@INLINE
def test_a_score_outside_the_range_ends_it_with_an_error(application: Application) -> None:
    application.pipeline = sample_pipeline(metric=MetricSpec(name="close", uses="sample_data:close", range=(0.0, 0.5)))
    with raises_code(ProfileError, "metric.score_out_of_range") as caught:
        _profile(application)
    assert caught.value.location == "metric close (sample_data:close) of pipeline sample"


def test_what_is_not_found_is_told_before_anything_is_written(application: Application) -> None:
    application.pipeline = sample_pipeline(metric=MetricSpec(name="close", uses="sample_data:closed"))
    with pytest.raises(OperatorError, match="closed"):
        _profile(application)
    assert not application.store.exists()


@INLINE
def test_the_budget_is_kept_on_the_given_clock(application: Application) -> None:
    """Every look at the clock takes a second; the first round needs more looks than the budget has."""
    now_s = iter(range(10_000))
    profile = _profile(application, budget_s=12.0, clock=lambda: float(next(now_s)))
    assert 0 < sum(len(p.items) for p in profile.configurations) < 4 * 8
    assert next(now_s) < 100


PROGRAM = """
import signal, sys
from pathlib import Path
from sample_application import Application
from circinus.profiling import profile_pipeline, profiler
profiler.busy_share = lambda: 99.0  # runs that waited for a CPU are not repeated
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
application = Application(Path(sys.argv[1]))
found = profile_pipeline(application.specification, "sample", application.store)
print("interrupted" if found.interrupted else "complete", sum(len(p.items) for p in found.configurations))
"""


def _start(application: Application) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(application.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def _wait_for_scores(application: Application, process: subprocess.Popen[str], count: int) -> None:
    while process.poll() is None:
        if application.store.is_file():
            try:
                with ProfileStore(application.store) as store:
                    if store.rows("SELECT count(*) FROM score")[0][0] >= count:
                        return
            except ProfileError:
                pass  # it is being made
        time.sleep(0.01)
    raise AssertionError(f"it ended early: {process.communicate()}")


def _known(application: Application) -> set[tuple[int, int]]:
    with ProfileStore(application.store) as store:
        known = set(store.rows("SELECT subject, item FROM score"))
        # Every scored item has its output and a time of every operator: nothing is half-written.
        assert store.rows("SELECT count(*) FROM output") == [(len(known),)]
        scored, served = (f"SELECT count(DISTINCT item) FROM {table}" for table in ("score", "service"))
        assert store.rows(scored) == store.rows(served)
    return known


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow
def test_ended_in_the_middle_it_goes_on_and_repeats_nothing(application: Application, how: signal.Signals) -> None:
    application.score_alike()
    # Nobody gets beyond the second look at some configuration before the gate is open.
    gate, last = application.folder / "gate", first_keys(application, 16)[-1]
    waits = f"while value['key'] == {last!r} and not os.path.exists({str(gate)!r}):\n                time.sleep(0.01)"
    application.edit("sample_second", "for value in values:", f"for value in values:\n            {waits}")
    application.edit("sample_second", "import os", "import os, time")
    process = _start(application)
    _wait_for_scores(application, process, 16)
    process.send_signal(how)
    said, errors = process.communicate(timeout=HANG_LIMIT_S)
    gate.touch()
    known = _known(application)
    assert 16 <= len(known) < 4 * 24
    if how is signal.SIGINT:
        assert said.split() == ["interrupted", str(len(known))]
        assert "Traceback" not in errors
    else:
        assert process.returncode == -signal.SIGKILL
    application.clear_calls()
    process = _start(application)
    said, errors = process.communicate(timeout=HANG_LIMIT_S)
    assert said.split() == ["complete", str(4 * 24)], errors
    assert _known(application) > known
    fresh = 4 * 24 - len(known)
    # The process warms up at its start, and on the outputs of each configuration if first runs are slow.
    assert 1 <= sum(application.calls_of("joined").values()) - fresh <= len(application.configurations)


@pytest.mark.slow
def test_two_at_once_share_one_store(application: Application) -> None:
    application.score_alike()
    processes = [_start(application) for _ in range(2)]
    for process in processes:
        said, errors = process.communicate(timeout=HANG_LIMIT_S)
        assert said.split() == ["complete", str(4 * 24)], errors
    assert len(_known(application)) == 4 * 24


@INLINE
def test_held_out_items_are_never_profiled(application: Application) -> None:
    """Not even when a replay has recorded them before, so that the store knows the whole data set."""
    application.pipeline = sample_pipeline(
        dataset=DatasetSpec(uses="sample_data:items", held_out=0.25, population="items")
    )
    application.queries = (accuracy_query(0.999),)
    best = application.configuration(1, "high")
    record_for_replay(application.specification, "sample", application.store, configurations=[best], items_count=24)
    dataset = load_dataset(application.pipeline, [application.folder])
    held_out = set(dataset.traffic_items(24))
    assert len(held_out) == 6
    profile = _profile(application)
    assert (profile.dataset_items, profile.held_out_items) == (24, 6)
    assert all(held_out.isdisjoint(found.items.tolist()) for found in profile.configurations)
    found = next(found for found in profile.configurations if found.configuration == best)
    assert len(found.items) == 18
    assert found.accuracy == Interval.exact(found.scores.mean())  # of the items that may be profiled, which is all
    assert best not in profile.undecided  # there is nothing more to measure


@INLINE
def test_all_items_leave_requests_to_come_uncertain_and_a_second_call_measures_nothing(
    application: Application,
) -> None:
    application.queries = (accuracy_query(0.95),)
    _profile(application)
    application.clear_calls()
    profile = _profile(application)
    assert set(application.calls()) == {"dataset -"}
    best = application.configuration(1, "high")
    found = next(found for found in profile.configurations if found.configuration == best)
    assert len(found.items) == profile.population == 24
    assert found.accuracy.lower < 0.95 < found.accuracy.value == 1.0
    assert profile.verdicts[best].verdict is Verdict.TOO_FEW_ITEMS
    assert profile.undecided == ()
    assert profile.all_decided
    application.pipeline = sample_pipeline(
        dataset=DatasetSpec(uses="sample_data:items", held_out=0.0, population="items")
    )
    assert next(f for f in _profile(application).configurations if f.configuration == best).accuracy.lower == 1.0
