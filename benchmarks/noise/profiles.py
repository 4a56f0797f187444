"""Profiles of operators beside busy processes, against those on the quiet machine."""

from __future__ import annotations

import tempfile
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
    "start_process": 1, "compute_in_pool": 2,
}  # fmt: skip
_TOLERANCE = 0.1

Times = Mapping[str, tuple[FloatArray, FloatArray, bool]]
"""Operator -> (n,) elapsed seconds, (n,) service times, and whether it is said to have been disturbed."""


@dataclass(frozen=True)
class Comparison:
    """A statistic of the times of one operator in one profile, relative to the quiet profiles before and after it."""

    operator: str
    busy: int
    """Number of busy processes."""
    seed: int
    statistic: str
    before: float
    """Relative error of the elapsed times."""
    error: float
    """Relative error of the service times."""
    noise: float
    """Relative difference of the two quiet profiles."""
    is_sure: bool
    """Whether the profile said nothing of a disturbance."""

    @property
    def is_comparable(self) -> bool:
        """Whether the quiet profiles agree."""
        return self.noise <= _TOLERANCE


def profiles_part(busy: Sequence[int], repeats: int, items: int, console: Console) -> PartResult:
    """Profile all operators beside each number of busy processes, and on the quiet machine before and after.

    The truth is the mean of these two quiet profiles. If they differ by more than the tolerance, the machine itself has
    changed, and the profile between them is not judged.
    """
    counts = [0, *(count for _ in range(repeats) for number in busy for count in (number, 0))]
    profiles: list[Times] = []
    for number, count in enumerate(track(counts, "profiles", console=console)):
        with busy_processes(count, number):
            profiles.append(_profiled(items))
    rows = [
        compared(name, statistic, counts[number], number // (2 * len(busy)), profiles[number - 1 : number + 2])
        for number in range(1, len(counts), 2)
        for name in _CPUS
        for statistic in _STATISTICS
    ]
    console.print(records_table([asdict(row) for row in rows], "relative to the quiet machine"))
    quiet = [row for row in rows if row.busy == 0 and row.statistic == "mean"]
    return [
        *(figure for name in _STATISTICS for figure in _figures(name, [r for r in rows if r.statistic == name])),
        Figure("named on the quiet machine", float(sum(not row.is_sure for row in quiet)), 0.0, "lower",
               "operators", f"of {len(quiet)}"),
    ], [{"part": "profiles", **asdict(row)} for row in rows]  # fmt: skip


def _p95(seconds: FloatArray) -> Any:
    return np.quantile(seconds, 0.95)


_STATISTICS: Mapping[str, Callable[[FloatArray], Any]] = {"mean": np.mean, "p95": _p95}


def compared(operator: str, statistic: str, busy: int, seed: int, profiles: Sequence[Times]) -> Comparison:
    """Compare the middle one of three profiles with the quiet ones around it."""
    of = _STATISTICS[statistic]
    first_s, last_s = (float(of(times[operator][1])) for times in profiles[::2])
    elapsed_s, service_s, is_disturbed = profiles[1][operator]
    truth_s = (first_s + last_s) / 2
    before, error = (float(of(seconds)) / truth_s - 1.0 for seconds in (elapsed_s, service_s))
    noise = abs(last_s - first_s) / min(first_s, last_s)
    return Comparison(operator, busy, seed, statistic, before, error, noise, not is_disturbed)


def _figures(statistic: str, rows: Sequence[Comparison]) -> list[Figure]:
    judged = [row for row in rows if row.is_comparable]
    sure = [row for row in judged if row.is_sure]
    off = [row for row in sure if abs(row.error) > _TOLERANCE]
    of_all, of_sure = f"of {len(judged)} profiled operators", f"{len(sure)} of {len(judged)} profiled operators"
    errors = (("elapsed times", [row.before for row in judged]), ("service times", [row.error for row in judged]),
              ("service times not named", [row.error for row in sure]))  # fmt: skip
    return [
        *(Figure(f"{statistic}: median error of {name}", float(np.median(np.abs(values or [np.nan]))), None, "lower",
                 "of quiet", of_all) for name, values in errors),
        Figure(f"{statistic}: largest error of service times not named", max((abs(r.error) for r in sure), default=0.0),
               _TOLERANCE, "lower", "of quiet", of_sure),
        Figure(f"{statistic}: not named, and more than {_TOLERANCE:.0%} off", float(len(off)), 0.0, "lower",
               "operators", of_sure),
        Figure(f"{statistic}: the same beside no busy process", float(sum(not row.busy for row in off)), None, "lower",
               "operators", f"of {sum(not row.busy for row in sure)}; the machine itself changed"),
        Figure(f"{statistic}: quiet profiles differ by more than {_TOLERANCE:.0%}, too close to call",
               float(len(rows) - len(judged)), None, "lower", "operators",
               f"of {len(rows)}; in the median they differ by {np.median([row.noise for row in rows]):.1%}"),
    ]  # fmt: skip


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
