"""Workload of a till that reads codes, whose pictures or server change.

A small model suffices for three of four queries as long as pictures are clear. Noisy pictures need a large one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workloads.burst_shop import INFRASTRUCTURE
from benchmarks.workloads.code_reader import NOISY, QUIET, SLOWER, pictures
from circinus.api.plan_context import LoadedPlan, load_plan
from circinus.operators import Item
from circinus.operators.pickling import pickled_bytes
from circinus.serving import Request
from circinus.serving.loadtest.open_loop import Arrival

PIPELINE = "codes"
_PIPELINE = """
apiVersion: circinus/v1
kind: Pipeline
metadata:
  name: codes
spec:
  operators:
    - name: smooth
      uses: code_reader:smooth
      cpus: 0.1
      knobs:
        passes: [0, 1]
    - name: read
      uses: code_reader:Read
      after: smooth
      cpus: 0.1
      knobs:
        model: [small, medium, large]
  metric:
    name: digits right
    uses: code_reader:digits_right
  dataset:
    uses: code_reader:pictures
"""
_QUERY = """
apiVersion: circinus/v1
kind: Query
metadata:
  name: {name}
spec:
  pipeline: codes
  source: till
  rate: {rate}/s
  slos: [latency p95 <= {latency}, accuracy >= {accuracy}]
---
"""
_QUERIES = (
    {"name": "prices", "rate": 10, "latency": "250ms", "accuracy": 0.85},
    {"name": "lots", "rate": 8, "latency": "300ms", "accuracy": 0.9},
    {"name": "shelves", "rate": 10, "latency": "250ms", "accuracy": 0.88},
    {"name": "batches", "rate": 6, "latency": "400ms", "accuracy": 0.98},
)


@dataclass(frozen=True, eq=False)
class DriftScene:
    """A plan file with its folder."""

    folder: Path
    opened: LoadedPlan

    @property
    def rates_per_s(self) -> Mapping[str, float]:
        """Planned rate of each query."""
        return {query.name: query.rate_per_s for query in self.opened.specification.queries}

    def copied(self, name: str) -> Path:
        """Copy the files to a new folder, so that controllers do not share what they learn and write."""
        folder = self.folder / name
        shutil.copytree(self.folder / "scene", folder)
        return folder


def prepared(folder: Path) -> DriftScene:
    """Profile and plan in an empty folder, in less than a minute.

    Raises:
        RuntimeError: a step failed, or a query cannot be served.
    """
    scene = folder / "scene"
    scene.mkdir()
    shutil.copy(Path(__file__).with_name("code_reader.py"), scene)
    queries = "".join(_QUERY.format(**query) for query in _QUERIES)
    shop = INFRASTRUCTURE.format(nodes=1)
    for name, text in (("pipeline", _PIPELINE), ("infrastructure", shop), ("queries", queries)):
        (scene / f"{name}.yaml").write_text(text, encoding="utf-8")
    circinus(scene, "profile", "--budget", "60s")
    circinus(scene, "plan")
    opened = load_plan(scene / "plan.json", needs_store=True)
    if opened.plan_set.matching.rejections:
        raise RuntimeError(f"queries were rejected: {opened.plan_set.matching.rejections}")
    return DriftScene(folder, opened)


def sent_items(arrivals: Sequence[Arrival], noisy_from_s: float, seed: int) -> list[Item]:
    """Return a new item for each arrival, with clear pictures before a time and noisy ones after it."""
    count = sum(arrival.time_s < noisy_from_s for arrival in arrivals)
    clear = pictures(count, QUIET, seed=2 * seed + 1)
    return [*clear, *pictures(len(arrivals) - count, NOISY, seed=2 * seed + 2)]


def requests_of(arrivals: Sequence[Arrival], items: Sequence[Item]) -> list[Request]:
    """Return the requests for a computing engine."""
    return [
        Request(arrival.query, item.key, item.value, float(pickled_bytes(item.value)))
        for arrival, item in zip(arrivals, items, strict=True)
    ]


def truth_line(item: Item) -> str:
    """Return the line for the file of `circinus serve --ground-truth`."""
    return json.dumps({"pipeline": PIPELINE, "item": item.key, "truth": item.truth}) + "\n"


def slowed(folder: Path, times: float) -> None:
    """Scale the times of a copy's operators from now on."""
    unfinished = folder / f"{SLOWER}.tmp"
    unfinished.write_text(f"{times:g}", encoding="utf-8")
    unfinished.replace(folder / SLOWER)


def circinus(folder: Path, *arguments: str) -> None:
    """Run a command in a folder.

    Raises:
        RuntimeError: the command failed.
    """
    run = subprocess.run(
        [sys.executable, "-m", "circinus", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RuntimeError(f"circinus {' '.join(arguments)} failed: {run.stderr.strip() or run.stdout.strip()}")
