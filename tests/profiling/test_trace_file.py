"""Trace files: what is written comes back, and what is no trace is refused with its reason."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.api.profiling_service import write_trace
from circinus.errors import ProfileError
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.trace.measurement_trace import MeasurementTrace
from circinus.profiling.trace.trace_file import load_trace, save_trace
from circinus.specification import Specification
from raised import raises_code
from random_traces import random_trace, trace_pipeline

PIPELINE = trace_pipeline()


@pytest.fixture(scope="module")
def trace() -> MeasurementTrace:
    return random_trace(PIPELINE, 5, seed=0)


@given(seed=st.integers(0, 1000), items=st.integers(1, 6))
@settings(max_examples=examples(20))
def test_what_is_written_comes_back(seed: int, items: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trace") / "deep" / "some.trace"
    trace = random_trace(PIPELINE, items, seed=seed)
    key, replica = next(iter(trace.replicas.items()))
    trace = replace(
        trace,
        replicas={**trace.replicas, key: replace(replica, batch_ratio={(1.0, 2): 1.5, (2.0, 1): 0.75})},
        code_versions={operator.uses: f"{seed}" for operator in PIPELINE.operators}
        | {PIPELINE.metric.uses: "m", PIPELINE.dataset.uses: "d"},
        machine=Machine("a CPU", seed),
    )
    trace.scores[0, 0] = np.nan
    save_trace(trace, path)
    found = load_trace(path)
    assert found.digest == trace.digest
    for name, value in vars(trace).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(found, name), value)
        else:
            assert getattr(found, name) == value
    assert [file.name for file in path.parent.iterdir()] == ["some.trace"]


def test_failures_come_back_in_place_of_measurements(trace: MeasurementTrace, tmp_path: Path) -> None:
    failures = (FailedConfiguration(trace.configurations[2], "i1", "operator second: no"),)
    save_trace(replace(trace, failures=failures), tmp_path / "trace")
    found = load_trace(tmp_path / "trace")
    assert found.failures == failures
    assert set(found.configurations) == set(trace.configurations) - {trace.configurations[2]}


def test_an_existing_trace_is_replaced(trace: MeasurementTrace, tmp_path: Path) -> None:
    save_trace(trace, tmp_path / "trace")
    other = random_trace(PIPELINE, 5, seed=1)
    save_trace(other, tmp_path / "trace")
    assert load_trace(tmp_path / "trace").digest == other.digest


def test_a_trace_of_an_earlier_schema_is_read_and_stays_as_it_is(trace: MeasurementTrace, tmp_path: Path) -> None:
    file = tmp_path / "early.trace"
    save_trace(trace, file)
    with closing(sqlite3.connect(file)) as early:
        early.executescript("DROP TABLE checksum; ALTER TABLE output DROP COLUMN seal; DROP TABLE verdicts;")
        early.execute("PRAGMA user_version = 11")
    content, names = file.read_bytes(), sorted(path.name for path in tmp_path.iterdir())
    assert load_trace(file).digest == trace.digest
    assert (file.read_bytes(), sorted(path.name for path in tmp_path.iterdir())) == (content, names)


def test_every_number_counts_in_the_digest(trace: MeasurementTrace) -> None:
    assert random_trace(PIPELINE, 5, seed=0).digest == trace.digest
    changed = random_trace(PIPELINE, 5, seed=0)
    changed.service_s[3, 2] += 1
    assert changed.digest != trace.digest


@pytest.mark.parametrize(("content", "code"), [(None, "store.missing"), (b"text\n" * 100, "store.damaged")])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "trace"
    if content is not None:
        path.write_bytes(content)
    with raises_code(ProfileError, code):
        load_trace(path)


def test_a_truncated_file_is_refused(tmp_path: Path, trace: MeasurementTrace) -> None:
    path = tmp_path / "trace"
    save_trace(trace, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(ProfileError):
            load_trace(path)


def test_a_store_that_was_measured_is_no_trace(tmp_path: Path) -> None:
    ProfileStore(tmp_path / "store", create=True).close()
    with raises_code(ProfileError, "trace.wrong_kind"):
        load_trace(tmp_path / "store")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trace SET pipeline = '{}'",
        "UPDATE trace SET pipeline = 'no JSON'",
        "UPDATE trace SET code_versions = '[]'",
        "DELETE FROM dataset_source",
        "DELETE FROM address",
    ],
)
def test_faults_are_named(tmp_path: Path, trace: MeasurementTrace, statement: str) -> None:
    path = tmp_path / "trace"
    save_trace(trace, path)
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
        connection.execute("DELETE FROM checksum")
    connection.close()
    with raises_code(ProfileError, "trace.inconsistent"):
        load_trace(path)


@pytest.mark.parametrize("change", ["service SET service_s = -1.0", "replica SET loads = -1",
                                    "replica SET load_s = 1e999", "service SET output_bytes = -1"])  # fmt: skip
def test_a_value_that_no_measurement_has_is_damage(tmp_path: Path, trace: MeasurementTrace, change: str) -> None:
    path = tmp_path / "trace"
    save_trace(trace, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(f"UPDATE {change}").rowcount, "there is nothing to change"
        connection.execute("DELETE FROM checksum")
    with raises_code(ProfileError, "store.damaged"):
        load_trace(path)


def test_where_it_cannot_be_written_is_told(tmp_path: Path, trace: MeasurementTrace) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with raises_code(ProfileError, "trace.not_writable"):
        save_trace(trace, tmp_path / "file" / "trace")


def test_a_trace_does_not_replace_its_store(tmp_path: Path) -> None:
    store = tmp_path / "profiles.sqlite"
    with raises_code(ProfileError, "trace.is_store"):
        write_trace(Specification({}, None, ()), "words", store, tmp_path / "x" / ".." / "profiles.sqlite", seed=0)
