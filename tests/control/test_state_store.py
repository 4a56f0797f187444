"""Tests of the state store: leases, states, events."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from budget import seeds
from circinus.control.state_store import ControlStateStore, Event, EventKind, StateStoreError
from circinus.errors import ServingError
from circinus.serving.lease import LeaseHeldError, LeaseLostError
from golden import check_message
from raised import raises_code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "control.sqlite"


def test_one_controls_at_a_time_and_the_next_when_it_has_ended(path: Path) -> None:
    one, other = ControlStateStore(path), ControlStateStore(path)
    lease = one.acquire("one", 100.0, 5.0)
    with raises_code(LeaseHeldError, "lease.held") as caught:
        other.acquire("other", 103.0, 5.0)
    assert caught.value.location == str(path)
    check_message("control/lease_held", caught.value.message)
    one.renew(lease, 104.0, 5.0)
    with pytest.raises(LeaseHeldError):
        other.acquire("other", 106.0, 5.0)
    assert other.acquire("other", 109.0, 5.0) > lease
    one.close()
    other.close()


def test_who_lost_the_lease_changes_nothing_any_more(path: Path) -> None:
    one, other = ControlStateStore(path), ControlStateStore(path)
    old = one.acquire("one", 100.0, 5.0)
    one.commit(old, "first")
    new = other.acquire("other", 200.0, 5.0)
    with raises_code(LeaseLostError, "lease.lost") as caught:
        one.commit(old, "late", [Event(201.0, "step", "q", "why")])
    check_message("control/lease_lost", caught.value.message)
    with pytest.raises(LeaseLostError):
        one.renew(old, 201.0, 5.0)
    assert (other.state(), other.events()) == ("first", ())
    one.release(old)
    other.commit(new, "second")
    assert one.state() == "second"


def test_a_clock_that_was_set_back_locks_nobody_out(path: Path) -> None:
    records = ControlStateStore(path)
    first = records.acquire("one", 10_000.0, 5.0)
    assert records.acquire("other", 100.0, 5.0) > first


def test_given_back_it_is_free_at_once(path: Path) -> None:
    records = ControlStateStore(path)
    first = records.acquire("one", 100.0, 5.0)
    records.release(first)
    assert records.acquire("other", 100.1, 5.0) > first


def test_events_are_kept_in_order_with_their_reasons(path: Path) -> None:
    records = ControlStateStore(path)
    assert records.state() is None
    lease = records.acquire("one", 1.0, 5.0)
    records.commit(lease, "a", [Event(1.0, "step", "q", "overloaded", {"from": 0, "to": 2})])
    more = [Event(2.0, "replan", "pool edge", "a node is gone"), Event(3.0, "step", "q", "calm")]
    kept = records.commit(lease, "b", more)
    assert records.commit(lease, "c") == ()
    records.close()
    again = ControlStateStore(path)
    found = again.events()
    assert [(event.number, event.kind, event.subject) for event in found] == [
        (1, "step", "q"),
        (2, "replan", "pool edge"),
        (3, "step", "q"),
    ]
    assert found[0].details == {"from": 0, "to": 2}
    assert kept == found[1:], "commit returns their numbers"
    assert again.events(after=2) == found[2:]
    assert again.events(count=1) == found[:1]


def test_another_file_is_not_touched(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("not a database, " * 100)
    with pytest.raises(ServingError) as caught:
        ControlStateStore(text)
    assert caught.value.code == "control.unwritable_state"
    assert caught.value.location == str(text)
    assert "file is not a database" in caught.value.message
    assert text.read_text() == "not a database, " * 100
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (x)")
    with raises_code(ServingError, "control.other_database") as caught:
        ControlStateStore(foreign)
    check_message("control/other_database", str(caught.value).replace(str(foreign), "foreign.sqlite"))


_WRITER = """
import sys, time
from pathlib import Path
from circinus.control.state_store import ControlStateStore, Event, LeaseHeldError

records = ControlStateStore(Path(sys.argv[1]))
while True:
    try:
        lease = records.acquire(sys.argv[2], time.time(), 0.3)
        break
    except LeaseHeldError:
        time.sleep(0.02)
count = int(records.state() or 0)
while True:
    count += 1
    records.commit(lease, str(count), [Event(time.time(), "step", "q", "counted", {"count": count})])
    print(count, flush=True)
    records.renew(lease, time.time(), 0.3)
"""


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_and_nothing_is_done_twice(path: Path) -> None:
    rng, confirmed = random.Random(0), 0
    for number in seeds(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), f"writer {number}"], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(rng.randint(1, 20)):
            confirmed = int(writer.stdout.readline())
        time.sleep(rng.uniform(0.0, 0.005))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    records = ControlStateStore(path)
    counts = [event.details["count"] for event in records.events(count=10**6)]
    assert counts == list(range(1, len(counts) + 1))
    assert json.loads(records.state() or "0") == len(counts)
    assert len(counts) >= confirmed, "every confirmed commit is stored"


def test_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").touch()
    (tmp_path / "control.sqlite").symlink_to(tmp_path / "victim")
    with raises_code(ServingError, "control.unsafe"):
        ControlStateStore(tmp_path / "control.sqlite")
    assert (tmp_path / "victim").stat().st_size == 0
    records = ControlStateStore(tmp_path / "new" / "control.sqlite")
    records.acquire("first", 0.0, 1.0)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    records.close()


def test_folder_that_others_may_write_to_has_no_state(tmp_path: Path) -> None:
    path = tmp_path / "shared" / "control.sqlite"
    ControlStateStore(path).close()
    for mode in (0o770, 0o707):
        path.parent.chmod(mode)
        with raises_code(ServingError, "control.unsafe") as caught:
            ControlStateStore(path)
        assert caught.value.location == str(path.parent)
    path.parent.chmod(0o755)
    ControlStateStore(path).close()


def test_folder_of_an_earlier_version_is_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / ".circinus" / "engine-control.sqlite"
    ControlStateStore(path).close()
    path.parent.chmod(0o775)
    ControlStateStore(path).close()
    assert path.parent.stat().st_mode & 0o777 == 0o755
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / ".circinus").symlink_to(path.parent)
    path.parent.chmod(0o775)
    with raises_code(ServingError, "control.unsafe"):
        ControlStateStore(tmp_path / "linked" / ".circinus" / path.name)
    assert path.parent.stat().st_mode & 0o777 == 0o775


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_journal_of_another_user_is_not_read(path: Path, suffix: str) -> None:
    ControlStateStore(path).close()
    journal = path.with_name(f"{path.name}{suffix}")
    journal.touch(mode=0o600)
    os.chown(journal, 1, 1)
    with raises_code(ServingError, "control.foreign"):
        ControlStateStore(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [("kind", "$(id)"), ("time_s", 1e300), ("time_s", "soon"), ("details", "{"), ("details", "[" * 100_000),
     ("details", "7"), ("details", '{"from": "0", "to": 1}'), ("number", None)],
)  # fmt: skip
def test_a_damaged_event_is_one_message_that_names_the_file(path: Path, column: str, value: object) -> None:
    store = ControlStateStore(path)
    store.commit(store.acquire("one", 100.0, 5.0), "{}", [Event(100.0, EventKind.STEP, "q", "why", {"from": 1})])
    with closing(sqlite3.connect(path)) as database, database:
        if value is None:
            database.execute("DROP TABLE event")
        else:
            database.execute(f"UPDATE event SET {column} = ?", (value,))
    for read in (store.events, lambda: store.last(5)):
        with raises_code(StateStoreError, "control.unreadable_state") as caught:
            read()
        assert caught.value.location == str(path)
    store.close()


def test_damaged_bytes_in_the_schema_are_one_message_that_names_the_file(path: Path) -> None:
    ControlStateStore(path).close()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE event", b"CREATE TABL\xff event"))  # quoted by SQLite
    with raises_code(ServingError, "control.not_a_state_store") as caught:
        ControlStateStore(path)
    assert caught.value.location == str(path)


@pytest.mark.parametrize("column", ["ends_s", "lasts_s", "ends_s = 1e999, lasts_s"])
@pytest.mark.parametrize("value", ["'soon'", "NULL", "1e999"])
def test_a_damaged_lease_does_not_hold_for_good(path: Path, column: str, value: str) -> None:
    store = ControlStateStore(path)
    store.acquire("one", 100.0, 5.0)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA writable_schema = ON")  # else SQLite refuses NULL
        database.execute("UPDATE sqlite_master SET sql = replace(sql, 'REAL NOT NULL', 'REAL')")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"UPDATE lease SET {column} = {value}")
    store.close()
    store = ControlStateStore(path)
    assert store.acquire("two", 106.0, 5.0) == 2
    assert store.holder(107.0) == "two"
    store.close()
