"""Seeded faults over the local engine and its controller: what is lost, what is silent, and the time until all is well."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.hardening.environment import can_mount
from benchmarks.hardening.fault_kinds import CASES
from benchmarks.hardening.starter import environment, planned
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
        application = planned(folder / "application").folder
        started = [
            _started(application, folder / f"scene-{number}", seed * 1000 + number, seconds, stop_s, has_disk)
            for number in range(scenes)
        ]
        lines = [line for scene in started for line in _lines(scene, seconds + _BEYOND_S + stop_s, console)]
    rows = [line for line in lines if "kind" in line]
    left = sum(line["left"] for line in lines if "left" in line)
    return _result(rows, left, has_disk, console)


def _started(
    application: Path, folder: Path, seed: int, seconds: float, stop_s: float, has_disk: bool
) -> subprocess.Popen[str]:
    arguments = [str(application), str(folder), str(seed), f"{seconds:g}", f"{stop_s:g}", str(int(has_disk))]
    own = ["unshare", "-m"] if has_disk else []
    return subprocess.Popen(
        [*own, sys.executable, "-m", "benchmarks.hardening.fault_scene", *arguments],
        cwd=ROOT, env=environment(), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _lines(scene: subprocess.Popen[str], timeout_s: float, console: Console) -> list[dict[str, Any]]:
    try:
        stdout, stderr = scene.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        scene.kill()
        stdout, stderr = scene.communicate()
    if scene.returncode:
        console.print(f"a scene failed: {stderr.strip()[-2000:]}", style="red", markup=False, highlight=False)
    lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    return lines if scene.returncode == 0 else [*lines, {"left": 0, "failed": True}]


def _result(rows: Sequence[dict[str, Any]], left: int, has_disk: bool, console: Console) -> PartResult:
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
    total = {
        name: sum(line[name] for line in summary) for name in ("faults", "requests", "failed", "silent", "unrecovered")
    }
    recovered = [row["recovery_s"] for row in rows if math.isfinite(row["recovery_s"])]
    note = f"of {total['faults']} faults"
    figures = [
        Figure("faults: struck", float(total["faults"]), None, "higher", "faults",
               f"{len(summary)} kinds and targets{'' if has_disk else '; none of a full disk, which needs root'}"),
        Figure("faults: after which not all was well within a minute", float(total["unrecovered"]), 0.0, "lower", "faults", note),
        Figure("faults: that lost committed data", float(sum(bool(row["lost"]) for row in rows)), 0.0, "lower", "faults", note),
        Figure("faults: decisions carried out twice", float(max(row["doubled"] for row in rows)), 0.0, "lower", "steps", note),
        Figure("faults: orphaned processes", float(sum(row["orphans"] for row in rows) + left), 0.0, "lower", "processes", note),
        Figure("faults: silent requests", float(total["silent"]), 0.0, "lower", "requests",
               f"of {total['requests']}, of which {total['failed']} failed with a reason"),
        Figure("faults: recovery, median", float(np.median(recovered)) if recovered else math.inf, None, "lower", "s", note),
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
