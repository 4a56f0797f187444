"""The one form in which benchmark results are kept: `benchmarks/results/NAME.json`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from rich.console import Console
from rich.table import Table

from circinus.specification.formatting import format_duration, format_percentage, format_usd_per_h

FOLDER = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Figure:
    """One figure with its aim, whether met or not."""

    name: str
    value: float
    aim: float | None
    better: Literal["lower", "higher"]
    unit: str
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None where there is none."""
        if self.aim is None:
            return None
        return self.value <= self.aim if self.better == "lower" else self.value >= self.aim


def write_results(
    name: str,
    *,
    figures: Sequence[Figure],
    rows: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    wall_s: float,
    folder: Path = FOLDER,
) -> Path:
    """Write `NAME.json` in `folder` (by default `benchmarks/results`) whole or not at all, and return its path."""
    document = {
        "schema": 1,
        "name": name,
        "commit": commit(),
        "machine": _machine(),
        "seeds": list(seeds),
        "wall_s": round(wall_s, 1),
        "figures": [asdict(figure) for figure in figures],
        "rows": list(rows),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
    return path


def print_figures(figures: Sequence[Figure], console: Console) -> None:
    """All figures beside their aims."""
    table = Table("figure", "value", "aim", "met", "note", title="Figures", title_justify="left")
    for figure in figures:
        aim = (
            ""
            if figure.aim is None
            else f"{'≤' if figure.better == 'lower' else '≥'} {_in_words(figure.aim, figure.unit)}"
        )
        met = {None: "", True: "[green]yes[/green]", False: "[red]no[/red]"}[figure.met]
        table.add_row(figure.name, _in_words(figure.value, figure.unit), aim, met, figure.note)
    console.print(table)


def _in_words(value: float, unit: str) -> str:
    """Seconds, dollars an hour and shares (`of plans`) as people read them; other units as they are."""
    if unit == "s":
        return format_duration(value)
    if unit == "$/h":
        return format_usd_per_h(value)
    return f"{format_percentage(value)} {unit}" if unit.startswith("of ") else f"{value:.4g} {unit}"


def commit() -> str:
    """The commit that ran, marked when the checkout holds changes (other than results)."""
    root = Path(__file__).parent.parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+changes" if changed else "")


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
