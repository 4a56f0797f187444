"""Checkpoints: results of finished parts of a long benchmark, so that an interrupted run resumes with the next part."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.harness.results import Figure, commit, write_whole


class Checkpoint:
    """Checkpoint of one part, valid for the committed code and the options of its key."""

    def __init__(self, path: Path, key: Mapping[str, Any]) -> None:
        self._path, self._key = path, json.loads(json.dumps(key))
        self.wall_s = 0.0
        """Wall time of the run that produced the result."""

    @classmethod
    def in_folder(cls, folder: Path, name: str, options: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint of a part for the current commit; the file is made when the part has ended."""
        return cls(folder / f"{name}.json", {"commit": commit(), **options})

    def run(
        self, part: Callable[[], tuple[list[Figure], list[dict[str, Any]]]]
    ) -> tuple[list[Figure], list[dict[str, Any]]]:
        """Return the stored result; without one run the part and store its result, unless code is uncommitted."""
        is_committed = "+" not in self._key["commit"]
        if is_committed and self._path.is_file():
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            if stored["key"] == self._key:
                self.wall_s = stored["wall_s"]
                return [Figure(**figure) for figure in stored["figures"]], stored["rows"]
        start_s = perf_counter()
        figures, rows = part()
        self.wall_s = perf_counter() - start_s
        if is_committed:
            content = {"key": self._key, "wall_s": self.wall_s, "figures": [asdict(f) for f in figures], "rows": rows}
            write_whole(self._path, json.dumps(content))
        return figures, rows
