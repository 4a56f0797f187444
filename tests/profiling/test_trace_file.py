"""Trace files: what is written comes back, and what is no trace is refused with its reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import ProfileError
from circinus.profiling.trace.measurement_trace import MeasurementTrace
from circinus.profiling.trace.trace_file import load_trace, save_trace, trace_digest
from raised import raises_code
from random_traces import random_trace, trace_pipeline

PIPELINE = trace_pipeline()


@pytest.fixture(scope="module")
def trace() -> MeasurementTrace:
    return random_trace(PIPELINE, 5, seed=0)


def _change(path: Path, header: dict[str, object] | None = None, **arrays: np.ndarray | None) -> None:
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    written = json.loads(content["header"].tobytes()) | (header or {})
    content["header"] = np.frombuffer(json.dumps(written).encode(), dtype=np.uint8)
    content |= arrays  # type: ignore[arg-type]
    with path.open("wb") as stream:
        np.savez(stream, **{name: array for name, array in content.items() if array is not None})


@given(seed=st.integers(0, 1000), items=st.integers(1, 6))
def test_what_is_written_comes_back(seed: int, items: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trace") / "deep" / "some.trace"
    trace = random_trace(PIPELINE, items, seed=seed)
    trace.scores[0, 0] = np.nan
    save_trace(trace, path)
    found = load_trace(path)
    assert trace_digest(found) == trace_digest(trace)
    for name, value in vars(trace).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(found, name), value)
        else:
            assert getattr(found, name) == value
    assert [file.name for file in path.parent.iterdir()] == ["some.trace"]


def test_traces_without_start_ups_are_read_and_keep_their_digest(trace: MeasurementTrace, tmp_path: Path) -> None:
    """As they were written before start-ups were recorded apart from loads."""
    older = replace(trace, replicas={key: replace(one, startup_s=None) for key, one in trace.replicas.items()})
    save_trace(older, tmp_path / "older")
    with np.load(tmp_path / "older") as file:
        header = json.loads(file["header"].tobytes())
    assert not any("startup_s" in entry for entry in header["replicas"])
    found = load_trace(tmp_path / "older")
    assert found.replicas == older.replicas
    assert trace_digest(found) == trace_digest(older) != trace_digest(trace)


def test_every_number_counts_in_the_digest(trace: MeasurementTrace) -> None:
    changed = random_trace(PIPELINE, 5, seed=0)
    assert trace_digest(changed) == trace_digest(trace)
    changed.service_s[3, 2] += 1
    assert trace_digest(changed) != trace_digest(trace)


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "trace.missing"), (b"", "trace.damaged"), (b"text\n" * 100, "trace.damaged")],
)
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "trace"
    if content is not None:
        path.write_bytes(content)
    with raises_code(ProfileError, code):
        load_trace(path)


def test_a_truncated_file_is_refused(tmp_path: Path, trace: MeasurementTrace) -> None:
    path = tmp_path / "trace"
    save_trace(trace, path)
    whole = path.read_bytes()
    for length in range(1, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with raises_code(ProfileError, "trace.damaged"):
            load_trace(path)


def test_other_arrays_are_no_trace(tmp_path: Path) -> None:
    with (tmp_path / "trace").open("wb") as file:
        np.savez(file, some=np.zeros(3))
    with raises_code(ProfileError, "trace.damaged"):
        load_trace(tmp_path / "trace")
    with (tmp_path / "trace").open("wb") as file:
        np.save(file, np.zeros(3))
    with raises_code(ProfileError, "trace.damaged"):
        load_trace(tmp_path / "trace")


@pytest.mark.parametrize(
    ("header", "arrays", "code", "value"),
    [
        ({"kind": "other"}, {}, "trace.wrong_kind", "'other'"),
        ({"schema_version": 99}, {}, "trace.other_schema", "99, expected 1"),
        ({"metric": "closeness"}, {}, "trace.inconsistent", ""),
        ({"replicas": [{}]}, {}, "trace.inconsistent", ""),
        ({"machine": {"cpu": "x"}}, {}, "trace.inconsistent", ""),
        ({"replicas": []}, {}, "trace.inconsistent", "first"),
        ({}, {"scores": None}, "trace.inconsistent", ""),
        ({}, {"scores": np.zeros((8, 4))}, "trace.inconsistent", "(8, 4), expected (8, 5)"),
        ({}, {"rows": np.zeros((8, 4))}, "trace.inconsistent", ""),
        ({}, {"scores": np.full((8, 5), "x")}, "trace.inconsistent", ""),
        ({}, {"input_bytes": np.full(5, np.nan)}, "trace.inconsistent", "input_bytes"),
    ],
)
def test_faults_are_named(
    tmp_path: Path,
    trace: MeasurementTrace,
    header: dict[str, object],
    arrays: dict[str, np.ndarray],
    code: str,
    value: str,
) -> None:
    path = tmp_path / "trace"
    save_trace(trace, path)
    _change(path, header, **arrays)
    with raises_code(ProfileError, code) as caught:
        load_trace(path)
    assert caught.value.location.startswith(str(path))
    assert value in caught.value.message


def test_where_it_cannot_be_written_is_told(tmp_path: Path, trace: MeasurementTrace) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with raises_code(ProfileError, "trace.not_writable"):
        save_trace(trace, tmp_path / "file" / "trace")
