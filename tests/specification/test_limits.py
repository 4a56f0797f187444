"""Maxima of specifications, and files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fault_cases import FAULTLESS

import circinus as c
from circinus.specification.arrival_files import read_arrival_rows
from circinus.specification.limits import MAX_FAULTS, MAX_FILE_BYTES, MAX_INTEGER


def _faults(text: str) -> list[tuple[int, str]]:
    with pytest.raises(c.SpecError) as raised:
        c.parse_specification(text)
    return [(fault.line, fault.field) for fault in raised.value.faults]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("nodes: 3", "nodes: 1000000000", (17, "spec.pools[1].nodes")),
        ("nodes: 3", "nodes: {max: 1000000000}", (17, "spec.pools[1].nodes.max")),
        ("cpus: 8", "cpus: 1e300", (18, "spec.pools[1].cpus")),
        ("cpus: 8", f"cpus: 0x{'f' * 5_000}", (18, "spec.pools[1].cpus")),
        ("rate: 5/s", "rate: 1e12/s", (66, "spec.rate")),
        ("rate: 5/s", f"rate: 1.{'0' * 5_000}/s", (66, "spec.rate")),
        ("weight: 2", "risk: 1e-300", (67, "spec.risk")),
        ("weight: 2", "priority: 10000000000000000", (67, "spec.priority")),
        ("batch_sizes: [1, 4]", "batch_sizes: [1, 1000000000]", (46, "spec.operators[1].batch_sizes[1]")),
        ("choices: [1, 5]", f"choices: {list(range(2_000))}", (44, "spec.operators[1].knobs[1].choices")),
        ("choices: [1, 5]", 'choices: ["\\e[2J", 5]', (44, "spec.operators[1].knobs[1].choices[0]")),
        ("kind: Infrastructure", "kind: [Infrastructure]", (2, "kind")),
        ("nodes: 3", '"": 3', (17, "spec.pools[1].''")),
        ("nodes: 3", f"{'n' * 1_000}: 3", (17, f"spec.pools[1].{'n' * 60}...")),
    ],
    ids=lambda value: str(value)[:40],
)
def test_values_beyond_the_maxima_are_refused(old: str, new: str, fault: tuple[int, str]) -> None:
    assert fault in _faults(FAULTLESS.replace(old, new, 1))


def test_a_kind_that_is_a_list_is_refused_in_a_document_of_unclear_version(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: elsewhere\nkind: [Query]\n", encoding="utf-8")
    with pytest.raises(c.SpecError):
        c.load_specification([tmp_path])


def test_whole_numbers_of_many_digits_are_refused_in_python_too() -> None:
    with pytest.raises(ValueError, match="1329 bits"):
        c.Knob(name="k", choices=[1, 10**400])
    assert c.Knob(name="k", choices=[MAX_INTEGER]).choices == (MAX_INTEGER,)


def test_of_very_many_faults_the_first_are_told() -> None:
    faults = _faults("---\n".join(f"kind: Query{number}\n" for number in range(1_000)))
    assert len(faults) == MAX_FAULTS + 1


def test_what_is_no_regular_file_or_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for name in ("pipe", "loop", "large", "n" * 300):
        with pytest.raises(c.SpecError) as raised:
            c.load_specification([tmp_path / name])
        assert [fault.field for fault in raised.value.faults] == ["(file)"]
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(c.SpecError):
            read_arrival_rows(path, ("time_s",))


@pytest.mark.parametrize("content", [b"time_s\n0\n\xff\n", b"time_s\n0\n" + b"1" * 200_000, b"time_s\n0\n1e300\n"])
def test_faults_of_arrivals_have_their_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    arrivals = "arrivals: {kind: recorded, file: a.csv}"
    with pytest.raises(c.SpecError) as raised:
        c.parse_specification(FAULTLESS.replace("weight: 2", arrivals), module_paths=[tmp_path])
    assert [fault.line > 0 for fault in raised.value.faults] == [True]


def test_knobs_with_many_different_conditions_are_refused() -> None:
    switches = [c.Knob(name=f"s{number}", choices=[False, True]) for number in range(17)]
    hidden = [c.Knob(name=f"h{number}", choices=[1, 2], only_if={f"s{number}": [True]}) for number in range(17)]
    with pytest.raises(ValueError, match="17 different conditions"):
        c.OperatorSpec(name="o", uses="m:f", knobs=[*switches, *hidden])
