"""Crash recovery of profiling: `kill -9` at random steps of the profile store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.published.speech import read_speech_trace, traces_folder
from circinus.profiling import PipelineProfile, TraceBackend, profile_pipeline, save_trace
from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import AccuracySlo, Query, Slos, Specification

THRESHOLDS = (0.4, 0.6, 0.8)
ITEMS_HELD_OUT = 0.5
_EVERY = 1000
KILLED_AT_A_STEP = """
import os, signal, sqlite3, sys
from pathlib import Path

store, trace, kill_at, every = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
steps = 0

def step():
    # Called by SQLite every few steps of its virtual machine: in the middle of statements and of transactions.
    global steps
    steps += 1
    if steps == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0

connect = sqlite3.connect

def counted(path, **named):
    connection = connect(path, **named)
    if path == store:  # the trace is a store, too
        connection.set_progress_handler(step, every)
    return connection

sqlite3.connect = counted
"""
"""Head of a program with the arguments store, trace, step at which the process is killed (0: never) and number of
SQLite instructions per step. `steps` counts the steps."""
PROGRAM = (
    KILLED_AT_A_STEP
    + """
from benchmarks.profiling.crash_recovery import killed_specification
from benchmarks.workloads.published.speech import read_speech_trace, traces_folder
from circinus.profiling import TraceBackend, load_trace, profile_pipeline

specification = killed_specification()
profile_pipeline(specification, "speech", store, source=TraceBackend(load_trace(trace)))
print(steps)
"""
)


def killed_specification() -> Specification:
    """Return the speech pipeline with a few queries."""
    speech = read_speech_trace(traces_folder(), mask_widths=(500,), held_out=ITEMS_HELD_OUT)
    queries = [
        Query(
            name=f"at-most-{threshold:g}",
            pipeline="speech",
            source="here",
            rate_per_s=1.0,
            slos=Slos(accuracy=AccuracySlo(threshold=threshold, comparison="<=")),
        )
        for threshold in THRESHOLDS
    ]
    return speech.specification(queries)


def kills(count: int, console: Console) -> PartResult:
    """Kill profiling `count` times at random steps and compare the final profile with an uninterrupted run.

    Raises:
        TracesAbsentError: the published traces are not on this machine.
    """
    specification = killed_specification()
    trace = read_speech_trace(traces_folder(), mask_widths=(500,), held_out=ITEMS_HELD_OUT).trace
    lost = broken = killed = 0
    with tempfile.TemporaryDirectory(prefix="circinus-kills-") as folder:
        store, file = Path(folder) / "profiles.sqlite", Path(folder) / "speech.trace"
        save_trace(trace, file)
        whole = profile_pipeline(specification, "speech", Path(folder) / "whole.sqlite", source=TraceBackend(trace))
        steps = _run(Path(folder) / "counted.sqlite", file, 0)
        assert steps is not None
        rng, before = np.random.default_rng(0), 0
        for _ in track(range(count), "killed runs"):
            if _run(store, file, int(rng.integers(1, max(2, steps // 10)))) is not None:
                store.unlink()  # the run finished: start from an empty store
                before = 0
                continue
            killed += 1
            scores, whole_increments = _contents(store)
            lost += scores < before
            broken += not whole_increments
            before = scores
        ended = profile_pipeline(specification, "speech", store, source=TraceBackend(trace))
    same = _same(ended, whole)
    note = f"{killed} of {count} runs killed, at seeded steps of the store's engine"
    row = {"part": "kills", "killed": killed, "lost": lost, "half_written": broken, "same_end": same}
    return [
        Figure("kill -9: times that something committed was lost or half-written", lost + broken, 0, "lower", "times",
               note),
        Figure("kill -9: final profile identical to an uninterrupted run", float(same), 1.0, "higher", "yes", note),
    ], [row]  # fmt: skip


def _run(store: Path, trace: Path, kill_at: int) -> int | None:
    """Run profiling in a process; return its number of steps, or None if it was killed."""
    root = Path(__file__).resolve().parent.parent.parent
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store), str(trace), str(kill_at), str(_EVERY)],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    if ended.returncode == -signal.SIGKILL:
        return None
    if ended.returncode != 0:
        raise RuntimeError(f"profiling failed: {ended.stderr}")
    return int(ended.stdout.split()[-1])


def _contents(path: Path) -> tuple[int, bool]:
    """Return the number of scores, and whether the store is intact and every score has its output."""
    with ProfileStore(path, create=True) as store:
        whole = store.rows("PRAGMA integrity_check") == [("ok",)]
        scores, outputs = (store.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("score", "output"))
    return int(scores), bool(whole and scores == outputs)


def _same(one: PipelineProfile, other: PipelineProfile) -> bool:
    if [p.configuration for p in one.configurations] != [p.configuration for p in other.configurations]:
        return False
    return all(
        mine.accuracy == its.accuracy
        and np.array_equal(mine.items, its.items)
        and np.array_equal(mine.scores, its.scores)
        and one.verdicts[mine.configuration] == other.verdicts[mine.configuration]
        for mine, its in zip(one.configurations, other.configurations, strict=True)
    )
