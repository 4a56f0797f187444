"""Plan files that are overwritten while a controller uses them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from circinus.api.plan_source import PlanFileSource
from circinus.serving import Mode


def test_a_file_that_was_read_is_another_one_until_what_it_says_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plan.json"
    said: Any = SimpleNamespace(
        path=file,
        specification=SimpleNamespace(files=(), sources=()),
        plan_set=SimpleNamespace(matching=SimpleNamespace(assignments=("one",))),
        require_served_query=lambda: None,
    )
    monkeypatch.setattr("circinus.api.plan_source.load_plan", lambda file, **options: said)
    monkeypatch.setattr(PlanFileSource, "_managed", lambda self, opened: (opened, None))

    def write(time_s: int) -> None:
        file.write_text("{}", encoding="utf-8")
        os.utime(file, (time_s, time_s))

    write(1)
    planner = PlanFileSource(said, Mode.REAL, peak=1.0, dwell_s=10.0).planner()
    assert not any(planner.changed() for _ in range(3))
    write(2)
    assert [planner.changed() for _ in range(3)] == [False, True, True], "it may be half written at first"
    planner.latest(said)
    assert planner.changed(), "what follows may fail, and is then tried again"
    planner.latest(said)
    write(3)
    planner.acknowledge()
    assert [planner.changed() for _ in range(2)] == [False, True], "written over after it was read"
    planner.latest(said)
    planner.acknowledge()
    assert not any(planner.changed() for _ in range(3))
