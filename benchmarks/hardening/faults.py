"""Seeded faults over the local engine and its controller: losses, silent requests, and the time of recovery."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.hardening.environment import can_mount
from benchmarks.hardening.fault_kinds import CASES
from benchmarks.hardening.fault_scene import MARK
from benchmarks.hardening.process_watch import processes_with
from benchmarks.hardening.starter import environment, prepared
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import ROOT, Figure

_BEYOND_S = 240.0
"""Time for a scene to start, and to end its last fault."""


def faults(seconds: float, stop_s: float, scenes: int, seed: int, console: Console) -> PartResult:
    """Strike faults in some scenes side by side.

    Args:
        seconds: duration; a fault that has begun is ended.
        stop_s: seconds of faults that last.
        scenes: number of scenes, which mostly wait.
        seed: of kinds, targets and times.
        console: prints the table.
    """
    has_disk = can_mount()
    with tempfile.TemporaryDirectory(prefix="circinus-faults-") as name:
        folder = Path(name)
        application = prepared().copy_without_engine(folder / "application").folder
        started = [
            (_started(application, own, seed * 1000 + number, seconds, stop_s, has_disk), own)
            for number, own in enumerate(folder / f"scene-{number}" for number in range(scenes))
        ]
        timeout_s = seconds + _BEYOND_S + stop_s
        lines = [line for scene, own in started for line in _lines(scene, own, timeout_s, console)]
    rows = [line for line in lines if "kind" in line]
    left = sum(line["left"] for line in lines if "left" in line)
    return _result(rows, left, sum("failed" in line and "kind" not in line for line in lines), has_disk, console)


def _started(
    application: Path, folder: Path, seed: int, seconds: float, stop_s: float, has_disk: bool
) -> subprocess.Popen[str]:
    arguments = [str(application), str(folder), str(seed), f"{seconds:g}", f"{stop_s:g}", str(int(has_disk))]
    own = ["unshare", "-m"] if has_disk else []
    return subprocess.Popen(
        [*own, sys.executable, "-m", "benchmarks.hardening.fault_scene", *arguments],
        cwd=ROOT, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _lines(scene: subprocess.Popen[str], folder: Path, timeout_s: float, console: Console) -> list[dict[str, Any]]:
    """Return what a scene printed; a scene that fails is a finding, and what it leaves is ended."""
    try:
        stdout, stderr = scene.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        scene.kill()
        stdout, stderr = scene.communicate()
    lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    if scene.returncode:
        console.print(f"a scene failed: {stderr.strip()[-2000:]}", style="red", markup=False, highlight=False)
        lines.append({"failed": 1})
    for process in processes_with(MARK, str(folder)):
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return lines


def _result(rows: Sequence[dict[str, Any]], left: int, failed: int, has_disk: bool, console: Console) -> PartResult:
    if not rows:
        raise RuntimeError("no scene struck a fault")
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["kind"], row["target"]].append(row)
    order = [(kind.name, target) for kind, target in CASES if (kind.name, target) in grouped]
    summary = [_summary(kind, target, grouped[kind, target]) for kind, target in order]
    columns = list(summary[0])
    table = Table(*columns[1:], title="faults")
    for line in summary:
        table.add_row(
            *(f"{value:.3g}" if isinstance(value, float) else str(value) for value in list(line.values())[1:])
        )
    console.print(table)
    names = ("faults", "requests", "failed", "silent", "unrecovered")
    total = {name: sum(line[name] for line in summary) for name in names}
    recovered = [row["recovery_s"] for row in rows if math.isfinite(row["recovery_s"])]
    note = f"of {total['faults']} faults"
    lost, doubled = sum(bool(row["lost"]) for row in rows), max(row["doubled"] for row in rows)
    orphans = sum(row["orphans"] for row in rows) + left
    zeros = (
        ("after which not all was well within a minute", total["unrecovered"], "faults", note),
        ("that lost committed data", lost, "faults", note),
        ("decisions carried out twice", doubled, "steps", note),
        ("orphaned processes", orphans, "processes", note),
        ("scenes that could not go on", failed, "scenes", "not started again, or an exception"),
        ("silent requests", total["silent"], "requests",
         f"of {total['requests']}, of which {total['failed']} failed with a reason"),
    )  # fmt: skip
    figures = [
        Figure("faults: struck", float(total["faults"]), None, "higher", "faults",
               f"{len(summary)} kinds and targets{'' if has_disk else '; none of a full disk, which needs root'}"),
        *(Figure(f"faults: {name}", float(value), 0.0, "lower", unit, text) for name, value, unit, text in zeros),
        Figure("faults: recovery, median", float(np.median(recovered)) if recovered else math.inf, None, "lower", "s",
               note),
        Figure("faults: recovery, longest", max(recovered, default=math.inf), None, "lower", "s", note),
    ]  # fmt: skip
    return figures, [*summary, *rows]


def _summary(kind: str, target: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    recovery_s = [row["recovery_s"] for row in rows]
    return {
        "part": "faults",
        "fault": kind,
        "of": target,
        "faults": len(rows),
        "recovery_median_s": float(np.median(recovery_s)),
        "recovery_max_s": max(recovery_s),
        "requests": sum(row["requests"] for row in rows),
        "failed": sum(row["failed"] for row in rows),
        "silent": sum(row["silent"] for row in rows),
        "lost": sum(bool(row["lost"]) for row in rows),
        "doubled": max(row["doubled"] for row in rows),
        "orphans": sum(row["orphans"] for row in rows),
        "unrecovered": sum(not math.isfinite(recovery) for recovery in recovery_s),
    }


def scene_count() -> int:
    """Return the number of scenes that a machine of this size runs side by side."""
    return max(2, min(6, 2 * (os.cpu_count() or 1)))
