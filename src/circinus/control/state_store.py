"""Durable state of the controller, so that a crash neither loses nor repeats a decision.

The store is one SQLite file. The controller holds its lease, which expires unless renewed. Every lease has its own
number (a fencing token: Kleppmann, Designing Data-Intensive Applications, 2017, chapter 8); writes under an earlier
lease are refused.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from circinus.errors import ServingError
from circinus.private_files import make_private_folder, open_private, require_plain_database, require_private
from circinus.serving.lease import LeaseHeldError, LeaseLostError
from circinus.specification.json_dump import parse_json

_IN_MEMORY = ":memory:"
_APPLICATION_ID = 0x43495243 + 1  # follows the one of profile stores
_SCHEMA_VERSION = 2
_LOCK_TIMEOUT_S = 2.0
"""Timeout for a lock of another process; shorter than a lease."""
_MAX_LEASE_S = 3600.0
"""Longest lease; a longer one is damaged."""
_MAX_EVENTS = 100_000
"""Maximum number of stored events; the oldest are deleted."""
_MAX_TIME_S = 2**36
"""Latest time of an event, in the year 4147."""
_DATABASE_ERRORS = sqlite3.Error, UnicodeDecodeError
"""Errors of statements: that of a damaged file may quote bytes that are no text, which Python then cannot decode."""
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


class EventKind(StrEnum):
    """Kind of an event."""

    STARTED = "began"
    STEP = "step"
    REPLAN = "replan"
    APPLIED = "applied"
    APPLY = "apply"
    """In a dry run only, which stores no events."""
    ROLLBACK = "rollback"
    DRIFT = "drift"
    NOT_MONITORED = "unwatched"
    REROUTE = "reroute"
    FAILED = "failed"


@dataclass(frozen=True)
class Event:
    """Action or observation of the controller."""

    time_s: float
    """Seconds since 1970."""
    kind: EventKind
    subject: str
    """Name of the query, pool, pipeline or part."""
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
    number: int = 0
    """Sequence number; 0 before the event is stored."""


class StateStoreError(ServingError):
    """Failure to write or read the controller's state."""


class ControlStateStore:
    """Connection to the state file. Times are passed in as seconds since 1970."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises:
            ServingError: the file is of another kind, of a later version, or another user may have placed it.
        """
        self.path = path
        try:
            if str(path) != _IN_MEMORY:
                _create(path)
                require_plain_database(path, area="control", error=ServingError)
            self._connection = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None)
            self._prepare()
            self._connection.execute("PRAGMA journal_mode = WAL")
            # Decisions must survive a power failure, or they would be made twice.
            self._connection.execute("PRAGMA synchronous = FULL")
        except (OSError, *_DATABASE_ERRORS) as error:
            raise ServingError(
                f"cannot open the controller state file: {error}",
                code="control.not_a_state_store",
                location=str(path),
            ) from error

    @classmethod
    def open_existing(cls, path: Path) -> ControlStateStore:
        """Open an existing state file of a controller.

        Raises:
            ServingError: the file does not exist.
        """
        if not path.is_file():
            raise ServingError(
                "the controller state file does not exist",
                code="control.no_state",
                location=str(path),
                hint="Run `circinus serve`, or name the file with `--state-file`.",
            )
        return cls(path)

    def close(self) -> None:
        """Close the connection without releasing a lease."""
        self._connection.close()

    def holder(self, now_s: float) -> str:
        """Return the holder of the lease, or "" if it is free."""
        newest = "SELECT holder, ends_s FROM lease ORDER BY number DESC LIMIT 1"
        rows = self._read(f"SELECT holder FROM ({newest}) WHERE CAST(ends_s AS REAL) > ?", (now_s,))
        return str(rows[0][0]) if rows else ""

    def acquire(self, holder: str, now_s: float, ttl_s: float) -> int:
        """Acquire the lease and return its number.

        The lease lasts for `ttl_s` unless renewed; messages name its holder.

        Raises:
            LeaseHeldError: another controller holds the lease.
        """
        with self._transaction() as execute:
            left_s, lasts_s = "coalesce(ends_s - ?, 0)", "coalesce(CAST(lasts_s AS REAL), 0)"  # they may be damaged
            newest = f"SELECT holder, {left_s}, {lasts_s} FROM lease ORDER BY number DESC"
            lease = execute(newest, (now_s,)).fetchone()
            # A lease that ends later than possible dates from before the clock was set back.
            if lease is not None and 0 < lease[1] <= min(lease[2], _MAX_LEASE_S):
                raise LeaseHeldError(
                    f"controller {lease[0]} holds the lease (expires in {lease[1]:.1f} s)",
                    code="lease.held",
                    location=str(self.path),
                    hint="Stop that controller, or wait.",
                )
            row = (holder, now_s + ttl_s, ttl_s)
            execute("DELETE FROM lease WHERE ends_s < ?", (now_s - ttl_s,))
            number = execute("INSERT INTO lease (holder, ends_s, lasts_s) VALUES (?, ?, ?)", row).lastrowid
        return int(number)

    def renew(self, lease: int, now_s: float, ttl_s: float) -> None:
        """Extend the lease.

        Raises:
            LeaseLostError: the lease expired and another controller acquired one.
        """
        with self._fenced(lease) as execute:
            execute("UPDATE lease SET ends_s = ?, lasts_s = ? WHERE number = ?", (now_s + ttl_s, ttl_s, lease))

    def release(self, lease: int) -> None:
        """Release the lease, so that a successor need not wait."""
        with self._transaction() as execute:
            execute("UPDATE lease SET ends_s = 0 WHERE number = ?", (lease,))

    def commit(
        self,
        lease: int,
        content: str,
        events: Sequence[Event] = (),
        documents: Mapping[str, str | None] | None = None,
    ) -> tuple[Event, ...]:
        """Store a state with its events atomically and return the events with their numbers.

        Commit before acting, so that no decision is carried out twice.

        Args:
            lease: number of the lease that authorizes the write.
            content: new state.
            events: events that led to the state.
            documents: larger parts of the state by name, stored until overwritten; None deletes one.

        Raises:
            LeaseLostError: another controller holds the lease.
        """
        stored = []
        with self._fenced(lease) as execute:
            execute("INSERT OR REPLACE INTO state (id, content) VALUES (1, ?)", (content,))
            for name, document in (documents or {}).items():
                if document is None:
                    execute("DELETE FROM document WHERE name = ?", (name,))
                else:
                    execute("INSERT OR REPLACE INTO document (name, content) VALUES (?, ?)", (name, document))
            for event in events:
                row = (event.time_s, event.kind, event.subject, event.reason, json.dumps(dict(event.details)))
                cursor = execute(
                    "INSERT INTO event (time_s, kind, subject, reason, details) VALUES (?, ?, ?, ?, ?)", row
                )
                stored.append(replace(event, number=int(cursor.lastrowid)))
            if events:
                execute("DELETE FROM event WHERE number <= (SELECT max(number) FROM event) - ?", (_MAX_EVENTS,))
        return tuple(stored)

    def state(self) -> str | None:
        """Return the last committed state, or None before the first commit."""
        rows = self._read("SELECT content FROM state")
        return str(rows[0][0]) if rows else None

    def document(self, name: str) -> str | None:
        """Return the named document, or None if it does not exist."""
        rows = self._read("SELECT content FROM document WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def events(self, after: int = 0, count: int = 1000) -> tuple[Event, ...]:
        """Return the first events with numbers greater than `after`."""
        return self._events("WHERE number > ? ORDER BY number LIMIT ?", (after, count))

    def last(self, count: int, kind: str | None = None) -> tuple[Event, ...]:
        """Return the last events, oldest first, optionally of one kind."""
        newest_first = "WHERE ? IS NULL OR kind = ? ORDER BY number DESC LIMIT ?"
        return self._events(newest_first, (kind, kind, count))[::-1]

    def newest(self) -> int:
        """Return the number of the last event, or 0 if there is none."""
        return int(self._read("SELECT coalesce(max(number), 0) FROM event")[0][0])

    def _events(self, condition: str, values: tuple[object, ...]) -> tuple[Event, ...]:
        rows = self._read(f"SELECT time_s, kind, subject, reason, details, number FROM event {condition}", values)
        try:
            return tuple(_event(*row) for row in rows)
        except (ValueError, TypeError) as error:
            raise self._unreadable(f"an event is damaged: {error}") from error

    def _read(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except (*_DATABASE_ERRORS, OverflowError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, reason: object) -> StateStoreError:
        return StateStoreError(
            f"cannot read the controller state: {reason}",
            code="control.unreadable_state",
            location=str(self.path),
            hint="Move the file away; the next controller begins with the plan file.",
        )

    def _prepare(self) -> None:
        with self._transaction() as execute:
            version = execute("PRAGMA user_version").fetchone()[0]
            application = execute("PRAGMA application_id").fetchone()[0]
            if not version and not application and not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    execute(statement)
                return
            if application == _APPLICATION_ID and version == 1:  # version 2 only adds a table
                execute(_DOCUMENTS)
                execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                return
        if application != _APPLICATION_ID or version != _SCHEMA_VERSION:
            raise ServingError(
                f"the file is not a controller state file of version {_SCHEMA_VERSION} (its version is {version})",
                code="control.other_database",
                location=str(self.path),
                hint="Name another file.",
            )

    @contextmanager
    def _fenced(self, lease: int) -> Iterator[Any]:
        with self._transaction() as execute:
            newest = execute("SELECT number, holder FROM lease ORDER BY number DESC LIMIT 1").fetchone()
            if newest is None or newest[0] != lease:
                successor = "no controller" if newest is None else f"controller {newest[1]}"
                raise LeaseLostError(
                    f"the lease was lost; {successor} holds it now", code="lease.lost", location=str(self.path)
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
            if isinstance(error, _DATABASE_ERRORS):
                raise StateStoreError(
                    f"cannot write the controller state: {error}",
                    code="control.unwritable_state",
                    location=str(self.path),
                ) from error
            raise


def _create(path: Path) -> None:
    """Create an empty file, or check that the existing one, its journals and its folder are private.

    An existing file is not opened here: closing it would drop the locks of other connections of this process.
    """
    folder = path.parent
    make_private_folder(folder)
    status = folder.stat()
    others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if others and folder.name == ".circinus" and not folder.is_symlink() and status.st_uid == os.geteuid():
        # Earlier versions created it with the umask. Taking the right away is safe, as the folder is of this package
        # alone; what another user has placed in it meanwhile is refused below.
        with suppress(OSError):
            folder.chmod(stat.S_IMODE(status.st_mode) & ~others)
    # Another user of the folder could replace the file, or place a journal that SQLite reads.
    require_private(folder.stat(), folder, stat.S_IFDIR, area="control", error=ServingError)
    with suppress(FileExistsError):
        os.close(open_private(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
    for suffix in ("", "-wal", "-shm", "-journal"):
        file = path.with_name(f"{path.name}{suffix}")
        with suppress(FileNotFoundError):
            require_private(file.lstat(), file, area="control", error=ServingError)


def _event(time_s: float, kind: str, subject: str, reason: str, details: str, number: int) -> Event:
    if not 0 <= time_s < _MAX_TIME_S:
        raise ValueError(f"found the time {time_s}, expected seconds since 1970")
    content = dict(parse_json(details))
    if not all(type(content.get(rung, 0)) is int for rung in ("from", "to")):
        raise ValueError("found rungs that are no whole numbers")
    return Event(time_s, EventKind(kind), str(subject), str(reason), content, number)
