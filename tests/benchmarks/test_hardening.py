"""Attackers can see faults: each kind of bad end is reported as such, and mutations are seeded."""

from __future__ import annotations

import faulthandler
import io
import json
import os
import pickle
import runpy
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmarks.hardening import files as hostile_files
from benchmarks.hardening.bounded_worker import BoundedRun, Ending, Program, bounded, command, preload
from benchmarks.hardening.environment import Surroundings, bounded_in
from benchmarks.hardening.files import TARGETS, FileInput, Target, note
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.hostile_http import RawRequest, held_until_closed, hostile_request, judged, sent
from benchmarks.hardening.mutations import (
    hostile_array,
    hostile_pickle,
    mutate_database,
    mutated_bytes,
    mutated_json,
    mutated_lines,
)
from benchmarks.hardening.starter import StarterApplication
from rich.console import Console

_ERROR = {
    "schema_version": 2,
    "kind": "error",
    "data": {"code": "plan.damaged", "location": "plan.json", "message": ""},
}


def _raises() -> None:
    raise ValueError("on purpose")


def _hangs() -> None:
    while True:
        time.sleep(60.0)


def _allocates() -> None:
    held = [bytes(os.urandom(1)) * 2**20 for _ in range(600)]
    assert held


def _crashes() -> None:
    faulthandler.disable()  # which the test runner enables
    os.kill(os.getpid(), signal.SIGSEGV)


def _says(**changes: str) -> Program:
    def program() -> None:
        print(json.dumps({**_ERROR, "data": {**_ERROR["data"], **changes}}))  # type: ignore[dict-item]
        raise SystemExit(2)

    return program


@pytest.mark.parametrize(
    ("program", "ending"),
    [
        (lambda: None, Ending.OK),
        (_says(), Ending.MESSAGE),
        (_says(location=""), Ending.VAGUE),
        (_says(code="unspecified"), Ending.VAGUE),
        (_says(code="usage.invalid_value", location=""), Ending.MESSAGE),
        (_raises, Ending.TRACEBACK),
        (_hangs, Ending.HANG),
        (_allocates, Ending.MEMORY),
        (_crashes, Ending.CRASH),
    ],
)
def test_every_end_of_a_run_is_told_from_the_others(program: Program, ending: Ending) -> None:
    ((_, run),) = bounded([(0, program)], hang_s=1.0 if program is _hangs else 60.0)
    assert run.ending is ending, run


def test_a_run_that_waits_for_processors_has_not_hung() -> None:
    def computes() -> None:
        start_s = time.process_time()
        while time.process_time() - start_s < 1.0:
            pass

    count = 3 * (os.cpu_count() or 1)
    runs = [run for _, run in bounded(((number, computes) for number in range(count)), at_once=count, hang_s=2.0)]
    assert max(run.wall_s for run in runs) > 2.0  # beyond the limit: three at a time on each processor
    assert {run.ending for run in runs} == {Ending.OK}


def test_a_run_that_ended_beside_one_that_hung_has_not_hung() -> None:
    runs = dict(bounded([("hung", _hangs), ("ended", lambda: None)], at_once=2, hang_s=1.0))
    assert {name: run.ending for name, run in runs.items()} == {"hung": Ending.HANG, "ended": Ending.OK}


def test_runs_come_back_with_their_keys_and_leave_no_process() -> None:
    def writes(number: int) -> Program:
        return lambda: print(number)

    before = psutil.Process().children()
    runs = dict(bounded(((number, writes(number)) for number in range(7)), at_once=3))
    assert {key: int(run.stdout) for key, run in runs.items()} == {number: number for number in range(7)}
    assert psutil.Process().children() == before


def test_a_verb_runs_as_a_command_does(tmp_path: Path) -> None:
    programs = [
        ("init", command(tmp_path, "init", "--json")),
        ("damaged", command(tmp_path, "explain", "x.json", "--json")),
    ]
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    runs = dict(bounded(programs))
    assert (runs["init"].ending, runs["damaged"].ending) == (Ending.OK, Ending.MESSAGE)
    assert (tmp_path / "pipeline.yaml").is_file()


def test_no_module_of_a_user_is_imported_in_the_parent(tmp_path: Path) -> None:
    (tmp_path / "users_own.py").write_text("import colorsys", encoding="utf-8")
    sys.modules.pop("colorsys", None)

    def imports() -> None:
        sys.path.insert(0, str(tmp_path))
        __import__("users_own")

    preload(imports)
    assert "colorsys" in sys.modules
    assert "users_own" not in sys.modules


@pytest.mark.parametrize("hostile", [hostile_pickle, hostile_array])
def test_a_marker_shows_that_data_was_run(tmp_path: Path, hostile: object) -> None:
    data = hostile(tmp_path / "marker")  # type: ignore[operator]
    assert not (tmp_path / "marker").exists()
    if hostile is hostile_array:
        (tmp_path / "array.npy").write_bytes(data)
        np.load(tmp_path / "array.npy", allow_pickle=True)
    else:
        pickle.loads(data)
    assert (tmp_path / "marker").is_dir()


def test_mutations_are_seeded_and_differ() -> None:
    text = json.dumps({"kind": "PlanSet", "rows": [{"a": 1.5, "b": "x"}, None]})
    table = "time_s,query\n0.5,q\n1.5,q\n"
    cases = (mutated_json, text), (mutated_json, "[bold]"), (mutated_lines, table), (mutated_bytes, text.encode())
    for mutate, data in cases:
        first, second = ([mutate(data, np.random.default_rng(seed)) for seed in range(60)] for _ in range(2))
        assert first == second
        assert len(set(first)) > 40


def test_a_database_changes_and_its_copy_does_not(tmp_path: Path) -> None:
    whole = tmp_path / "whole.sqlite"
    with closing(sqlite3.connect(whole)) as database:
        database.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, name TEXT NOT NULL, output BLOB)")
        database.executemany("INSERT INTO runs VALUES (?, ?, ?)", [(n, '{"a": 1}', b"123") for n in range(20)])
        database.commit()
    kinds, contents = set(), set()
    for seed in range(60):
        copy = tmp_path / "copy.sqlite"
        shutil.copy(whole, copy)
        kinds.add(mutate_database(copy, np.random.default_rng(seed), tmp_path / "marker"))
        contents.add(copy.read_bytes())
    assert kinds == {"bytes", "schema", "values"}
    assert len(contents) > 30


def test_faults_are_listed_with_the_input_that_repeats_them() -> None:
    findings = Findings("files")
    note(findings, "plan", "plan/3", BoundedRun(1, "", "Traceback (most recent call last)\nKeyError: 7", 0.1, 0))
    note(findings, "plan", "plan/4", BoundedRun(1, "", "Traceback (most recent call last)\nKeyError: 8", 0.1, 0))
    note(findings, "plan", "plan/5", BoundedRun(2, "", "plan.json: not a plan", 0.1, 0))
    figures, rows = findings.result(Console(file=open(os.devnull, "w", encoding="utf-8")))  # noqa: SIM115
    assert {figure.name: figure.value for figure in figures}["files: tracebacks"] == 2.0
    common = {"part": "files", "kind": "plan", "ending": "traceback"}
    assert rows[-1] == {**common, "input": "plan/3", "text": "KeyError: 7", "count": 2}


def _plant(fault: str) -> Callable[[Path, np.random.Generator, Path], None]:
    """Return a mutation in whose place the verb has a fault: it runs in the process of the verb."""

    def verb(marker: Path) -> None:
        if fault == "hang":
            _hangs()
        if fault == "traceback":
            _raises()
        if fault == "marker":
            marker.mkdir()
        print("{}" if fault == "none" else "no JSON" if fault == "text" else '{"kind": "error"}')

    def mutate(path: Path, rng: np.random.Generator, marker: Path) -> None:
        runpy.run_module = lambda *_, **__: verb(marker)  # type: ignore[assignment]

    return mutate


def test_planted_faults_of_verbs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "application").mkdir()
    planted = ("hang", "traceback", "marker", "text", "none")
    targets = tuple(Target(fault, "", _plant(fault), (("status",),), 0.2) for fault in planted)
    monkeypatch.setattr(hostile_files, "TARGETS", targets)
    monkeypatch.setattr(hostile_files, "prepared", lambda: StarterApplication(tmp_path / "application"))
    monkeypatch.setattr(hostile_files, "warm_up", lambda *_: None)
    monkeypatch.setattr(hostile_files, "bounded", partial(bounded, hang_s=3.0))
    monkeypatch.setattr(hostile_files, "_LEAST", 1)
    figures, rows = hostile_files.files(5, 0, None, tmp_path / "journal.jsonl", Console(file=io.StringIO()))
    values = {figure.name.removeprefix("files: "): figure.value for figure in figures}
    assert values["inputs"] == 5.0
    assert values["hung for more than 10 s"] == 1.0
    assert values["tracebacks"] == 1.0
    assert values["data that ran code"] == 1.0
    endings = {row["kind"]: row for row in rows if "inputs" in row}
    assert endings["none"]["ok"] == 1
    assert "--json" in FileInput(targets[3], 0, 0).arguments
    assert endings["text"][Ending.VAGUE.value] == values["faults without a code or a place"] == 1


def test_the_peak_of_a_run_is_its_own() -> None:
    def peak_bytes() -> int:
        ((_, run),) = bounded([(0, lambda: None)])
        return run.peak_bytes

    before = peak_bytes()
    held = bytearray(os.urandom(1)) * (300 * 2**20)
    assert abs(peak_bytes() - before) < 100 * 2**20
    assert held


def test_every_kind_of_file_has_a_share() -> None:
    assert sum(target.share for target in TARGETS) == pytest.approx(1.0)
    assert len({target.name for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize(
    ("answer", "ending"),
    [
        (b"", Ending.OK),
        (b"HTTP/1.1 200 OK\r\n\r\n", Ending.OK),
        (b'HTTP/1.1 404 Not Found\r\n\r\n{"error": "no query", "code": "query.unknown"}', Ending.MESSAGE),
        (b'HTTP/1.1 400 Bad Request\r\n\r\n{"error": "no"}', Ending.VAGUE),
        (b"HTTP/1.1 400 Bad Request\r\n\r\nno", Ending.VAGUE),
        (b"nonsense", Ending.VAGUE),
        (
            b'HTTP/1.1 500 Error\r\n\r\n{"error": "the engine failed with KeyError", "code": "engine.failed"}',
            Ending.TRACEBACK,
        ),
    ],
)
def test_answers_are_judged(answer: bytes, ending: Ending) -> None:
    assert judged(answer)[0] is ending


@pytest.mark.parametrize(
    "kind", ["line", "headers", "body", "chunks", "bytes", "start", "client", "pipelined", "valid"]
)
def test_a_server_that_never_answers_hangs(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("benchmarks.hardening.hostile_http.HANG_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert sent(server.getsockname(), RawRequest(kind, b"POST / HTTP/1.1\r\n\r\n"))[0] is Ending.HANG
        assert held_until_closed(server.getsockname(), b"POST", 0.3) is Ending.HANG


@pytest.mark.parametrize(("kind", "ending"), [("body", Ending.VAGUE), ("bytes", Ending.OK)])
def test_whole_requests_need_an_answer_before_the_end(kind: str, ending: Ending) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(sent, server.getsockname(), RawRequest(kind, b"POST / HTTP/1.1\r\n\r\n"))
        connection, _ = server.accept()
        connection.recv(100)
        connection.close()
        assert outcome.result()[0] is ending


def test_hostile_requests_are_seeded_and_of_all_kinds() -> None:
    first, second = ([hostile_request(np.random.default_rng(seed)) for seed in range(300)] for _ in range(2))
    assert first == second
    assert len({request.kind for request in first}) == 9


@pytest.mark.parametrize(
    ("surroundings", "text"),
    [
        (Surroundings("x", {"GIVEN": "7", "HOME": None}), "7 None"),
        (Surroundings("x", columns=33), "33"),
        (Surroundings("x", limits=((7, 12),)), "OSError"),
        (Surroundings("x", streams={2: "/dev/full"}), ""),
    ],
)
def test_surroundings_reach_the_command(surroundings: Surroundings, text: str, tmp_path: Path) -> None:
    program = "import os; print(os.environ.get('GIVEN'), os.environ.get('HOME'))"
    if surroundings.columns:
        program = "import os; print(os.get_terminal_size().columns)"
    elif surroundings.limits:
        program = "held = [open('/dev/null') for _ in range(20)]"
    elif surroundings.streams:
        program = "import sys; sys.stderr.write('x')"
    variables = {name: value for name, value in os.environ.items() if name not in surroundings.variables}
    variables |= {name: value for name, value in surroundings.variables.items() if value is not None}
    run = bounded_in(surroundings, [sys.executable, "-c", program], tmp_path, variables)
    assert text in run.stdout + run.stderr
    if surroundings.streams:
        assert not run.stderr
