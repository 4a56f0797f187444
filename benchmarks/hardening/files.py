"""Hostile files: plans, profile stores, traces, states, arrivals and leftovers of engines, read by real verbs."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.hardening.bounded_worker import BoundedRun, Ending, Program, bounded, command, preload
from benchmarks.hardening.findings import Findings
from benchmarks.hardening.journal import Journal
from benchmarks.hardening.mutations import (
    PICKLED,
    mutate_database,
    mutated_bytes,
    mutated_json,
    mutated_lines,
    plant_pickles,
)
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
from benchmarks.harness.results import Figure

Mutation = Callable[[Path, np.random.Generator, Path], None]
"""Changes a file or a folder in place; the last argument is the marker that running code leaves."""
_LEAST = 8
"""Least number of inputs of a target."""
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


_PLANTED = "recorded outputs"
_PLANTED_SHARE = 0.9
"""Aim: share of planted pickles that a verb comes to, or their refusal would prove nothing."""
_READING = (("explain", PLAN), ("simulate", PLAN), ("render", "kubernetes", PLAN))
_FROM_TRACE = ("profile", "--trace", TRACE, "--store", "other.sqlite", "--budget", "1s")
TARGETS = (
    Target("plan", PLAN, _rewritten(mutated_json), (*_READING, ("forget",), ("load", PLAN)), 0.34),
    Target("plan in a report", PLAN, _rewritten(mutated_json), (("report", PLAN),), 0.02),
    Target("store", STORE, _database, (("simulate", PLAN), ("profile", "--show"), ("forget",)), 0.22),
    Target("store in a plan", STORE, _database, (("plan", "--budget", "1s"),), 0.02),
    Target(_PLANTED, STORE, plant_pickles, (("profile", "--budget", "1s"),), 0.02),
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
    """Mutated file and the verb that reads it."""

    target: Target
    number: int
    seed: int

    @property
    def name(self) -> str:
        """Name by which the input can be repeated."""
        return f"{self.target.name}/{self.number}"

    def program(self, application: StarterApplication, folder: Path, markers: Path) -> Program:
        """Return the program that prepares a folder of its own and runs the verb in it."""
        rng, marker = self._rng(0), markers / self.name.replace("/", "-")

        def program() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            application.copy(folder)
            self.target.mutate(folder / self.target.file, rng, marker)
            command(folder, *self.arguments)()

        return program

    @property
    def arguments(self) -> tuple[str, ...]:
        """Verb, with `--json` in most inputs."""
        rng = self._rng(1)
        chosen = self.target.verbs[int(rng.integers(len(self.target.verbs)))]
        as_json = ("--json",) if rng.random() < 0.8 else ()
        return (*chosen, *_AT_LAST.get(chosen[0], ()), *as_json)

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.target.name.encode()), self.number, stream])


def files(inputs: int, seed: int, only: str | None, journal: Path, console: Console) -> PartResult:
    """Run verbs on mutated files.

    Args:
        inputs: number of inputs of all targets.
        seed: of the mutations.
        only: name of one input to repeat, with its output.
        journal: file of the outcomes; those of an interrupted run count.
        console: prints.
    """
    with tempfile.TemporaryDirectory(prefix="circinus-files-") as name:
        scratch = Path(name)
        markers = scratch / "markers"
        markers.mkdir()
        application = prepared()
        warm_up(application, scratch)
        findings = Findings("files", journal=None if only else Journal(journal, seed=seed))
        drawn = [given for given in _drawn(inputs, seed, only) if given.name not in findings.names]
        for given, run in bounded(_programs(drawn, application, scratch, markers)):
            own = given.name.replace("/", "-")
            shutil.rmtree(scratch / own, ignore_errors=True)
            has_run = (markers / own).exists()
            is_reached = has_run or PICKLED in run.stdout + run.stderr
            note(findings, given.target.name, given.name, run, given.arguments, is_reached=is_reached, has_run=has_run)
            if only:
                console.print(run.stdout[-4000:], run.stderr[-4000:], markup=False, highlight=False)
        figures, rows = findings.result(console, has_markers=True)
    reached, planted = findings.reached[_PLANTED], findings.endings[_PLANTED].total()
    figures.append(
        Figure("files: planted pickles that were reached", reached / planted if planted else math.nan, _PLANTED_SHARE,
               "higher", "of stores", f"{reached} of {planted}; refused by name, or run")
    )  # fmt: skip
    return figures, rows


_WARM_UP_S = 120.0
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
    for verb, run in bounded(programs, hang_s=_WARM_UP_S):
        is_expected = _code(run) in _BASELINE or verb[0] == "destroy"
        if (run.ending is not Ending.OK and not is_expected) or not ending(run, (*verb, "--json")).is_good:
            raise RuntimeError(f"`circinus {' '.join(verb)}` fails on unchanged files: {run}")


def ending(run: BoundedRun, arguments: Sequence[str]) -> Ending:
    """Return how a verb ended: a text for people needs no code, and with `--json` any text is a fault."""
    if "--json" in arguments:
        is_empty = run.documents == [] and run.code == 0 and arguments[0] == "events"
        return Ending.VAGUE if run.ending.is_good and not run.documents and not is_empty else run.ending
    is_text = run.code in (1, 2, 3) and run.last_line and not run.stdout.lstrip().startswith("{")
    return Ending.MESSAGE if run.ending is Ending.VAGUE and is_text else run.ending


def note(
    findings: Findings, kind: str, name: str, run: BoundedRun, arguments: Sequence[str] = (), **details: bool
) -> None:
    """Add the run of a verb."""
    details_of_run = {"text": run.last_line, "code": _code(run), "wall_s": run.wall_s, "peak_bytes": run.peak_bytes}
    findings.add(kind, ending(run, arguments), name=name, **details_of_run, **details)


def _code(run: BoundedRun) -> str:
    """Return the code of the error that a verb printed as JSON."""
    with suppress(LookupError, TypeError):
        document = (run.documents or [None])[-1]
        return str(document["data"]["code"]) if document["kind"] == "error" else ""
    return ""


def _drawn(inputs: int, seed: int, only: str | None) -> Iterator[FileInput]:
    for target in TARGETS:
        for number in range(max(_LEAST, round(inputs * target.share))):
            given = FileInput(target, number, seed)
            if only in (None, given.name):
                yield given


def _programs(
    drawn: Sequence[FileInput], application: StarterApplication, scratch: Path, markers: Path
) -> Iterator[tuple[FileInput, Program]]:
    for given in drawn:
        yield given, given.program(application, scratch / given.name.replace("/", "-"), markers)
