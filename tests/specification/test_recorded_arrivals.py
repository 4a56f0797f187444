"""Recorded arrivals: lookup of the file, its rows, and its problems."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_cases import FAULTLESS
from typer.testing import CliRunner

from circinus.cli.app import app
from circinus.errors import SpecError
from circinus.specification import Query, RecordedArrivals, Specification, load_specification, parse_specification
from circinus.specification.arrival_files import read_arrival_rows

RECORDED = FAULTLESS.replace("  weight: 2", "  arrivals: {kind: recorded, file: traces/calls.csv}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spec").mkdir()
    (tmp_path / "spec" / "all.yaml").write_text(RECORDED)
    (tmp_path / "spec" / "traces").mkdir()
    return tmp_path / "spec"


def _write(folder: Path, text: str) -> Path:
    file = folder / "traces" / "calls.csv"
    file.write_text(text, encoding="utf-8")
    return file


def _times_s(specification: Specification) -> tuple[float, ...] | None:
    arrivals = specification.queries[0].arrivals
    assert isinstance(arrivals, RecordedArrivals)
    return arrivals.times_s


def test_the_file_stands_beside_the_one_that_names_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(folder, "note,time_s\nx,3\ny,0.5\n\nz,1e0\n")
    assert _times_s(load_specification([folder])) == (0.5, 1.0, 3.0)
    monkeypatch.chdir(folder.parent)
    assert _times_s(load_specification([Path("spec/all.yaml")])) == (0.5, 1.0, 3.0)
    monkeypatch.chdir(folder)
    assert _times_s(load_specification([Path("all.yaml")])) == (0.5, 1.0, 3.0)


def test_texts_and_objects_look_in_the_paths_of_modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(folder, "time_s\n1\n2\n")
    read = parse_specification(RECORDED, module_paths=[folder.parent, folder])
    assert _times_s(read) == (1.0, 2.0)
    arrivals = RecordedArrivals(file="traces/calls.csv")
    queries = [query.model_copy(update={"arrivals": arrivals}) for query in read.queries]
    made = Specification.of(tuple(read.pipelines.values()), read.infrastructure, queries, module_paths=[folder])
    assert made == read
    models = tuple(read.pipelines.values()), read.infrastructure, queries
    monkeypatch.chdir(folder)
    assert parse_specification(made.to_yaml()) == made == Specification.of(*models, module_paths=[folder.parent])
    monkeypatch.chdir(folder.parent)
    with pytest.raises(SpecError) as raised:
        Specification.of(*models, module_paths=[folder.parent])
    (fault,) = raised.value.faults
    assert fault.location == "Query calls: arrivals.file"
    assert fault.found == "'traces/calls.csv', which does not exist"


def test_only_the_rows_of_the_query_count(folder: Path) -> None:
    _write(folder, "time_s,query\n4,calls\n1,other\n2,calls\n3,calls\n")
    assert _times_s(load_specification([folder])) == (2.0, 3.0, 4.0)


def test_times_given_in_python_are_not_looked_for() -> None:
    arrivals = RecordedArrivals(file="nowhere.csv", times_s=(0.0, 1.0))
    read = parse_specification(FAULTLESS)
    queries = [query.model_copy(update={"arrivals": arrivals}) for query in read.queries]
    made = Specification.of(tuple(read.pipelines.values()), read.infrastructure, queries)
    assert made.queries[0].arrivals == arrivals


@pytest.mark.parametrize("times_s", [(), (1.0,), (1.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (0.0, float("nan"))])
def test_times_given_in_python_must_be_ones_that_can_be_played(times_s: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="found"):
        Query(
            name="q",
            pipeline="p",
            source="s",
            rate="1/s",
            arrivals={"kind": "recorded", "file": "x", "times_s": times_s},
        )


@pytest.mark.parametrize(
    ("text", "line", "field", "words"),
    [
        ("", 1, "header", ("an empty file", "the column time_s")),
        ("time,query\n1,calls\n", 1, "header", ("time, query", "the column time_s")),
        ("time_s\n1\nsoon\n2\n", 3, "time_s", ("'soon'", "seconds from 0 to 1e+09")),
        ("time_s\n1\n-1\n2\n", 3, "time_s", ("'-1'", "seconds from 0 to 1e+09")),
        ("time_s\n1\nnan\n2\n", 3, "time_s", ("'nan'", "seconds from 0 to 1e+09")),
        ("time_s,note\n1,x\n,x\n2,x\n", 3, "time_s", ("''", "seconds from 0 to 1e+09")),
        ("time_s\n", 0, "time_s", ("0 distinct times", "at least two")),
        ("time_s\n1\n1.0\n", 0, "time_s", ("1 distinct time,", "at least two")),
        ("time_s,query\n1,cals\n2,cals\n", 0, "time_s", ("0 distinct times of the query calls", "mean cals?")),
    ],
)
def test_faults_name_the_file_and_the_line(
    folder: Path, text: str, line: int, field: str, words: tuple[str, ...]
) -> None:
    file = _write(folder, text)
    with pytest.raises(SpecError) as raised:
        load_specification([folder])
    (fault,) = raised.value.faults
    assert (fault.file, fault.line, fault.field) == (str(file), line, field)
    for word in words:
        assert word in str(fault)


def test_faults_of_recordings_stand_behind_those_of_the_files_that_name_them(folder: Path) -> None:
    _write(folder, "time_s\nsoon\nlater\n1\n")
    (folder / "all.yaml").write_text(RECORDED.replace("source: phone", "source: phones"))
    with pytest.raises(SpecError) as raised:
        load_specification([folder])
    assert [(fault.line, fault.field) for fault in raised.value.faults] == [
        (65, "spec.source"),
        (2, "time_s"),
        (3, "time_s"),
    ]


def test_a_missing_file_is_a_fault_of_the_field_with_a_near_name(folder: Path) -> None:
    (folder / "traces" / "call.csv").write_text("time_s\n1\n2\n")
    with pytest.raises(SpecError) as raised:
        load_specification([folder])
    (fault,) = raised.value.faults
    assert (fault.file, fault.line, fault.field) == (str(folder / "all.yaml"), 67, "spec.arrivals.file")
    assert str(folder / "traces" / "calls.csv") in fault.expected
    assert fault.hint == "did you mean call.csv?"


def test_what_is_no_text_is_a_fault(folder: Path) -> None:
    (folder / "traces" / "calls.csv").write_bytes(b"time_s\n\xff\n")
    with pytest.raises(SpecError, match="a readable CSV file"):
        load_specification([folder])


def test_what_cannot_be_opened_is_told_without_numbers(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"found No such file or directory, expected a readable CSV file"):
        read_arrival_rows(tmp_path / "nope.csv", ["time_s"])


def test_the_times_count_in_the_fingerprint_and_the_layout_does_not(folder: Path) -> None:
    _write(folder, "time_s\n1\n2\n")
    original = load_specification([folder])
    _write(folder, "time_s,note\n2.0,x\n1.0,y\n")
    assert load_specification([folder]).fingerprint() == original.fingerprint()
    _write(folder, "time_s\n1\n2.5\n")
    assert load_specification([folder]).fingerprint() != original.fingerprint()


def test_validate_reads_the_recording(folder: Path) -> None:
    _write(folder, "time_s\n1\n2\n")
    done = CliRunner().invoke(app, ["validate", "--no-operators", str(folder)])
    assert (done.exit_code, "all is well" in done.output) == (0, True)
    _write(folder, "time_s\n1\nsoon\n")
    done = CliRunner().invoke(app, ["validate", "--no-operators", str(folder)])
    assert isinstance(done.exception, SpecError)
