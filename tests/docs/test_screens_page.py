"""The screens in the documentation show what the commands print now."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_screens_have_the_lines_and_columns_of_what_is_printed() -> None:
    printed = dict(runpy.run_path(str(DOCS / "write_screens.py"))["screens"]())
    assert len(printed) == 3
    for name, text in printed.items():
        assert _structure(text) == _structure((DOCS / "screens" / f"{name}.txt").read_text(encoding="utf-8"))


def _structure(text: str) -> list[list[str]]:
    """Return the words of each line; numbers and bars may differ in a digit from one processor to another."""
    return [re.sub(r"[\d.]+|[█░─━●┊┿◉]+", "", line).split() for line in text.splitlines()]
