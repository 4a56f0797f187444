"""A finished part is run again only for other code or options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.harness.checkpoints import Checkpoint
from benchmarks.harness.results import Figure

FIGURE = Figure("f", 1.5, 2.0, "lower", "times", "note")


def test_it_is_kept_for_the_same_code_and_options(tmp_path: Path) -> None:
    runs: list[int] = []

    def part() -> tuple[list[Figure], list[dict[str, Any]]]:
        runs.append(1)
        return [FIGURE], [{"a": len(runs)}]

    for key, times in (("abc", 1), ("abc", 1), ("abd", 2), ("abd+changes", 3), ("abd+changes", 4), ("abd", 4)):
        figures, _ = Checkpoint(tmp_path / "part.json", {"commit": key, "seeds": (1, 2)}).run(part)
        assert (figures, len(runs)) == ([FIGURE], times)


def test_nothing_is_kept_of_what_was_broken_off(tmp_path: Path) -> None:
    def broken() -> tuple[list[Figure], list[dict[str, Any]]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Checkpoint(tmp_path / "part.json", {"commit": "abc"}).run(broken)
    assert list(tmp_path.iterdir()) == []
