"""Seeded faults over the local engine and its controller: losses, silent requests, and the time of recovery."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.hardening.environment import can_mount
from benchmarks.hardening.fault_kinds import CASES
from benchmarks.hardening.fault_scene import MARK
from benchmarks.hardening.journal import Journal
from benchmarks.hardening.process_watch import kill_with
from benchmarks.hardening.starter import environment, prepared
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import ROOT, Figure, records_table

_BEYOND_S = 240.0
"""Time for a scene to start, and to end its last fault."""
_LEAST_S = 30.0
"""Time below which no scene is started again."""


@dataclass
class Scenes:
    """Scenes side by side, which mostly wait, and their journal. A scene that fails is a finding, and begins anew."""

    count: int
    faults: int
    """Number of faults of each scene."""
    stop_s: float
    """Seconds of the faults that last longest."""
    seed: int
    journal: Journal
    has_disk: bool
    _running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)
    _is_stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a scene is started, so that every one is stopped."""

    def run(self, application: Path, folder: Path, end_s: float) -> None:
        """Strike faults until a monotonic time; a fault that has begun is ended."""
        with ThreadPoolExecutor(self.count) as pool:
            runs = [pool.submit(self._run, scene, application, folder, end_s) for scene in range(self.count)]
            try:
                for run in runs:
                    run.result()
            finally:
                with self._lock:
                    self._is_stopped = True
                    for process in self._running.values():
                        process.send_signal(signal.SIGINT)

    def _run(self, scene: int, application: Path, folder: Path, end_s: float) -> None:
        first = 1 + max((row["number"] for row in self.journal.rows if row.get("scene") == scene), default=-1)
        attempt = 0
        while first < self.faults and end_s - time.monotonic() > _LEAST_S * (attempt > 0) and not self._is_stopped:
            own, attempt = folder / f"scene-{scene}-{attempt}", attempt + 1
            code, errors = self._attempt(scene, first, application, own, end_s)
            if code == 0 or self._is_stopped:
                return
            number = 1 + max((row["number"] for row in self.journal.rows if row.get("scene") == scene), default=-1)
            self.journal.add({"failed": errors, "scene": scene, "number": number})
            first = number + 1

    def _attempt(self, scene: int, first: int, application: Path, own: Path, end_s: float) -> tuple[int, str]:
        """Run a process of a scene to its end; return its exit code and the end of its errors."""
        left_s = end_s - time.monotonic()
        counts = map(str, (scene, self.seed * 1000 + scene, first, self.faults - first))
        arguments = [str(application), str(own), str(int(self.has_disk)), *counts, f"{left_s:g}", f"{self.stop_s:g}"]
        namespace = ["unshare", "-m"] if self.has_disk else []
        with self.journal.path.open("ab") as rows, tempfile.TemporaryFile() as errors:
            with self._lock:
                if self._is_stopped:
                    return 0, ""
                process = self._running[scene] = subprocess.Popen(
                    [*namespace, sys.executable, "-m", "benchmarks.hardening.fault_scene", *arguments],
                    cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=rows, stderr=errors,
                    start_new_session=True,  # interrupted by this process alone, and once
                )  # fmt: skip
            try:
                code = process.wait(left_s + self.stop_s + _BEYOND_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
            kill_with(MARK, str(own))
            errors.seek(0)
            return code, errors.read().decode(errors="replace").strip()[-2000:]


def faults(
    count: int, seconds: float, stop_s: float, scenes: int, seed: int, journal: Path, console: Console
) -> PartResult:
    """Strike faults in some scenes side by side.

    Args:
        count: maximum number of faults.
        seconds: maximum duration, with that of the interrupted runs that this one takes up.
        stop_s: seconds of the faults that last longest.
        scenes: number of scenes.
        seed: of kinds, targets and times.
        journal: file of the outcomes; those of an interrupted run count.
        console: prints the table.
    """
    has_disk = has_disks()
    kept = Journal(journal, seed=seed, stop_s=stop_s, scenes=scenes)
    side_by_side = Scenes(scenes, -(-count // scenes), stop_s, seed, kept, has_disk)
    spent_s = sum(row.get("wall_s", 0.0) for row in kept.rows) / scenes
    with tempfile.TemporaryDirectory(prefix="circinus-faults-") as name:
        application = prepared().copy_without_engine(Path(name) / "application").folder
        side_by_side.run(application, Path(name), time.monotonic() + max(0.0, seconds - spent_s))
    return _result(kept.rows, has_disk, console)


def _result(lines: Sequence[dict[str, Any]], has_disk: bool, console: Console) -> PartResult:
    rows = [line for line in lines if "kind" in line]
    if not rows:
        raise RuntimeError(f"no scene struck a fault: {lines}")
    grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["kind"], row["target"]].append(row)
    order = [(kind.name, target) for kind, target in CASES if (kind.name, target) in grouped]
    summary = [_summary(kind, target, grouped[kind, target]) for kind, target in order]
    console.print(records_table(summary, "faults", ".3g"))
    for line in lines:
        for trouble in (line.get("failed") if "kind" not in line else "", *line.get("crashes", ())):
            if trouble:
                text = f"scene {line['scene']}, fault {line['number']}, {line.get('kind')}: {trouble}"
                console.print(text, markup=False, highlight=False, soft_wrap=True)
    total = {name: sum(line[name] for line in summary) for name in list(summary[0])[6:]}
    left = [line for line in lines if "left" in line]
    failures = [line for line in lines if "failed" in line and "kind" not in line]
    recovered = [row["recovery_s"] for row in rows if math.isfinite(row["recovery_s"])]
    note = f"of {len(rows)} faults"
    requests = total["requests"] + sum(line["requests"] for line in left)
    of_requests = f"of {requests}, of which {total['failed']} failed with a reason or were not taken"
    zeros = (
        ("after which not all was well within a minute", total["unrecovered"], "faults", note),
        ("that lost committed data", total["lost"], "faults", note),
        ("decisions carried out twice", total["doubled"], "steps", note),
        ("orphaned processes", total["orphans"] + sum(line["left"] for line in left), "processes", note),
        ("ends of controllers and engines that no fault may end, and tracebacks", total["crashes"], "", note),
        ("scenes that could not go on", len(failures), "scenes", "not started again, or an exception"),
        ("silent requests", total["silent"] + sum(line["silent"] for line in left), "requests", of_requests),
        ("requests cut off by an engine that lived on", total["cut_off"], "requests", of_requests),
    )  # fmt: skip
    figures = [
        Figure("faults: struck", float(len(rows)), 1000.0, "higher", "faults",
               f"{len(summary)} kinds and targets{'' if has_disk else '; none of disks, which need root'}"),
        *(Figure(f"faults: {name}", float(value), 0.0, "lower", unit, text) for name, value, unit, text in zeros),
        Figure("faults: recovery, median", float(np.median(recovered)) if recovered else math.inf, None, "lower", "s",
               note),
        Figure("faults: recovery, longest", max(recovered, default=math.inf), None, "lower", "s", note),
    ]  # fmt: skip
    return figures, [*({"part": "faults", **line} for line in summary), *rows]


def _summary(kind: str, target: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    recovery_s = [row["recovery_s"] for row in rows]
    sums = ("requests", "failed", "cut_off", "silent", "doubled", "orphans")
    return {
        "fault": kind,
        "of": target,
        "faults": len(rows),
        "wall_s": float(np.mean([row["wall_s"] for row in rows])),
        "recovery_median_s": float(np.median(recovery_s)),
        "recovery_max_s": max(recovery_s),
        **{name: sum(row[name] for row in rows) for name in sums},
        "lost": sum(bool(row["lost"]) for row in rows),
        "crashes": sum(len(row["crashes"]) for row in rows),
        "unrecovered": sum(not math.isfinite(recovery) for recovery in recovery_s),
    }


def has_disks() -> bool:
    """Return whether scenes may have disks of their own."""
    return can_mount() and all(os.access(path, os.W_OK) for path in ("/dev/loop-control", "/sys/fs/ext4"))


def scene_count() -> int:
    """Return the number of scenes that a machine of this size runs side by side."""
    return max(2, min(8, 4 * (os.cpu_count() or 1)))
