"""Budgets of profiling for examples and a published trace: share spent deciding, and time beyond the budget."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from rich.console import Console

from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import ROOT, Figure, records_table
from benchmarks.profiling.crash_recovery import THRESHOLDS
from benchmarks.speed.processes import run_command
from benchmarks.workloads.published.sites import infrastructure
from benchmarks.workloads.published.speech import TracesAbsentError, read_speech_trace, traces_folder
from circinus.planning.sampler import make_sampler
from circinus.profiling import TraceBackend, profile_pipeline
from circinus.profiling.trace.trace_runner import SimulatedClock
from circinus.specification import Query, Slos, Specification

_APPLICATIONS = {
    "starter": ROOT / "src" / "circinus" / "cli" / "starter",
    "examples/meeting": ROOT / "examples" / "meeting",
    "examples/documents": ROOT / "examples" / "documents",
}


class _PacedClock(SimulatedClock):
    """Clock of recorded and real seconds: on recorded ones alone, decisions take no time."""

    def __call__(self) -> float:
        return super().__call__() + perf_counter()


def budgets_part(budget_s: float, console: Console) -> PartResult:
    """Profile each application within a budget, from an empty store."""
    rows: Rows = []
    for name, (elapsed_s, share) in _runs(budget_s, console):
        rows.append({"part": "budgets", "application": name, "elapsed_s": elapsed_s, "deciding_share": share})
        console.print(records_table([rows[-1]]))
    slowest, longest = (max(rows, key=lambda row: row[key]) for key in ("deciding_share", "elapsed_s"))
    count = f"worst of {len(rows)}"
    return [
        Figure(f"deciding, share of a budget, {count}", slowest["deciding_share"], 0.2, "lower", "share",
               f"of the time used of {budget_s:g} s; {slowest['application']}"),
        Figure(f"time of a run over its budget, {count}", longest["elapsed_s"] / budget_s, 1.1, "lower", "times",
               f"{budget_s:g} s; {longest['application']}"),
    ], rows  # fmt: skip


def _runs(budget_s: float, console: Console) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield the name of each application, elapsed seconds, and the share of the time that deciding took."""
    for name, folder in _APPLICATIONS.items():
        yield name, _application(folder, budget_s)
    try:
        yield "speech trace", _trace(traces_folder(), budget_s)
    except TracesAbsentError as error:
        console.print(f"speech trace skipped: {error}", style="yellow", highlight=False)


def _application(source: Path, budget_s: float) -> tuple[float, float]:
    with TemporaryDirectory(prefix="circinus-speed-") as name:
        folder = Path(name) / source.name
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".circinus", "__pycache__"))
        run_command("profile", "--budget", "1s", folder=folder)  # makes the data set
        shutil.rmtree(folder / ".circinus")
        times = run_command("profile", "--json", "--budget", f"{budget_s:g}s", folder=folder)
    spent = [profile["spent"] for profile in json.loads(times.output)["data"]]
    return times.wall_s, sum(part["deciding_s"] for part in spent) / sum(sum(part.values()) for part in spent)


def _trace(folder: Path, budget_s: float) -> tuple[float, float]:
    speech = read_speech_trace(folder)
    queries = [
        Query(name=f"at-most-{threshold:g}", pipeline="speech", source="place-0", rate_per_s=0.1,
              slos=Slos.parse(["latency p95 <= 10s", f"accuracy <= {threshold:g}"]))
        for threshold in THRESHOLDS
    ]  # fmt: skip
    specification = Specification({"speech": speech.pipeline}, infrastructure(), tuple(queries))
    clock = _PacedClock()
    with TemporaryDirectory(prefix="circinus-speed-") as name:
        begin_s = clock()
        profile = profile_pipeline(
            specification, "speech", Path(name) / "profiles.sqlite", budget_s=budget_s,
            source=TraceBackend(speech.trace, clock), explorer=make_sampler(specification, "speech"),
        )  # fmt: skip
        elapsed_s = clock() - begin_s
    return elapsed_s, profile.spent.deciding_s / elapsed_s if profile.spent else 0.0
