"""The profile store: one SQLite file, content-addressed, written one increment at a time."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from circinus.errors import ProfileError
from circinus.profiling.store.migrations import migrate

try:
    import fcntl
except ImportError:  # Windows: SQLite's own lock does, and nobody can be named
    fcntl = None  # type: ignore[assignment]

_LOOK_AGAIN_S = 0.005


class WriteLock:
    """A lock of the operating system on a file, in which the holder says who it is.

    The system takes the lock back when the holder's process ends in whatever way, so that nothing stale remains; what
    is written in the file means something only while the lock is held.
    """

    def __init__(self, path: Path) -> None:
        """Lock `path`, which is made when it is first needed."""
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, patience_s: float) -> bool:
        """Wait for the lock; False when another still has it after `patience_s` seconds.

        Raises:
            OSError: the file cannot be made or locked.
        """
        if fcntl is None:
            return True
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        end_s = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end_s:
                    return False
                time.sleep(_LOOK_AGAIN_S)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, _description().encode(), 0)
        return True

    def release(self) -> None:
        """Let the next one write."""
        if fcntl is not None and self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def holder(self) -> str:
        """Who has the lock, as it described itself; asked when `acquire` has failed."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace") or "another process"
        except OSError:
            return "another process"

    def close(self) -> None:
        """Release what is held. May be called more than once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _description() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else sys.executable
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} ({command}), since {since}"


_APPLICATION_ID = 0x43495243  # "CIRC"
_BUSY_S = 30.0


class ProfileStore:
    """A connection to a profile store.

    Readers never wait. Writers wait for each other, up to half a minute, and are then told who writes. Every
    transaction is there as a whole or not at all, however the process ends. A store of an earlier schema is brought to
    the present one when it is opened.
    """

    def __init__(self, path: Path, *, create: bool = False, busy_s: float = _BUSY_S) -> None:
        """Open the store.

        Args:
            path: the file.
            create: make it, and the folders above it, if it does not exist.
            busy_s: how long to wait for another writer.

        Raises:
            ProfileError: there is none, or it is of a later schema, or no profile store at all.
        """
        self.path = path
        self._busy_s = busy_s
        self._lock = WriteLock(path.with_name(f"{path.name}-writer"))
        if not create and not path.is_file():
            raise ProfileError(f"found no profile store at {path}; measure first (circinus profile)")
        with self._explained():
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
            try:
                self._prepare(create)
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self._lock.close()

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        """All rows of a query."""
        with self._explained():
            return self._connection.execute(query, parameters).fetchall()

    def write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement once for each of `rows`. Call it inside `transaction`."""
        with self._explained():
            self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside is committed together, or nothing where an error (or interrupt) leaves it.

        Raises:
            ProfileError: another process has been writing for too long; says which.
        """
        with self._locked():
            with self._explained():
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._explained():
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def ids(self, addresses: Sequence[str]) -> dict[str, int]:
        """Number content addresses, new ones too. Call it inside `transaction`."""
        self.write("INSERT OR IGNORE INTO address (address) VALUES (?)", [(address,) for address in addresses])
        return self.existing_ids(addresses)

    def existing_ids(self, addresses: Sequence[str]) -> dict[str, int]:
        """The numbers of those content addresses that have one."""
        return dict(
            self.rows(
                "SELECT address, id FROM address WHERE address IN (SELECT value FROM json_each(?))",
                as_json(list(addresses)),
            )
        )

    def _prepare(self, create: bool) -> None:
        execute = self._connection.execute
        execute("PRAGMA synchronous = NORMAL")
        if create and not self._application() and not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._create()
        if self._application() != _APPLICATION_ID:
            raise ProfileError(f"{self.path} is a database, but no profile store; name another file")
        if create and execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            with self._locked():  # the mode cannot be changed while somebody writes
                execute("PRAGMA journal_mode = WAL")
        migrate(self._connection, self.transaction, self.path)

    def _create(self) -> None:
        """Make it a store, unless somebody else has made something of it meanwhile."""
        execute = self._connection.execute
        with self.transaction():
            if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")

    def _application(self) -> int:
        return int(self._connection.execute("PRAGMA application_id").fetchone()[0])

    def _busy(self, holder: str) -> ProfileError:
        return ProfileError(
            f"{self.path}: waited {self._busy_s:g} s to write, while {holder} was writing; let it end, or use another "
            "store"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._explained():
            if not self._lock.acquire(self._busy_s):
                raise self._busy(self._lock.holder())
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise self._busy("another process") from error
            raise ProfileError(f"{self.path}: the profile store cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ProfileError(f"{self.path} is no profile store, or is damaged: {error}; name another file") from error
        except OSError as error:
            raise ProfileError(f"{self.path}: the profile store cannot be used: {error}") from error


def as_json(value: Any) -> str:
    """Text that `json_each` takes apart."""
    return json.dumps(value)
