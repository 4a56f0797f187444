"""Profiling from a trace: no operator, no data, recorded time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from sample_application import Application, accuracy_query

from circinus.errors import ProfileError
from circinus.profiling import (
    MeasurementTrace,
    PipelineProfile,
    SimulatedClock,
    TraceBackend,
    export_trace,
    load_dataset,
    load_profile,
    load_recordings,
    load_trace,
    profile_pipeline,
    save_trace,
)
from circinus.profiling.hardware.machine import Machine, current_machine
from circinus.profiling.race.run_confidence import RunConfidence
from circinus.specification import Pipeline, prefix_configuration
from raised import raises_code
from random_traces import random_trace, specification_of, trace_pipeline

pytestmark = pytest.mark.usefixtures("inline_replicas")


def _profile(
    trace: MeasurementTrace, pipeline: Pipeline, store: Path, budget_s: float | None = None
) -> tuple[PipelineProfile, float]:
    clock = SimulatedClock()
    source = TraceBackend(trace, clock)
    found = profile_pipeline(specification_of(pipeline), pipeline.name, store, budget_s=budget_s, source=source)
    return found, clock()


def test_without_a_budget_everything_is_measured_and_costs_what_was_recorded(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    trace = random_trace(pipeline, 24, seed=0)
    profile, passed_s = _profile(trace, pipeline, tmp_path / "store")
    assert len(profile.configurations) == 8
    assert (profile.unmeasured, profile.failed, profile.code_versions) == (0, (), {})
    for found in profile.configurations:
        index = trace.configurations.index(found.configuration)
        np.testing.assert_array_equal(found.scores, trace.scores[index, found.items])
        order = TraceBackend(trace).dataset(pipeline, 0).profiling_items
        strata = [trace.strata[item] for item in order]
        confidence = RunConfidence.of_run(
            pipeline.metric, strata, profile.risk, configurations=8, population=pipeline.dataset.population
        )
        assert found.accuracy == confidence.bounds(found.scores[None])[0]
        for column, operator in enumerate(pipeline.topological_order()):
            row = trace.rows[index, column]
            measured = found.operators[operator.name]
            np.testing.assert_array_equal(measured.service_s, trace.service_s[row, found.items])
            np.testing.assert_array_equal(measured.output_bytes, trace.output_bytes[row, found.items])
    starts_s = sum(replica.effective_startup_s for replica in trace.replicas.values())
    assert profile.profiled_s == pytest.approx(trace.service_s.sum())
    assert passed_s == pytest.approx(trace.service_s.sum() + starts_s)
    naive_s = sum(trace.service_s[rows].sum() for rows in trace.rows)
    assert profile.saved_s == pytest.approx(naive_s - trace.service_s.sum())


def test_a_budget_is_spent_in_recorded_seconds(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    trace = random_trace(pipeline, 200, seed=1)
    whole_s = float(trace.service_s.sum())
    profile, passed_s = _profile(trace, pipeline, tmp_path / "store", budget_s=whole_s / 4)
    assert 0.5 * whole_s / 4 < passed_s < 1.2 * whole_s / 4
    assert 0 < sum(len(p.items) for p in profile.configurations) < 8 * 200
    again, passed_s = _profile(trace, pipeline, tmp_path / "store")
    assert all(len(p.items) >= len(q.items) for p, q in zip(again.configurations, profile.configurations, strict=True))
    assert load_profile(
        specification_of(pipeline), pipeline.name, tmp_path / "store", source=TraceBackend(trace)
    ).profiled_s == again.profiled_s  # fmt: skip


def test_traces_share_nothing_with_each_other(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    one, other = random_trace(pipeline, 30, seed=2), random_trace(pipeline, 30, seed=3)
    _profile(one, pipeline, tmp_path / "store")
    profile, passed_s = _profile(other, pipeline, tmp_path / "store")
    assert passed_s > 0
    for found in profile.configurations:
        index = other.configurations.index(found.configuration)
        np.testing.assert_array_equal(found.scores, other.scores[index, found.items])


def test_where_the_trace_ends_what_there_is_counts(tmp_path: Path) -> None:
    """No configuration is lost because it was recorded on fewer items than one would like to have."""
    pipeline = trace_pipeline()
    trace = random_trace(pipeline, 100, seed=4)
    order = TraceBackend(trace).dataset(pipeline, 0).order
    scores = trace.scores.copy()
    scores[0, list(order[11:])] = np.nan
    trace = dataclasses.replace(trace, scores=scores)
    profile, _ = _profile(trace, pipeline, tmp_path / "store")
    assert profile.failed == ()
    items = {p.configuration: len(p.items) for p in profile.configurations}
    assert items[trace.configurations[0]] == 11
    assert trace.configurations[0] in profile.undecided
    assert min(n for c, n in items.items() if c != trace.configurations[0]) > 11


def test_a_trace_of_another_pipeline_is_refused(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    trace = random_trace(pipeline, 3, seed=5)
    operators = (pipeline.operators[0].model_copy(update={"cpus": (0.5,)}), *pipeline.operators[1:])
    with raises_code(ProfileError, "trace.other_operator"):
        _profile(trace, pipeline.model_copy(update={"operators": operators}), tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.fixture
def recorded(application: Application) -> tuple[PipelineProfile, Path]:
    """A real profile, and the trace that was recorded of it."""
    application.pipeline = application.pipeline.model_copy(
        update={
            "operators": tuple(
                o.model_copy(update={"batch_sizes": (1, 2)}) if o.name == "left" else o
                for o in application.pipeline.operators
            )
        }
    )
    profile = profile_pipeline(application.specification, "sample", application.store)
    path = application.folder / "sample.trace"
    save_trace(export_trace(application.specification, "sample", application.store), path)
    return profile, path


def test_a_recorded_run_can_be_had_again_without_code_or_data(
    application: Application, recorded: tuple[PipelineProfile, Path]
) -> None:
    real, path = recorded
    trace = load_trace(path)
    dataset = load_dataset(application.pipeline, [application.folder])
    for seed in (0, 7):
        assert TraceBackend(trace).dataset(application.pipeline, seed).order == load_dataset(
            application.pipeline, [application.folder], seed=seed
        ).order  # fmt: skip
    assert trace.machine == current_machine()
    assert trace.item_addresses == dataset.addresses
    application.clear_calls()
    for file in application.folder.glob("sample_*.py"):
        file.unlink()
    application.forget()
    source = TraceBackend(trace)
    found = profile_pipeline(application.specification, "sample", application.folder / "elsewhere", source=source)
    assert application.calls() == {}
    assert found.machine == real.machine
    assert found.dataset_fingerprint == real.dataset_fingerprint
    for one, other in zip(found.configurations, real.configurations, strict=True):
        assert one.configuration == other.configuration
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_array_equal(one.scores, other.scores)
        for name, operator in one.operators.items():
            measured = other.operators[name]
            np.testing.assert_array_equal(operator.service_s, measured.service_s)
            np.testing.assert_array_equal(operator.output_bytes, measured.output_bytes)
            assert operator.batch_ratio == measured.batch_ratio
            assert operator.measured_allocations == measured.measured_allocations
            assert (operator.load_s, operator.startup_s) == (measured.load_s, measured.startup_s)
            assert operator.peak_memory_bytes == measured.peak_memory_bytes


def test_in_one_store_a_trace_and_the_operators_are_two(
    application: Application, recorded: tuple[PipelineProfile, Path]
) -> None:
    """Replays answer from recorded outputs, of which a trace has none."""
    real, path = recorded
    changed = load_trace(path)
    changed = dataclasses.replace(changed, service_s=changed.service_s * 2, machine=Machine("Another CPU", 1))
    source = TraceBackend(changed)
    profile_pipeline(application.specification, "sample", application.store, source=source)
    slower = load_profile(application.specification, "sample", application.store, source=source)
    found = load_profile(application.specification, "sample", application.store)
    assert (found.machine, slower.machine) == (current_machine(), Machine("Another CPU", 1))
    for one, other, two in zip(found.configurations, real.configurations, slower.configurations, strict=True):
        for name in one.operators:
            np.testing.assert_array_equal(one.operators[name].service_s, other.operators[name].service_s)
            np.testing.assert_array_equal(two.operators[name].service_s, 2 * one.operators[name].service_s)
    configuration = real.configurations[0].configuration
    wanted = [prefix_configuration(application.pipeline, configuration, "joined")]
    recordings = load_recordings(application.store, "sample", wanted)
    key = recordings.items[-1]
    assert recordings.output(wanted[0], key)[0] == key


def test_failures_are_recorded(application: Application) -> None:
    application.edit("sample_second", 'self.quality == "high"', '(self.quality == "high" or 1 / 0)')
    real = profile_pipeline(application.specification, "sample", application.store)
    trace = export_trace(application.specification, "sample", application.store)
    found = profile_pipeline(
        application.specification, "sample", application.folder / "elsewhere", source=TraceBackend(trace)
    )
    assert {f.configuration for f in found.failed} == {f.configuration for f in real.failed}
    assert len(found.failed) == len(found.configurations) == 2
    assert all("ZeroDivisionError" in failure.reason for failure in found.failed)


def test_thresholds_of_the_queries_hold_for_a_trace_too(tmp_path: Path) -> None:
    pipeline = trace_pipeline()
    trace = random_trace(pipeline, 150, seed=6)
    query = accuracy_query(0.55, pipeline.name)
    specification = dataclasses.replace(specification_of(pipeline), queries=(query,))
    found = profile_pipeline(specification, pipeline.name, tmp_path / "store", source=TraceBackend(trace))
    assert found.undecided == ()
    assert len({len(p.items) for p in found.configurations}) > 1  # the sure ones needed fewer


def test_strata_that_were_not_stored_are_asked_for(application: Application) -> None:
    from circinus.profiling.store.profile_store import ProfileStore

    profile_pipeline(application.specification, "sample", application.store)
    with ProfileStore(application.store) as store, store.transaction():
        store.write("UPDATE dataset_item SET strata = NULL", [()])
    with raises_code(ProfileError, "store.no_strata"):
        export_trace(application.specification, "sample", application.store)
    application.clear_calls()
    profile_pipeline(application.specification, "sample", application.store)
    assert set(application.calls()) == {"dataset -"}
    assert len(export_trace(application.specification, "sample", application.store).strata) == 24
