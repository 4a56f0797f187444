"""User code that exits, crashes, hangs, prints or changes its process: the command goes on, and says what happened."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import psutil
import pytest

from circinus.operators.user_code import user_code
from circinus.profiling.settings import PROFILING
from cli_runner import run_circinus
from process_ends import has_ended

pytestmark = pytest.mark.slow  # every test starts processes

SPECIFICATION = """
apiVersion: circinus/v1
kind: Pipeline
metadata: {name: p}
spec:
  operators: [{name: double, uses: "harmful:double", cpus: 0.5}]
  metric: {name: right, uses: "harmful:right"}
  dataset: {uses: "harmful:items"}
"""

SOURCE = """
import ctypes, os, sys, time
from circinus.operators import Item, operator

@operator
def double(value):
    in_operator()
    return 2 * value

def items():
    in_dataset()
    return [Item(str(number), number, 2 * number) for number in range(10)]

def right(output, truth):
    in_metric()
    return float(output == truth)

def harmless():
    pass

in_import = in_operator = in_dataset = in_metric = harmless
"""

FAILURES = {
    "sys.exit(3)": "SystemExit: 3",
    "os._exit(3)": "exited with code 3",
    "os.abort()": "was killed by SIGABRT",
    "ctypes.string_at(0)": "was killed by SIGSEGV",
    "os.closerange(0, 256)": "exited with code 1",
    "raise BaseException('evil')": "BaseException: evil",
    "print('x' * 5_000_000); raise ValueError('evil')": "ValueError: evil",
    "while True: pass": "timed out after 0.3 s",
    "os.fork() and os._exit(3) or keep(os.getpid())": "exited with code 3",
}
"""Harm -> part of the reason."""
HARMLESS = (
    "print('noise'); os.system('echo noise')",
    "os.closerange(1, 2)",
    "os.chdir('/')",
    "time.time = time.monotonic = time.perf_counter = lambda: 0.0",
    "os.fork() or keep(os.getpid())",
)
HARM = """
def keep(process):
    with open({pids!r}, "a") as file:
        file.write(f"{{process}}\\n")
    time.sleep(600)

def {place}():
    {line}
"""


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a profile of harmless code."""
    folder = tmp_path_factory.mktemp("profiled")
    (folder / "p.yaml").write_text(SPECIFICATION, encoding="utf-8")
    (folder / "harmful.py").write_text(SOURCE, encoding="utf-8")
    assert _profile(folder)[0] == 0
    return folder


@pytest.fixture
def folder(profiled: Path, tmp_path: Path) -> Iterator[Path]:
    """Yield a copy of that folder, and check that no process of its code is left."""
    copied = copytree(profiled, tmp_path / "application")
    yield copied
    user_code([copied]).close()
    pids = copied / "pids"
    processes = map(int, pids.read_text(encoding="utf-8").split()) if pids.exists() else ()
    left = [psutil.Process(process) for process in processes if psutil.pid_exists(process)]
    assert all(map(has_ended, left))


def _profile(folder: Path, *, verb: str = "profile") -> tuple[int, Any]:
    """Return the exit code of a verb, and the only document that it printed."""
    run = run_circinus(verb, "--json", cwd=folder)
    assert "Traceback" not in run.stderr
    return run.returncode, json.loads(run.stdout)


def _harm(folder: Path, place: str, line: str) -> None:
    harm = HARM.format(pids=str(folder / "pids"), place=place, line=line)
    (folder / "harmful.py").write_text(f"{SOURCE}{harm}\nin_import()\n", encoding="utf-8")


def _committed(folder: Path) -> set[tuple[Any, ...]]:
    """Return the measurements in the store."""
    with sqlite3.connect(folder / ".circinus" / "profiles.sqlite") as store:
        tables = ("service", "output", "score", "dataset_item")
        return {
            (table, *row[:2]) for table in tables for row in store.execute(f"SELECT * FROM {table}")
        }  # fmt: skip


@pytest.mark.parametrize("place", ["in_operator", "in_metric", "in_dataset"])
@pytest.mark.parametrize(("line", "reason"), FAILURES.items())
def test_harm_becomes_one_reason(
    folder: Path, place: str, line: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "timed out" in reason:
        short = replace(PROFILING, operator_timeout_s=0.3)
        monkeypatch.setattr("circinus.profiling.profiler.PROFILING", short)
        monkeypatch.setattr("circinus.profiling.dataset.items.PROFILING", short)
        monkeypatch.setattr("circinus.profiling.dataset.scorer.PROFILING", short)
    before = _committed(folder)
    _harm(folder, place, line)
    code, document = _profile(folder)
    assert code == 1
    if place == "in_dataset":
        assert document["data"]["code"] == "dataset.failed"
        assert reason in document["data"]["message"]
    else:
        ((failure,),) = (profile["failed"] for profile in document["data"])
        assert reason in failure["reason"]
    assert before <= _committed(folder)


@pytest.mark.parametrize("place", ["in_operator", "in_metric", "in_dataset", "in_import"])
@pytest.mark.parametrize("line", HARMLESS)
def test_changes_of_a_process_stay_in_it(folder: Path, place: str, line: str) -> None:
    before, here = _committed(folder), os.getcwd()
    _harm(folder, place, line)
    code, document = _profile(folder)
    assert (code, document["kind"], os.getcwd()) == (0, "profile", here)
    assert before <= _committed(folder)


@pytest.mark.parametrize(("line", "reason"), FAILURES.items())
def test_harm_at_the_import_is_a_diagnostic(
    folder: Path, line: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "timed out" in reason:
        monkeypatch.setattr("circinus.operators.user_code.IMPORT_TIMEOUT_S", 0.3)
    _harm(folder, "in_import", line)
    code, document = _profile(folder, verb="validate")
    assert (code, document["data"]["code"]) == (2, "specification.invalid_value")
    assert {fault["field"] for fault in document["data"]["diagnostics"]} == {
        "spec.operators[0].uses", "spec.metric.uses", "spec.dataset.uses"
    }  # fmt: skip
    assert all(reason in str(fault) for fault in document["data"]["diagnostics"])
