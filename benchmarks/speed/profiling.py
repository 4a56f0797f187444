"""Profiling of 120 configurations of cheap operators: until settled, exhaustively, and within budgets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from benchmarks.harness.benchmark import PartResult, Rows
from benchmarks.harness.results import Figure, records_table
from benchmarks.speed.processes import run_command

_APPLICATION = Path(__file__).with_name("patterns")
_SETTLED, _EXHAUSTIVE = "until settled", "exhaustive"


def profiling_part(budgets_s: tuple[float, ...], repeats: int, console: Console) -> PartResult:
    """Run `circinus profile` in a new folder each time, in turns."""
    ways = {_SETTLED: [], _EXHAUSTIVE: ["--exhaustive"]}
    ways |= {f"budget {budget_s:g} s": ["--budget", f"{budget_s:g}s"] for budget_s in budgets_s}
    rows: Rows = []
    for number in range(repeats):
        for way, arguments in ways.items():
            rows.append({"part": "profiling", "run": number, "way": way, **_profiled(arguments)})
            console.print(records_table([rows[-1]]))
    walls_s = {way: [row["wall_s"] for row in rows if row["way"] == way] for way in ways}
    wall_s = {way: median(its_s) for way, its_s in walls_s.items()}
    ratio = median(s / all_s for s, all_s in zip(walls_s[_SETTLED], walls_s[_EXHAUSTIVE], strict=True))
    deciding = {way: median(row["deciding_share"] for row in rows if row["way"] == way) for way in ways}
    slowest = max((way for way in ways if way != _EXHAUSTIVE), key=lambda way: deciding[way])
    figures = [
        Figure("settling cheap operators relative to measuring everything", ratio, 1.2, "lower", "times",
               f"whole processes, median of {repeats} ratios of runs in turns; everything takes "
               f"{wall_s[_EXHAUSTIVE]:.1f} s"),
        Figure("share of the time spent deciding, cheap operators", deciding[slowest], 0.2, "lower", "share",
               f"median of {repeats} runs, worst of all ways: {slowest}"),
        *(Figure(f"whole process with a budget of {budget_s:g} s", wall_s[f"budget {budget_s:g} s"], 1.1 * budget_s,
                 "lower", "s", f"median of {repeats}") for budget_s in budgets_s),
    ]  # fmt: skip
    return figures, rows


def _profiled(arguments: list[str]) -> dict[str, Any]:
    with TemporaryDirectory(prefix="circinus-speed-") as name:
        folder = Path(name) / "patterns"
        shutil.copytree(_APPLICATION, folder, ignore=shutil.ignore_patterns(".circinus", "__pycache__"))
        times = run_command("profile", "--json", *arguments, folder=folder)
    (profile,) = json.loads(times.output)["data"]
    spent = profile["spent"]
    return {
        "wall_s": times.wall_s,
        "cpu_s": times.cpu_s,
        "settled": profile["settled"],
        "scores": sum(configuration["items"] for configuration in profile["configurations"]),
        **spent,
        "deciding_share": spent["deciding_s"] / sum(spent.values()),
    }
