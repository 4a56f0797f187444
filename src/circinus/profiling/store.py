"""The profile store: one SQLite file, content-addressed, written one increment at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from circinus.errors import ProfileError

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x43495243  # "CIRC"
_BUSY_S = 30.0

_SCHEMA = """
CREATE TABLE address (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE);

CREATE TABLE dataset (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE);
CREATE TABLE dataset_item (
    dataset INTEGER NOT NULL, position INTEGER NOT NULL, item INTEGER NOT NULL, key TEXT NOT NULL,
    input_bytes INTEGER NOT NULL, PRIMARY KEY (dataset, position)) WITHOUT ROWID;
CREATE TABLE dataset_order (
    dataset INTEGER NOT NULL, seed INTEGER NOT NULL, positions TEXT NOT NULL, PRIMARY KEY (dataset, seed)
    ) WITHOUT ROWID;
CREATE TABLE dataset_source (source INTEGER PRIMARY KEY, dataset INTEGER NOT NULL);

CREATE TABLE service (
    subject INTEGER NOT NULL, item INTEGER NOT NULL, service_s REAL NOT NULL, output_bytes INTEGER NOT NULL,
    PRIMARY KEY (subject, item)) WITHOUT ROWID;
CREATE TABLE output (subject INTEGER NOT NULL, item INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (subject, item));
CREATE TABLE score (subject INTEGER NOT NULL, item INTEGER NOT NULL, score REAL NOT NULL,
    PRIMARY KEY (subject, item)) WITHOUT ROWID;

CREATE TABLE replica (subject INTEGER PRIMARY KEY, loads INTEGER NOT NULL, load_s REAL NOT NULL,
    peak_memory_bytes INTEGER NOT NULL);
CREATE TABLE allocation (subject INTEGER NOT NULL, cpus REAL NOT NULL, batch_size INTEGER NOT NULL,
    ratio REAL NOT NULL, PRIMARY KEY (subject, cpus, batch_size)) WITHOUT ROWID;

CREATE TABLE effort (subject INTEGER PRIMARY KEY, ran_s REAL NOT NULL, saved_s REAL NOT NULL);
CREATE TABLE failure (subject INTEGER PRIMARY KEY, item_key TEXT, reason TEXT NOT NULL);

CREATE TABLE recording (pipeline TEXT NOT NULL, prefix TEXT NOT NULL, operator TEXT NOT NULL, allowed TEXT NOT NULL,
    service INTEGER NOT NULL, output INTEGER NOT NULL, replica INTEGER NOT NULL, dataset INTEGER NOT NULL,
    seed INTEGER NOT NULL, PRIMARY KEY (pipeline, prefix)) WITHOUT ROWID;
"""
"""`address` numbers the content addresses of `addresses` and of items; `subject`, `item`, `source`, `service`, `output`
and `replica` are such numbers. `replica.load_s` is the sum over `loads`. `recording` says which addresses the latest
measurement of a pipeline used for a prefix, so that recordings are found without the pipeline's code."""


class ProfileStore:
    """A connection to a profile store.

    Readers never wait. Writers wait for each other, up to half a minute. Every transaction is there as a whole or
    not at all, however the process ends.
    """

    def __init__(self, path: Path, *, create: bool = False, busy_s: float = _BUSY_S) -> None:
        """Open the store.

        Args:
            path: the file.
            create: make it, and the folders above it, if it does not exist.
            busy_s: how long to wait for another writer.

        Raises:
            ProfileError: there is none, or it is of another schema, or no profile store at all.
        """
        self.path = path
        self._busy_s = busy_s
        if not create and not path.is_file():
            raise ProfileError(f"found no profile store at {path}; measure first (circinus profile)")
        with self._explained():
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
            try:
                self._prepare(create)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

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
        """Everything written inside is committed together, or nothing where an error (or interrupt) leaves it."""
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

    def numbers(self, addresses: Sequence[str]) -> dict[str, int]:
        """Number content addresses, new ones too. Call it inside `transaction`."""
        self.write("INSERT OR IGNORE INTO address (address) VALUES (?)", [(address,) for address in addresses])
        return self.known_numbers(addresses)

    def known_numbers(self, addresses: Sequence[str]) -> dict[str, int]:
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
        if create and not execute("PRAGMA application_id").fetchone()[0]:
            self._create()
        if execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise ProfileError(f"{self.path} is a database, but no profile store; name another file")
        version = execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise ProfileError(
                f"{self.path}: found a profile store of schema {version}, expected {SCHEMA_VERSION}; measure into a "
                "new file, or use the version of Circinus that wrote it"
            )

    def _create(self) -> None:
        """Make the tables, unless somebody else has made some meanwhile."""
        execute = self._connection.execute
        with self.transaction():
            if not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    execute(statement)
                execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if execute("PRAGMA application_id").fetchone()[0] == _APPLICATION_ID:
            execute("PRAGMA journal_mode = WAL")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise ProfileError(
                    f"{self.path}: another process has been writing for more than {self._busy_s:g} s; let it end, or "
                    "use another store"
                ) from error
            raise ProfileError(f"{self.path}: the profile store cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ProfileError(f"{self.path} is no profile store, or is damaged: {error}; name another file") from error
        except OSError as error:
            raise ProfileError(f"{self.path}: the profile store cannot be used: {error}") from error


def as_json(value: Any) -> str:
    """Text that `json_each` takes apart."""
    return json.dumps(value)
