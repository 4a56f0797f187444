"""Parts of a long benchmark that have ended, so that a run which was broken off goes on with the next one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.harness.results import Figure, commit


class KeptPart:
    """One part, of the code as it is committed and with some options."""

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        """It is kept at `path` for as long as `key` is the same."""
        self._path, self._key = path, json.loads(json.dumps(key))
        self.wall_s = 0.0
        """That it took when it ran."""

    @classmethod
    def of(cls, folder: Path, name: str, options: Mapping[str, Any]) -> KeptPart:
        """In a folder, made when the part has ended."""
        return cls(folder / f"{name}.json", {"commit": commit(), **options})

    def run(
        self, part: Callable[[], tuple[list[Figure], list[dict[str, Any]]]]
    ) -> tuple[list[Figure], list[dict[str, Any]]]:
        """What is kept of it; else run it and keep what comes of it, whole or not at all. Uncommitted code keeps
        nothing."""
        fixed = "+" not in self._key["commit"]
        if fixed and self._path.is_file():
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["key"] == self._key:
                self.wall_s = kept["wall_s"]
                return [Figure(**figure) for figure in kept["figures"]], kept["rows"]
        began_s = perf_counter()
        figures, rows = part()
        self.wall_s = perf_counter() - began_s
        if fixed:
            content = {"key": self._key, "wall_s": self.wall_s, "figures": [asdict(f) for f in figures], "rows": rows}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_suffix(".tmp")
            unfinished.write_text(json.dumps(content), encoding="utf-8")
            os.replace(unfinished, self._path)
        return figures, rows
