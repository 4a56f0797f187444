"""Profiles of operators beside busy processes, against those on the quiet machine."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

import circinus as c
from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.busy_processes import busy_processes
from benchmarks.harness.results import ROOT, Figure, records_table
from circinus.arrays import FloatArray
from circinus.profiling import profile_pipeline
from circinus.profiling.store.profile_store import ProfileStore

_CODE = "benchmarks.noise.operators"
_CPUS = {
    "interpret": 1, "allocate": 1, "multiply": 1, "multiply_on_two": 2, "stream": 1, "wait": 1, "compute_and_wait": 1,
    "start_process": 1,
}  # fmt: skip
_TOLERANCE = 0.1
_UNSEEN = ("start_process",)
"""Operators whose time passes in other processes, of which waits are unknown."""

Times = Mapping[str, tuple[FloatArray, FloatArray, bool]]
"""Operator -> (n,) elapsed seconds, (n,) service times, and whether it is said to have been disturbed."""


@dataclass(frozen=True)
class Comparison:
    """Times of one operator in one profile, relative to those on the quiet machine."""

    operator: str
    busy: int
    """Number of busy processes."""
    seed: int
    mean_before: float
    """Relative error of the mean elapsed time."""
    mean: float
    """Relative error of the mean service time."""
    p95_before: float
    p95: float
    is_sure: bool
    """Whether the profile said nothing of a disturbance."""


def profiles_part(busy: Sequence[int], repeats: int, items: int, console: Console) -> PartResult:
    """Profile all operators beside each number of busy processes, and on the quiet machine before and after.

    The truth is the service time on the quiet machine: not even there is an operator always alone.
    """
    quiet: defaultdict[str, list[FloatArray]] = defaultdict(list)
    measured: list[tuple[int, int, Times]] = []
    runs = [(count, seed) for seed in range(repeats) for count in (0, *busy, 0)]
    for count, seed in track(runs, "profiles", console=console):
        with busy_processes(count, seed):
            times = _profiled(items)
        if count:
            measured.append((count, seed, times))
        else:
            for name, (_, service_s, _) in times.items():
                quiet[name].append(service_s)
    truth = {name: np.concatenate(service_s) for name, service_s in quiet.items()}
    rows = [
        Comparison(
            name,
            count,
            seed,
            _error(np.mean, elapsed_s, truth[name]),
            _error(np.mean, service_s, truth[name]),
            _error(_p95, elapsed_s, truth[name]),
            _error(_p95, service_s, truth[name]),
            not is_disturbed,
        )
        for count, seed, times in measured
        for name, (elapsed_s, service_s, is_disturbed) in times.items()
    ]
    spread = max(abs(float(s.mean() / truth[name].mean() - 1.0)) for name, every in quiet.items() for s in every)
    console.print(records_table([asdict(row) for row in rows], "relative to the quiet machine"))
    seen = [row for row in rows if row.operator not in _UNSEEN]
    sure, note = [row for row in seen if row.is_sure], f"{len(seen)} means, {len(_UNSEEN)} operator not counted"
    return [
        *_figures("all", seen, note),
        *_figures("where the profile is sure", sure, f"{len(sure)} of {len(seen)} means"),
        Figure("sure, and the mean more than 10 % off", sum(abs(r.mean) > _TOLERANCE for r in sure), 0.0, "lower",
               "means", f"of {len(sure)}"),
        Figure("sure, and the p95 more than 10 % off", sum(abs(r.p95) > _TOLERANCE for r in sure), 0.0, "lower",
               "tails", f"of {len(sure)}, each of {items} items"),
        Figure("largest difference of a quiet profile from all quiet ones", spread, None, "lower", "of the mean",
               f"{2 * repeats} quiet profiles: what no correction can undercut"),
    ], [{"part": "profiles", **asdict(row)} for row in rows]  # fmt: skip


def _figures(name: str, rows: Sequence[Comparison], note: str) -> list[Figure]:
    figures = []
    for field, label in (
        ("mean_before", "mean, before"),
        ("mean", "mean"),
        ("p95_before", "p95, before"),
        ("p95", "p95"),
    ):
        errors = np.abs([getattr(row, field) for row in rows] or [np.nan])
        aim = None if "before" in field else _TOLERANCE
        figures += [
            Figure(f"{name}: median error of the {label}", float(np.median(errors)), None, "lower", "of quiet", note),
            Figure(f"{name}: largest error of the {label}", float(errors.max()), aim, "lower", "of quiet", note),
        ]
    return figures


def _profiled(items: int) -> Times:
    names = list(_CPUS)
    operators = [
        {"name": name, "uses": f"{_CODE}:{name}", "cpus": _CPUS[name], "after": names[max(index - 1, 0) : index]}
        for index, name in enumerate(names)
    ]
    pipeline = c.Pipeline.model_validate(
        {
            "name": "noise",
            "operators": operators,
            "metric": {"name": "score", "uses": f"{_CODE}:score", "direction": "maximize", "range": [0, 1]},
            "dataset": {"uses": f"{_CODE}:items", "arguments": {"count": items}, "held_out": 0, "population": "items"},
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "profiles.sqlite"
        specification = c.Specification.of([pipeline], module_paths=(ROOT,))
        profile = profile_pipeline(specification, "noise", store, exhaustive=True)
        with ProfileStore(store) as opened:
            return {name: (*_times(opened, name), name in profile.configurations[0].disturbed) for name in _CPUS}


def _times(store: ProfileStore, operator: str) -> tuple[FloatArray, FloatArray]:
    rows = store.rows(
        "SELECT elapsed_s, service_s FROM recording JOIN service ON service.subject = recording.service "
        "JOIN run_times ON run_times.subject = service.subject AND run_times.item = service.item WHERE operator = ?",
        operator,
    )
    elapsed_s, service_s = np.array(rows, dtype=np.float64).T
    return elapsed_s, service_s


def _error(statistic: Callable[[FloatArray], Any], seconds: FloatArray, truth_s: FloatArray) -> float:
    return float(statistic(seconds) / statistic(truth_s) - 1.0)


def _p95(seconds: FloatArray) -> float:
    return float(np.quantile(seconds, 0.95))
