"""Journal of a part: a line of JSON for each outcome, so that an interrupted run is taken up where it ended."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.harness.results import commit, write_whole


class Journal:
    """File of rows, valid for the committed code and a key. Processes may append to it side by side.

    Args:
        path: of the file.
        key: what the rows depend on, besides the code.
    """

    def __init__(self, path: Path, **key: Any) -> None:
        self.path = path
        head = json.loads(json.dumps({"commit": commit(), **key}))
        lines = self._lines()
        if not lines or lines[0] != head or "+" in commit():
            lines = [head]
        write_whole(path, "".join(f"{json.dumps(line)}\n" for line in lines))  # without a line that was cut off

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, of this run and of those that it takes up."""
        return self._lines()[1:]

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(row)}\n")

    def _lines(self) -> list[dict[str, Any]]:
        lines = []
        with suppress(FileNotFoundError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                with suppress(ValueError):
                    lines.append(json.loads(line))
        return lines
