"""Markdown tables of results, for pages of the documentation."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness.results import Figure


def figures_table(figures: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of a result file with their aims."""
    rows = [
        (figure["name"], quantity(figure["value"], figure["unit"]), _aim(figure), figure["note"]) for figure in figures
    ]
    return table(("figure", "seen", "aim", "note"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def list_item(text: str) -> str:
    """Return an item of a list, in lines of 118 characters."""
    return f"{textwrap.fill(f'- {text}', 118, subsequent_indent='  ')}\n"


def number(value: float) -> str:
    """Return a number with three digits, or all of its integer digits."""
    return f"{value:,.0f}" if 999.5 <= abs(value) < math.inf else f"{value:.3g}"


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit; shares are percentages, and ratios have two decimals."""
    if unit == "share":
        return f"{number(100 * value)} %"
    return f"{value:.2f} times" if unit == "times" and abs(value) < 10 else f"{number(value)} {unit}"


def _aim(figure: Mapping[str, Any]) -> str:
    if figure["aim"] is None:
        return "-"
    bound = "at least" if figure["better"] == "higher" else "at most"
    aim = quantity(figure["aim"], "share") if figure["unit"] == "share" else number(figure["aim"])
    return f"{bound} {aim}{'' if Figure(**figure).met else ', **missed**'}"
