"""Result files of benchmarks, `benchmarks/results/NAME.json`, and the table of their figures."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from circinus.specification.formatting import format_duration, format_percentage, format_usd_per_h
from circinus.specification.json_dump import json_text

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "benchmarks" / "results"
_LOG_WIDTH = 120
"""Columns of tables where the output is no terminal."""


@dataclass(frozen=True)
class Figure:
    """Figure of a benchmark with its aim."""

    name: str
    value: float
    aim: float | None
    better: Literal["lower", "higher"]
    unit: str
    note: str = ""

    @property
    def met(self) -> bool | None:
        """True if the aim is met; None without an aim."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.better == "lower" else self.value >= self.aim


def output_console() -> Console:
    """Return the console of standard output, as wide as the terminal or `COLUMNS` says, or as logs are shown."""
    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=_LOG_WIDTH)


def write_results(
    name: str,
    *,
    figures: Sequence[Figure],
    rows: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    wall_s: float,
    folder: Path = FOLDER,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Path:
    """Write the result file of a benchmark and return its path.

    Args:
        name: of the benchmark.
        figures: with their aims.
        rows: data behind the figures.
        seeds: the only seed, or the first and the last one.
        wall_s: wall time of all parts.
        folder: folder of `NAME.json`, where no file is given.
        file: path of the result file.
        options: values of the benchmark's options.
    """
    document = {
        "schema": 1,
        "name": name,
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": _machine(),
        "options": dict(options or {}),
        "seeds": list(seeds),
        "wall_s": round(wall_s, 1),
        "figures": [asdict(figure) for figure in figures],
        "rows": list(rows),
    }
    path = file or folder / f"{name}.json"
    # A figure that was not judged is null: JSON has no NaN.
    write_whole(path, json_text(document, indent=1, by_alias=True, not_finite="null") + "\n")
    return path


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def print_figures(figures: Sequence[Figure], console: Console) -> None:
    """Print a table of figures and aims."""
    table = Table("figure", "value", "aim", "met", "note", title="Figures", title_justify="left")
    for figure in figures:
        bound = "≤" if figure.better == "lower" else "≥"
        aim = "" if figure.aim is None else f"{bound} {_value_text(figure.aim, figure.unit)}"
        met = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.met]
        table.add_row(figure.name, _value_text(figure.value, figure.unit), aim, met, escape(figure.note))
    console.print(table)


def records_table(records: Sequence[Mapping[str, Any]], title: str | None = None, digits: str = ".4g") -> Table:
    """Return a table of records with equal keys, numbers formatted alike."""
    table = Table(*records[0], title=title, title_justify="left")
    for record in records:
        table.add_row(*(f"{value:{digits}}" if isinstance(value, float) else str(value) for value in record.values()))
    return table


def _value_text(value: float, unit: str) -> str:
    """Format seconds, dollars per hour and shares (`of plans`) in readable units, others with four digits."""
    if unit == "s":
        return format_duration(value)
    if unit == "$/h":
        return format_usd_per_h(value)
    return f"{format_percentage(value)} {unit}" if unit.startswith("of ") else f"{value:.4g} {unit}"


@cache
def commit() -> str:
    """Return the commit that this process runs, marked `+changes` if the checkout has changes outside the results."""
    revision = _git("rev-parse", "--short", "HEAD")
    changed = not revision or _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return (revision or "unknown") + ("+changes" if changed else "")


def commit_date(revision: str) -> str:
    """Return the date of a commit, or nothing where the history does not have it."""
    return _git("log", "-1", "--format=%as", revision)


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # git is not installed
        return ""
    return run.stdout.strip()


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
