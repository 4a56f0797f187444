"""Profile store: one content-addressed SQLite file, written one increment at a time."""

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
except ImportError:  # Windows: SQLite's own lock suffices, but the lock holder cannot be named
    fcntl = None  # type: ignore[assignment]  # not on Windows

_POLLING_INTERVAL_S = 0.005


class WriteLock:
    """Lock of the operating system on a file, which contains a description of the lock holder.

    The system releases the lock when the holder's process ends in any way, so that no stale lock remains. The file's
    content is meaningful only while the lock is held.
    """

    def __init__(self, path: Path) -> None:
        """Use the lock file `path`, which is created on first use."""
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, timeout_s: float) -> bool:
        """Wait for the lock; return False if another process still has it after `timeout_s` seconds.

        Raises:
            OSError: the file cannot be created or locked.
        """
        if fcntl is None:
            return True
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        end_s = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end_s:
                    return False
                time.sleep(_POLLING_INTERVAL_S)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, _description().encode(), 0)
        return True

    def release(self) -> None:
        """Release the lock to the next writer."""
        if fcntl is not None and self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def holder(self) -> str:
        """Return the lock holder's description of itself, after `acquire` has failed."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace") or "another process"
        except OSError:
            return "another process"

    def close(self) -> None:
        """Release the lock if it is held. Idempotent."""
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
    """Connection to a profile store.

    Readers never wait. Writers wait for each other, up to half a minute, and then fail with the name of the lock
    holder. Every transaction is atomic, however the process ends. A store with an earlier schema is migrated when it is
    opened.
    """

    def __init__(self, path: Path, *, create: bool = False, busy_s: float = _BUSY_S) -> None:
        """Open the store.

        Args:
            path: store file.
            create: whether to create it, and the folders above it, if it is missing.
            busy_s: timeout of waiting for another writer.

        Raises:
            ProfileError: the store is missing, has a later schema, or is no profile store.
        """
        self.path = path
        self._busy_s = busy_s
        self._lock = WriteLock(path.with_name(f"{path.name}-writer"))
        if not create and not path.is_file():
            raise ProfileError(
                "the profile store does not exist",
                code="store.missing",
                location=str(path),
                hint="Run `circinus profile`.",
            )
        with self._translated_errors():
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
        self._connection.close()
        self._lock.close()

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        with self._translated_errors():
            return self._connection.execute(query, parameters).fetchall()

    def write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute a statement once for each of `rows`. Call it inside `transaction`."""
        with self._translated_errors():
            self._connection.executemany(statement, rows)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all writes inside together, or roll them back on an error or interrupt.

        Raises:
            ProfileError: another process has been writing for too long; names it.
        """
        with self._locked():
            with self._translated_errors():
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                with self._translated_errors():
                    self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def ids(self, hashes: Sequence[str]) -> dict[str, int]:
        """Return the ids of content hashes, inserting new ones. Call it inside `transaction`."""
        self.write("INSERT OR IGNORE INTO address (address) VALUES (?)", [(content_hash,) for content_hash in hashes])
        return self.existing_ids(hashes)

    def existing_ids(self, hashes: Sequence[str]) -> dict[str, int]:
        """Return the ids of the content hashes that have one."""
        return dict(
            self.rows(
                "SELECT address, id FROM address WHERE address IN (SELECT value FROM json_each(?))",
                as_json(list(hashes)),
            )
        )

    def _prepare(self, create: bool) -> None:
        execute = self._connection.execute
        execute("PRAGMA synchronous = NORMAL")
        if create and not self._application() and not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._create()
        if self._application() != _APPLICATION_ID:
            raise ProfileError(
                "the database is not a profile store",
                code="store.wrong_kind",
                location=str(self.path),
                hint="Use another file.",
            )
        if create and execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            with self._locked():  # the mode cannot be changed during a transaction
                execute("PRAGMA journal_mode = WAL")
        migrate(self._connection, self.transaction, self.path)

    def _create(self) -> None:
        """Mark the database as a store, unless another process has created tables."""
        execute = self._connection.execute
        with self.transaction():
            if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")

    def _application(self) -> int:
        return int(self._connection.execute("PRAGMA application_id").fetchone()[0])

    def _busy(self, holder: str) -> ProfileError:
        return ProfileError(
            f"timed out after {self._busy_s:g} s waiting to write, while {holder} was writing",
            code="store.busy",
            location=str(self.path),
            hint="Wait for it to finish, or use another store.",
        )

    def _unusable(self, error: Exception) -> ProfileError:
        return ProfileError(
            f"cannot access the profile store: {error}", code="store.inaccessible", location=str(self.path)
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._translated_errors():
            if not self._lock.acquire(self._busy_s):
                raise self._busy(self._lock.holder())
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise self._busy("another process") from error
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            raise ProfileError(
                f"the file is not a profile store, or is damaged: {error}",
                code="store.damaged",
                location=str(self.path),
                hint="Use another file.",
            ) from error
        except OSError as error:
            raise self._unusable(error) from error


def as_json(value: Any) -> str:
    """Return the JSON text for `json_each`."""
    return json.dumps(value)
