"""Duration, size and branch coverage of the daily test suite, here and at an earlier commit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from xml.etree import ElementTree

from rich.console import Console

from benchmarks.harness.benchmark import Benchmark, Option, Part, PartResult
from benchmarks.harness.results import ROOT, Figure
from circinus.specification.formatting import format_duration

_DAILY = ("--ignore=tests/benchmarks", "-m", "not models", "--numprocesses", "2", "--dist", "worksteal")
"""Arguments of pytest in `make test`."""
_EARLIER = ("--numprocesses", "2", "--dist", "loadfile")
"""Arguments of pytest in `make test` of commit 6cf36c8, the last one before there were levels."""
_COVERAGE = """[run]
branch = true
parallel = true
patch = subprocess
source_pkgs = circinus
data_file = {folder}/.coverage
sigterm = true
"""
_AIM_S = 480.0


@dataclass(frozen=True)
class SuiteRun:
    """Outcome of one run of the suite."""

    wall_s: float
    tests: int
    failed: int
    skipped: int
    branches: int | None = None
    """Number of branches in the package, or None without coverage."""
    covered_branches: int | None = None

    def row(self, part: str) -> dict[str, Any]:
        """Return the run as a row of the result file."""
        return {"part": part, **vars(self)}


def run_suite(root: Path, arguments: Sequence[str], *, with_coverage: bool) -> SuiteRun:
    """Run the tests of a checkout with this Python, and return the outcome.

    Args:
        root: folder of the checkout.
        arguments: arguments of pytest.
        with_coverage: whether to measure branch coverage, in subprocesses too.
    """
    with tempfile.TemporaryDirectory(prefix="circinus-suite-") as name:
        folder = Path(name)
        settings = folder / "coverage.ini"
        settings.write_text(_COVERAGE.format(folder=folder), encoding="utf-8")
        coverage = [sys.executable, "-m", "coverage"]
        pytest = ["pytest", *arguments, f"--junitxml={folder / 'junit.xml'}"]
        command = [*coverage, "run", f"--rcfile={settings}", "-m"] if with_coverage else [sys.executable, "-m"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(root / "src"), str(root))), "CI": "true"}
        environment["CIRCINUS_TEST_LEVEL"] = "daily"
        start_s = perf_counter()
        subprocess.run(
            [*command, *pytest],
            cwd=root,
            env=environment,
            check=False,  # failed tests are a result
            stdout=subprocess.DEVNULL,
        )
        wall_s = perf_counter() - start_s
        counts = ElementTree.parse(folder / "junit.xml").getroot()[0].attrib
        failed = int(counts["failures"]) + int(counts["errors"])
        tests, skipped = int(counts["tests"]), int(counts["skipped"])
        if not with_coverage:
            return SuiteRun(wall_s, tests, failed, skipped)
        subprocess.run([*coverage, "combine", "--quiet", f"--rcfile={settings}"], cwd=root, check=True)
        report = folder / "coverage.json"
        subprocess.run([*coverage, "json", "--quiet", f"--rcfile={settings}", "-o", str(report)], cwd=root, check=True)
        totals = json.loads(report.read_text(encoding="utf-8"))["totals"]
        return SuiteRun(wall_s, tests, failed, skipped, totals["num_branches"], totals["covered_branches"])


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Check out a commit of this repository into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="circinus-suite-") as name:
        root = Path(name) / "circinus"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
        subprocess.run(["git", "-C", str(root), "checkout", "--quiet", commit], check=True)
        yield root


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep `count` cores busy with processes of their own."""
    program = "while True: sum(range(10**6))"
    with ExitStack() as processes:
        for _ in range(count):
            process = processes.enter_context(subprocess.Popen([sys.executable, "-c", program]))
            processes.callback(process.kill)
        yield


def duration(console: Console) -> PartResult:
    """Time the daily suite on the machine as it is."""
    run = run_suite(ROOT, _DAILY, with_coverage=False)
    _print(console, "daily suite", run)
    note = "make test without installation; means something on a quiet machine only"
    figures = [
        Figure("suite", run.wall_s, _AIM_S, "lower", "s", note),
        Figure("tests", run.tests, None, "higher", "tests", f"{run.skipped} of them skipped"),
        Figure("failed tests", run.failed, 0.0, "lower", "tests"),
    ]
    return figures, [run.row("duration")]


def busy(runs: int, console: Console) -> PartResult:
    """Run the daily suite several times while two other processes keep both cores busy."""
    rows, failed = [], 0
    for _ in range(runs):
        with busy_processes(2):
            run = run_suite(ROOT, _DAILY, with_coverage=False)
        _print(console, "daily suite beside two busy processes", run)
        rows.append(run.row("busy"))
        failed += run.failed
    note = f"in {runs} runs beside two busy processes"
    return [Figure("failed tests on a busy machine", failed, 0.0, "lower", "tests", note)], rows


def coverage(before: str, console: Console) -> PartResult:
    """Compare branch coverage with that of the whole suite at an earlier commit."""
    now = run_suite(ROOT, _DAILY, with_coverage=True)
    _print(console, "coverage, daily suite", now)
    with checkout(before) as root:
        earlier = run_suite(root, _EARLIER, with_coverage=True)
    _print(console, f"coverage, whole suite of {before}", earlier)
    share, share_before = _covered(now), _covered(earlier)
    figures = [
        Figure("branch coverage of src", share, share_before, "higher", "of branches", f"aim: as in {before}"),
        Figure(f"branch coverage of src in {before}", share_before, None, "higher", "of branches"),
        Figure(f"tests in {before}", earlier.tests, None, "higher", "tests", f"{earlier.failed} of them failed"),
    ]
    return figures, [now.row("coverage"), earlier.row(f"coverage of {before}")]


def _covered(run: SuiteRun) -> float:
    assert run.branches, "a run with coverage"
    return (run.covered_branches or 0) / run.branches


def _print(console: Console, title: str, run: SuiteRun) -> None:
    covered = "" if not run.branches else f", {_covered(run):.2%} of {run.branches} branches covered"
    console.print(
        f"{title}: {run.tests} tests, {run.failed} failed, {format_duration(run.wall_s)}{covered}", highlight=False
    )


BENCHMARK = Benchmark(
    options=(
        Option("runs", 3, "runs beside two busy processes", quick=1),
        Option("before", "6cf36c8", "commit to compare coverage with; its suite takes about 20 minutes"),
    ),
    parts=(
        Part("duration", lambda o, console: duration(console)),
        Part("busy", lambda o, console: busy(o.runs, console), ("runs",), quick=False),
        Part("coverage", lambda o, console: coverage(o.before, console), ("before",), quick=False),
    ),
)
