"""Events of a controller's state file, as `circinus events` selects them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import get_args

import pytest

from circinus.api.engine_events import select_events
from circinus.cli.events import EventKind
from circinus.control.state_store import ControlStateStore, Event
from circinus.control.state_store import EventKind as StoredKind
from cli_runner import run_circinus


def _add(records: ControlStateStore, lease: int, *subjects: str, kind: str = "step") -> None:
    records.commit(lease, "", [Event(1.0, kind, subject, "why") for subject in subjects])


@pytest.mark.parametrize("kind", [None, "step"])
def test_what_happens_while_the_last_ones_are_told_follows(
    tmp_path: Path, kind: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def waits(seconds: float) -> None:
        pauses.append(seconds)
        assert len(pauses) == 1, "nothing more is told, though something came"

    monkeypatch.setattr("time.sleep", waits)
    records = ControlStateStore(tmp_path / "control.sqlite")
    lease = records.acquire("one", 0.0, 100.0)
    _add(records, lease, "a", "b")
    _add(records, lease, "other", kind="replan")
    told = select_events(records, 20, kind, follow=True)
    assert next(told).subject == "a"
    _add(records, lease, "c")
    before = 3 if kind is None else 2
    assert [event.subject for event in islice(told, before)] == [*(["b", "other"] if kind is None else ["b"]), "c"]
    _add(records, lease, "d")
    assert next(told).subject == "d", "and none twice"
    records.close()


def test_none_of_those_that_were_where_none_are_asked_for(tmp_path: Path) -> None:
    records = ControlStateStore(tmp_path / "control.sqlite")
    lease = records.acquire("one", 0.0, 100.0)
    _add(records, lease, "a", "b")
    assert list(select_events(records, 0, None, follow=False)) == []
    assert [event.subject for event in select_events(records, 1, None, follow=False)] == ["b"]
    records.close()


def test_every_kind_can_be_asked_for() -> None:
    assert get_args(EventKind) == tuple(kind for kind in StoredKind if kind is not StoredKind.APPLY)


def test_a_kind_that_there_is_not_is_refused_with_those_there_are(tmp_path: Path) -> None:
    run = run_circinus("events", "--kind", "stp", cwd=tmp_path)
    assert run.returncode == 2
    for kind in get_args(EventKind):
        assert kind in run.stderr
