"""What a controller decided, kept so that no end of a process loses or doubles any of it.

One SQLite file. Whoever controls holds its lease, which ends by itself when it is not renewed; every lease has a number
of its own (a fencing token: Kleppmann, Designing Data-Intensive Applications, 2017, chapter 8), and what is written
under an earlier one is refused.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from circinus.errors import ServingError
from circinus.serving.lease import LeaseHeldError, LeaseLostError

STEP, FAILED, APPLIED, STARTED = "step", "failed", "applied", "began"
REPLAN, ROLLBACK, DRIFT, NOT_MONITORED = "replan", "rollback", "drift", "unwatched"
KINDS = (STARTED, STEP, REPLAN, APPLIED, ROLLBACK, DRIFT, NOT_MONITORED, FAILED)
"""Kinds of events."""

_APPLICATION_ID = 0x43495243 + 1  # after that of profile stores
_SCHEMA_VERSION = 2
_BUSY_S = 2.0
"""For a lock that another process has: shorter than a lease."""
_MOST_EVENTS = 100_000
"""Beyond, the oldest go."""
_DOCUMENTS = "CREATE TABLE document (name TEXT PRIMARY KEY, content TEXT NOT NULL)"
_SCHEMA = f"""
CREATE TABLE lease (
    number INTEGER PRIMARY KEY AUTOINCREMENT, holder TEXT NOT NULL, ends_s REAL NOT NULL, lasts_s REAL NOT NULL
);
CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), content TEXT NOT NULL);
{_DOCUMENTS};
CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT, time_s REAL NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL,
    reason TEXT NOT NULL, details TEXT NOT NULL
);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
"""


@dataclass(frozen=True)
class Event:
    """Something that the controller did, or noticed."""

    time_s: float
    """Seconds since 1970."""
    kind: str
    """`STEP`, `REPLAN`, ..."""
    subject: str
    """Which query, pool, pipeline."""
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
    """In order; 0 before it is kept."""


class StateStoreError(ServingError):
    """State that cannot be written or read."""


class ControlStateStore:
    """A connection to the file. Times are passed in, seconds since 1970."""

    def __init__(self, path: Path) -> None:
        """Open or create it.

        Raises:
            ServingError: it is something else, or of a later version.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
            self._prepare()
            self._connection.execute("PRAGMA journal_mode = WAL")
            # What is decided must be there when the machine comes back, or the same would be decided again.
            self._connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.DatabaseError as error:
            raise ServingError(
                f"the file cannot hold the controller's state: {error}",
                code="control.not_a_state_store",
                location=str(path),
            ) from error

    @classmethod
    def open_existing(cls, path: Path) -> ControlStateStore:
        """Open what a controller keeps or kept.

        Raises:
            ServingError: there is none.
        """
        if not path.is_file():
            raise ServingError(
                "there is no state of a controller",
                code="control.no_state",
                location=str(path),
                hint="Run `circinus serve`, or name the file.",
            )
        return cls(path)

    def close(self) -> None:
        """Close the connection; a lease stays."""
        self._connection.close()

    def holder(self, now_s: float) -> str:
        """Who has the lease; empty: nobody."""
        last = self._connection.execute("SELECT holder, ends_s FROM lease ORDER BY number DESC LIMIT 1").fetchone()
        return str(last[0]) if last is not None and last[1] > now_s else ""

    def acquire(self, holder: str, now_s: float, lasts_s: float) -> int:
        """Take the lease, and give its number.

        Args:
            holder: who, for messages.
            now_s: now.
            lasts_s: how long it lasts unless it is renewed.

        Raises:
            LeaseHeldError: somebody else has it.
        """
        with self._transaction() as execute:
            last = execute("SELECT holder, ends_s - ?, lasts_s FROM lease ORDER BY number DESC", (now_s,)).fetchone()
            # One that ends later than it can have been taken was taken by a clock that was set back since.
            if last is not None and 0 < last[1] <= last[2]:
                raise LeaseHeldError(
                    f"{last[0]} controls this engine, for {last[1]:.1f} s more unless the lease is renewed",
                    code="lease.held",
                    location=str(self.path),
                    hint="End that controller, or wait.",
                )
            row = (holder, now_s + lasts_s, lasts_s)
            execute("DELETE FROM lease WHERE ends_s < ?", (now_s - lasts_s,))
            number = execute("INSERT INTO lease (holder, ends_s, lasts_s) VALUES (?, ?, ?)", row).lastrowid
        return int(number)

    def renew(self, lease: int, now_s: float, lasts_s: float) -> None:
        """Keep the lease for longer.

        Raises:
            LeaseLostError: it ended and somebody else has one.
        """
        with self._holding(lease) as execute:
            execute("UPDATE lease SET ends_s = ?, lasts_s = ? WHERE number = ?", (now_s + lasts_s, lasts_s, lease))

    def release(self, lease: int) -> None:
        """Give it back, so that the next one need not wait."""
        with self._transaction() as execute:
            execute("UPDATE lease SET ends_s = 0 WHERE number = ?", (lease,))

    def commit(
        self,
        lease: int,
        content: str,
        events: Sequence[Event] = (),
        documents: Mapping[str, str | None] | None = None,
    ) -> tuple[Event, ...]:
        """Keep a state and what led to it, all or nothing. Commit first, then act: then nothing is done twice.

        Gives the events with their numbers.

        Args:
            lease: that allows it.
            content: the state.
            events: what led to it.
            documents: larger parts of the state, by name, that are kept until they are written again; None ends one.

        Raises:
            LeaseLostError: somebody else has the lease.
        """
        kept = []
        with self._holding(lease) as execute:
            execute("INSERT OR REPLACE INTO state (id, content) VALUES (1, ?)", (content,))
            for name, document in (documents or {}).items():
                if document is None:
                    execute("DELETE FROM document WHERE name = ?", (name,))
                else:
                    execute("INSERT OR REPLACE INTO document (name, content) VALUES (?, ?)", (name, document))
            for event in events:
                row = (event.time_s, event.kind, event.subject, event.reason, json.dumps(dict(event.details)))
                done = execute("INSERT INTO event (time_s, kind, subject, reason, details) VALUES (?, ?, ?, ?, ?)", row)
                kept.append(replace(event, number=int(done.lastrowid)))
            if events:
                execute("DELETE FROM event WHERE number <= (SELECT max(number) FROM event) - ?", (_MOST_EVENTS,))
        return tuple(kept)

    def state(self) -> str | None:
        """What was last committed; None before anything was."""
        found = self._read("SELECT content FROM state").fetchone()
        return None if found is None else str(found[0])

    def document(self, name: str) -> str | None:
        """A larger part of the state; None: there is none."""
        found = self._read("SELECT content FROM document WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def events(self, after: int = 0, most: int = 1000) -> tuple[Event, ...]:
        """The first that came after the one with a number."""
        rows = self._read(
            "SELECT time_s, kind, subject, reason, details, number FROM event WHERE number > ? ORDER BY number LIMIT ?",
            (after, most),
        )
        return tuple(_event(*row) for row in rows)

    def last(self, most: int, kind: str | None = None) -> tuple[Event, ...]:
        """The last ones, oldest first; of one kind, or of all."""
        rows = self._read(
            "SELECT time_s, kind, subject, reason, details, number FROM event WHERE ? IS NULL OR kind = ? "
            "ORDER BY number DESC LIMIT ?",
            (kind, kind, most),
        )
        return tuple(_event(*row) for row in reversed(rows.fetchall()))

    def newest(self) -> int:
        """Number of the last event; 0: there was none."""
        return int(self._read("SELECT coalesce(max(number), 0) FROM event").fetchone()[0])

    def _read(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StateStoreError(
                f"the controller's state cannot be read: {error}",
                code="control.unreadable_state",
                location=str(self.path),
            ) from error

    def _prepare(self) -> None:
        with self._transaction() as execute:
            version = execute("PRAGMA user_version").fetchone()[0]
            application = execute("PRAGMA application_id").fetchone()[0]
            if not version and not application and not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    execute(statement)
                return
            if application == _APPLICATION_ID and version == 1:  # nothing of it means anything else now
                execute(_DOCUMENTS)
                execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                return
        if application != _APPLICATION_ID or version != _SCHEMA_VERSION:
            raise ServingError(
                f"found a database of another kind or version ({version}), "
                f"expected the state of a controller, version {_SCHEMA_VERSION}",
                code="control.other_database",
                location=str(self.path),
                hint="Name another file.",
            )

    @contextmanager
    def _holding(self, lease: int) -> Iterator[Any]:
        with self._transaction() as execute:
            last = execute("SELECT number, holder FROM lease ORDER BY number DESC LIMIT 1").fetchone()
            if last is None or last[0] != lease:
                who = "no controller" if last is None else last[1]
                raise LeaseLostError(
                    f"the lease was lost, now {who} controls this engine", code="lease.lost", location=str(self.path)
                )
            yield execute

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection.execute
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise StateStoreError(
                    f"the controller's state cannot be written: {error}",
                    code="control.unwritable_state",
                    location=str(self.path),
                ) from error
            raise


def _event(time_s: float, kind: str, subject: str, reason: str, details: str, number: int) -> Event:
    return Event(time_s, kind, subject, reason, json.loads(details), number)
