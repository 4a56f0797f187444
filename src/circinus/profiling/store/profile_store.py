"""Profile store: one content-addressed SQLite file, written one increment at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from circinus.errors import ProfileError
from circinus.private_files import make_private_folder, open_private, require_plain_database
from circinus.profiling.store.migrations import (
    SCHEMA_VERSION,
    current_columns,
    migrate,
    require_supported_schema,
    schema_fault,
)
from circinus.profiling.store.table_checksums import content_fault, enable_checksums, update_checksums

_POLLING_INTERVAL_S = 0.005
_DESCRIPTION_BYTES = 4096


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
            ProfileError: another file is in its place; its content would be overwritten.
            OSError: the file cannot be created or locked.
        """
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_CREAT
            self._descriptor = open_private(self.path, flags, denied=None, area="store", error=ProfileError)
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
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def holder(self) -> str:
        """Return the lock holder's description of itself, after `acquire` has failed."""
        if self._descriptor is None:
            return "another process"
        return os.pread(self._descriptor, _DESCRIPTION_BYTES, 0).decode(errors="replace") or "another process"

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
_DAMAGE = {None, sqlite3.SQLITE_ERROR}
"""Error codes of a text that is no UTF-8, and of a missing table or column."""
_sound_files = set[object]()
"""Versions of files that were checked. `PRAGMA integrity_check` reads some 1 GB a second."""
_CONTENT_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
"""Errors of code that reads rows of another form than was written."""
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class ProfileStore:
    """Connection to a profile store.

    Readers never wait. Writers wait for each other, up to half a minute, and then fail with the name of the lock
    holder. Every transaction is atomic, however the process ends. A store with an earlier schema is migrated when it is
    opened, in memory if the file may not change.
    """

    def __init__(self, path: Path, *, create: bool = False, immutable: bool = False, busy_s: float = _BUSY_S) -> None:
        """Open the store.

        Args:
            path: store file.
            create: whether to create it, and the folders above it, if it is missing.
            immutable: whether neither the file nor its folder may change.
            busy_s: timeout of waiting for another writer.

        Raises:
            ProfileError: the store is missing, has a later schema, or is no profile store.
        """
        self.path = path
        self._busy_s, self._immutable = busy_s, immutable
        self._reads_only = not create
        self._is_current = self._updates_checksums = False
        self._files = path, path.with_name(f"{path.name}-wal")
        self._lock = WriteLock(path.with_name(f"{path.name}-writer"))
        with self._translated_errors():
            if not create and not path.exists():
                hint = "Run `circinus profile`."
                raise self._fault("the profile store does not exist", code="store.missing", hint=hint)
            if path.exists() and not path.is_file():
                raise self._wrong_kind("a folder or device is no profile store")
            if path.is_symlink() and path.lstat().st_uid not in (0, os.geteuid()):
                raise OSError(errno.ELOOP, "a symbolic link of another user", str(path))
            require_plain_database(path, area="store", error=ProfileError)
            if create:
                make_private_folder(path.parent)
                with suppress(FileExistsError):  # SQLite gives its other files the mode of this one, if there are modes
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                    os.close(open_private(path, flags, denied=None, area="store", error=ProfileError))
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
        if isinstance(error, _CONTENT_ERRORS) and self._reads_only:
            raise self.damaged(f"{type(error).__name__}: {error}") from error

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
            ProfileError: another process has been writing for too long (names it), or has migrated the store to a
                later schema.
        """
        with self._locked():
            with self._translated_errors():
                if self._is_current:  # a later version may have migrated the store since
                    require_supported_schema(self._connection, self.path)
                    if not self._updates_checksums:
                        update_checksums(self._connection, current_columns())
                        self._updates_checksums = True
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
        enable_checksums(self._connection)
        if create and not self._application() and not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._create()
        if self._application() != _APPLICATION_ID:
            raise self._wrong_kind("the database is not a profile store")
        schema = require_supported_schema(self._connection, self.path)
        version = self._file_version()  # before the checks: others may write meanwhile
        is_sound = version in _sound_files
        if not is_sound:
            self._check(schema_fault)
            self._check_pages()
        if create and execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            with self._locked():  # the mode cannot be changed during a transaction
                execute("PRAGMA journal_mode = WAL")
        if self._immutable and schema < SCHEMA_VERSION:
            self._copy_to_memory()
        migrate(self._connection, self.transaction, self.path)
        if not is_sound:
            self._check(lambda connection: content_fault(connection, current_columns()))
            _sound_files.add(version)
        self._is_current = True

    def _copy_to_memory(self) -> None:
        copy = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.backup(copy)
        self._connection.close()
        self._connection = copy
        enable_checksums(copy)

    def _check_pages(self) -> None:
        execute = self._connection.execute
        ((found,),) = execute("PRAGMA integrity_check(1)")
        if found != "ok":
            raise self.damaged(found)
        ((expected_bytes,),) = execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        log = _status(self._files[1])  # first: its pages are in the store before it is removed
        found_bytes = self.path.stat().st_size
        if not (log and log.st_size) and found_bytes < expected_bytes:
            raise self.damaged(f"found {found_bytes} bytes, expected {expected_bytes}")

    def _check(self, fault_of: Callable[[sqlite3.Connection], str | None]) -> None:
        self._connection.execute("BEGIN")  # others may write
        try:
            fault = fault_of(self._connection)
        finally:
            self._connection.execute("ROLLBACK")
        if fault is not None:
            raise self.damaged(fault)

    def _file_version(self) -> tuple[object, ...]:
        """Return what changes whenever the store is written."""
        return tuple(
            (file, s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns)
            for file in self._files
            if (s := _status(file)) and s.st_size
        )

    def _create(self) -> None:
        """Mark the database as a store, unless another process has created tables."""
        execute = self._connection.execute
        with self.transaction():
            if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")

    def _application(self) -> int:
        return int(self._connection.execute("PRAGMA application_id").fetchone()[0])

    def damaged(self, fault: str) -> ProfileError:
        """Return the error for content that was not written so."""
        problem = f"the file is not a profile store, or is damaged: {fault}"
        hint = "Use a copy, or remove the file and run `circinus profile` again."
        return self._fault(problem, code="store.damaged", hint=hint)

    def _wrong_kind(self, fault: str) -> ProfileError:
        return self._fault(fault, code="store.wrong_kind", hint="Use another file.")

    def _busy(self, holder: str) -> ProfileError:
        problem = f"timed out after {self._busy_s:g} s waiting to write, while {holder} was writing"
        return self._fault(problem, code="store.busy", hint="Wait for it to finish, or use another store.")

    def _unusable(self, error: Exception) -> ProfileError:
        return self._fault(f"cannot access the profile store: {error}", code="store.inaccessible")

    def _fault(self, problem: str, *, code: str, hint: str = "") -> ProfileError:
        return ProfileError(problem, code=code, location=str(self.path), hint=hint)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._immutable:
            yield
            return
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
            if getattr(error, "sqlite_errorcode", None) in _DAMAGE:
                raise self.damaged(str(error)) from error
            raise self._unusable(error) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self.damaged(str(error)) from error
        except OSError as error:
            raise self._unusable(error) from error


def content_errors_as_damage(
    read: Callable[Concatenate[ProfileStore, _Parameters], _Result],
) -> Callable[Concatenate[ProfileStore, _Parameters], _Result]:
    """Let a function that reads rows raise `store.damaged` where they have another form than was written."""

    @wraps(read)
    def reading(store: ProfileStore, /, *args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        try:
            return read(store, *args, **options)
        except _CONTENT_ERRORS as error:
            raise store.damaged(f"{type(error).__name__}: {error}") from error

    return reading


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def as_json(value: Any) -> str:
    """Return the JSON text for `json_each`."""
    return json.dumps(value)
