"""Hostile files: plans, profile stores, traces, states, arrivals and leftovers of engines, read by real verbs."""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.hardening.bounded_worker import BoundedRun, Ending, Program, bounded, command, preload
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.mutations import mutate_database, mutated_bytes, mutated_json, mutated_lines
from benchmarks.hardening.starter import (
    ARRIVALS,
    ENGINE,
    LOAD,
    PLAN,
    QUERY,
    STATE,
    STORE,
    TRACE,
    StarterApplication,
    prepared,
)
from benchmarks.harness.benchmark import PartResult

Mutation = Callable[[Path, np.random.Generator, Path], None]
"""Changes a file or a folder in place; the last argument is the marker that running code leaves."""
_AT_LAST = {"simulate": ("--duration", "20s"), "report": ("--what-if", "0s")}
_CODE = "import os\nos.makedirs({marker!r}, exist_ok=True)\n"


@dataclass(frozen=True)
class Target:
    """Kind of file, its mutation, and the verbs that read it."""

    name: str
    file: str
    """Path within the application; empty: the whole folder."""
    mutate: Mutation
    verbs: Sequence[tuple[str, ...]]
    share: float
    """Share of the inputs."""


def _rewritten(change: Callable[[str, np.random.Generator], bytes]) -> Mutation:
    def mutate(path: Path, rng: np.random.Generator, marker: Path) -> None:
        path.write_bytes(change(path.read_text(encoding="utf-8"), rng))

    return mutate


def _database(path: Path, rng: np.random.Generator, marker: Path) -> None:
    mutate_database(path, rng, marker)


def _leftovers(folder: Path, rng: np.random.Generator, marker: Path) -> None:
    """Change one file of an ended engine, or put a link or a folder in its place."""
    names = ("desired.json", "http", "circinus-engine.lock", "log", "socket", "load-test.lock")
    path, kind = folder / names[int(rng.integers(len(names)))], int(rng.integers(4))
    if kind == 0 and path.is_file():
        path.unlink()
        path.symlink_to(("/dev/zero", "/dev/null", "/etc/hostname", ".", "nowhere")[int(rng.integers(5))])
    elif kind == 1 and path.is_file():
        path.unlink()
        path.mkdir()
    elif path.name == "desired.json" and path.is_file():
        path.write_bytes(mutated_json(path.read_text(encoding="utf-8"), rng))
    else:
        path.write_bytes(mutated_bytes(path.read_bytes() if path.is_file() else b"127.0.0.1:1", rng))


def _running_code(folder: Path, rng: np.random.Generator, marker: Path) -> None:
    """Let all code of the application leave a marker; now and then the plan names a specification elsewhere."""
    for path in (folder / "starter").glob("*.py"):
        path.write_text(_with_marker(path.read_text(encoding="utf-8"), marker), encoding="utf-8")
    if rng.random() < 0.5:
        other = folder / "other"
        other.mkdir()
        for path in (*folder.glob("*.yaml"), folder / "starter", folder / ARRIVALS):
            shutil.move(path, other / path.name)
        plan = folder / PLAN
        document = json.loads(plan.read_text(encoding="utf-8"))
        document["files"] = [f"other/{Path(file).name}" for file in document["files"]]
        plan.write_text(json.dumps(document), encoding="utf-8")


def _with_marker(code: str, marker: Path) -> str:
    """Add code that creates the marker, behind imports from the future."""
    future = "from __future__ import annotations\n"
    head, found, rest = code.partition(future)
    return (
        f"{head}{found}{_CODE.format(marker=str(marker))}{rest}" if found else _CODE.format(marker=str(marker)) + code
    )


_READING = (("explain", PLAN), ("simulate", PLAN), ("render", "kubernetes", PLAN))
_FROM_TRACE = ("profile", "--trace", TRACE, "--store", "other.sqlite", "--budget", "1s")
TARGETS = (
    Target("plan", PLAN, _rewritten(mutated_json), (*_READING, ("forget",), ("load", PLAN)), 0.34),
    Target("plan in a report", PLAN, _rewritten(mutated_json), (("report", PLAN),), 0.02),
    Target("store", STORE, _database, (("simulate", PLAN), ("profile", "--show"), ("forget",)), 0.26),
    Target("trace", TRACE, _database, (_FROM_TRACE,), 0.1),
    Target("state", STATE, _database, (("events",), ("events", "--kind", "step")), 0.1),
    Target("state in a report", STATE, _database, (("report", PLAN),), 0.01),
    Target("leftovers", ENGINE, _leftovers, (("status",), ("destroy",), ("load", PLAN), ("request", QUERY)), 0.1),
    Target("load test", LOAD, _rewritten(mutated_json), (("report", PLAN, "--load", LOAD),), 0.02),
    Target("arrivals", ARRIVALS, _rewritten(mutated_lines), (("validate", "--no-operators"),), 0.04),
    Target("code", "", _running_code, (*_READING, ("report", PLAN), ("events",), ("validate", "--no-operators")), 0.01),
)


@dataclass(frozen=True)
class FileInput:
    """One mutated file and the verb that reads it."""

    target: Target
    number: int
    seed: int

    @property
    def name(self) -> str:
        """Name by which the input can be repeated."""
        return f"{self.target.name}/{self.number}"

    def program(self, application: StarterApplication, folder: Path, markers: Path) -> Program:
        """Return the program that prepares a folder of its own and runs the verb in it."""
        rng = np.random.default_rng([self.seed, zlib.crc32(self.target.name.encode()), self.number])
        arguments = self.arguments(rng)
        marker = markers / self.name.replace("/", "-")

        def program() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            application.copy(folder)
            self.target.mutate(folder / self.target.file, rng, marker)
            command(folder, *arguments)()

        return program

    def arguments(self, rng: np.random.Generator) -> tuple[str, ...]:
        """Draw the verb and whether it prints JSON."""
        chosen = self.target.verbs[int(rng.integers(len(self.target.verbs)))]
        as_json = ("--json",) if rng.random() < 0.8 else ()
        return (*chosen, *_AT_LAST.get(chosen[0], ()), *as_json)


def files(inputs: int, seed: int, only: str | None, console: Console) -> PartResult:
    """Run verbs on mutated files.

    Args:
        inputs: number of inputs of all targets.
        seed: of the mutations.
        only: name of one input to repeat, with its output.
        console: prints.
    """
    with tempfile.TemporaryDirectory(prefix="circinus-files-") as name:
        scratch = Path(name)
        markers = scratch / "markers"
        markers.mkdir()
        application = prepared()
        warm_up(application, scratch)
        findings = Findings("files")
        drawn = list(_drawn(inputs, seed, only))
        for given, run in bounded(_programs(drawn, application, scratch, markers)):
            shutil.rmtree(scratch / given.name.replace("/", "-"), ignore_errors=True)
            note(findings, given.target.name, given.name, run)
            if only:
                console.print(run.stdout[-4000:], run.stderr[-4000:], markup=False, highlight=False)
        return findings.result(console, markers)


_BASELINE = frozenset({"engine.killed", "engine.not_running"})
"""Codes of the faults of unchanged files: no engine runs."""


def warm_up(application: StarterApplication, scratch: Path) -> None:
    """Import what the verbs need, and check that each succeeds on unchanged files: or mutations would prove nothing.

    Raises:
        RuntimeError: a verb fails.
    """
    verbs = list(dict.fromkeys(verb for target in TARGETS for verb in target.verbs))

    def unchanged(verb: tuple[str, ...], folder: Path) -> Program:
        def program() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            command(application.copy(folder), *verb, *_AT_LAST.get(verb[0], ()), "--json")()

        return program

    programs = [(verb, unchanged(verb, scratch / f"unchanged-{number}")) for number, verb in enumerate(verbs)]
    preload(*(program for _, program in programs))
    for verb, run in bounded(programs):
        document = _document(run.stdout)
        is_expected = document.get("kind") == "error" and document["data"]["code"] in _BASELINE
        if run.ending is not Ending.OK and not is_expected and verb[0] != "destroy":
            raise RuntimeError(f"`circinus {' '.join(verb)}` fails on unchanged files: {run.stdout}{run.stderr}")


def note(findings: Findings, kind: str, name: str, run: BoundedRun) -> None:
    """Add the run of a verb; a text for people has no code, and counts as a message if it is there."""
    ending, code = run.ending, ""
    document = _document(run.stdout)
    if document.get("kind") == "error":
        code = str(document["data"].get("code", ""))
    elif ending is Ending.VAGUE and run.code in (1, 2, 3) and run.last_line and not run.stdout.lstrip().startswith("{"):
        ending = Ending.MESSAGE
    findings.add(kind, ending, name=name, text=run.last_line, code=code, wall_s=run.wall_s, peak_bytes=run.peak_bytes)


def _document(stdout: str) -> dict[str, Any]:
    try:
        document = json.loads(stdout)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _drawn(inputs: int, seed: int, only: str | None) -> Iterator[FileInput]:
    for target in TARGETS:
        for number in range(max(8, round(inputs * target.share))):
            given = FileInput(target, number, seed)
            if only in (None, given.name):
                yield given


def _programs(
    drawn: Sequence[FileInput], application: StarterApplication, scratch: Path, markers: Path
) -> Iterator[tuple[FileInput, Program]]:
    for given in drawn:
        yield given, given.program(application, scratch / given.name.replace("/", "-"), markers)
