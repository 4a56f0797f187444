"""Checksums of the store's tables, and its schema: SQLite itself finds damaged pages, but no changed byte inside a row.

Table `checksum` has the sum of the hashes of all rows of a table. Triggers of a writer's connection keep it up to date
in the transaction of each change, whatever statement changes a row. A table without an entry is not checked.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = "checksum"
Columns = Mapping[str, list[Any]]
"""(name, type, whether it must have a value, place in the primary key, kind) of the columns by table."""


def enable_checksums(connection: sqlite3.Connection) -> None:
    """Define the hash of a row for SQL."""
    connection.create_function("row_hash", -1, _row_hash, deterministic=True)


def write_checksums(connection: sqlite3.Connection, expected: Columns) -> None:
    """Write the checksums of all tables as they are. Call it inside a transaction."""
    for table, columns in _tables(expected):
        connection.execute(f"INSERT OR REPLACE INTO {_NAME} SELECT '{table}', {_sum_of(columns)} FROM {table}")


def update_checksums(connection: sqlite3.Connection, expected: Columns) -> None:
    """Create temporary triggers, which update the checksums with each change by this connection."""
    connection.execute("PRAGMA recursive_triggers = ON")  # else replaced rows are not deleted for triggers
    for table, columns in _tables(expected):
        old, new = (f"row_hash({', '.join(f'{row}.{name}' for name, *_ in columns)})" for row in ("OLD", "NEW"))
        for event, change in (("INSERT", new), ("DELETE", f"-{old}"), ("UPDATE", f"{new} - {old}")):
            connection.execute(
                f"CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} "
                f"BEGIN UPDATE {_NAME} SET sum = sum + {change} WHERE name = '{table}'; END"
            )


def content_fault(connection: sqlite3.Connection, expected: Columns) -> str | None:
    """Return the first difference of a store from the expected schema and from its checksums, or None.

    Views, triggers and generated columns would run SQL of others. Columns of SQLite accept values of any type.
    """
    found = read_columns(connection)
    for table in sorted(expected.keys() | found.keys()):
        if expected.get(table) != found.get(table):
            return f"table {table} is missing, or is not as this version of Circinus creates it"
    sums = dict(connection.execute(f"SELECT name, sum FROM {_NAME}"))
    for table, columns in _tables(expected):
        wrong = " OR ".join(
            f"typeof({name}) NOT IN ('{kind.lower()}', '{kind.lower() if is_required else 'null'}')"
            for name, kind, is_required, *_ in columns
        )
        wrong_rows, total = connection.execute(f"SELECT total({wrong}), {_sum_of(columns)} FROM {table}").fetchone()
        if wrong_rows:
            return f"a row of table {table} has a value of another type"
        if sums.get(table, total) != total:
            return f"table {table} has other rows than were written"
    return None


def read_columns(connection: sqlite3.Connection) -> Columns:
    """Return the columns of all tables, views, triggers and indexes."""
    return {
        f"{'' if kind == 'table' else kind + ' '}{name}": connection.execute(
            'SELECT name, type, "notnull", pk, hidden FROM pragma_table_xinfo(?)', [name]
        ).fetchall()
        for kind, name in connection.execute("SELECT type, name FROM sqlite_master").fetchall()
        if not name.startswith("sqlite_")
    }


def _tables(columns: Columns) -> Iterator[tuple[str, list[Any]]]:
    return ((table, its) for table, its in columns.items() if table != _NAME)


def _sum_of(columns: list[Any]) -> str:
    return f"coalesce(sum(row_hash({', '.join(name for name, *_ in columns)})), 0)"


def _row_hash(*values: Any) -> int:
    checksum = 0
    for value in values:
        if isinstance(value, float):
            value += 0.0  # SQLite stores no -0.0
        checksum = zlib.crc32(value if isinstance(value, bytes) else repr(value).encode(), checksum)
    return checksum
