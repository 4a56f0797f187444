"""What `circinus events` can be asked for."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from verbs import run_circinus

from circinus.cli.events import EventKind
from circinus.control.records import KINDS


def test_every_kind_can_be_asked_for() -> None:
    assert get_args(EventKind) == KINDS


def test_a_kind_that_there_is_not_is_refused_with_those_there_are(tmp_path: Path) -> None:
    run = run_circinus("events", "--kind", "stp", cwd=tmp_path)
    assert run.returncode == 2
    for kind in KINDS:
        assert kind in run.stderr
