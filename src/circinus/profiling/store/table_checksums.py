"""Checksums of the store's tables: SQLite itself finds damaged pages, but no changed byte inside a row.

Table `checksum` has the sum of the hashes of all rows of a table. Triggers of a writer's connection keep it up to date
in the transaction of each change, whatever statement changes a row. Without any entry, no table is checked.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = "checksum"
_RANGES = {
    **dict.fromkeys(("score", "log_ratio"), (-1e100, 1e100)),
    **dict.fromkeys(("ratio", "cpus", "speed"), (1e-100, 1e100)),
    "service_s": (0, 1e5),  # longer than a day for one item: its replicas would be too many to plan for
    "batch_size": (1, 2**63 - 1),
}
"""Column -> minimum and maximum, where they are not those of any other number of its type."""
_TYPE_RANGES = {"REAL": (0, 1e15), "INTEGER": (0, 2**63 - 1)}
Columns = Mapping[str, list[Any]]
"""(name, type, whether it must have a value) of the columns by table."""


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
    """Return the first difference of rows from the types and ranges of their columns, and from the checksums, or None.

    Columns of SQLite accept values of any type.
    """
    sums = dict(connection.execute(f"SELECT name, sum FROM {_NAME}"))
    if sums and sums.keys() != {table for table, _ in _tables(expected)}:
        return f"table {_NAME} has other entries than were written"
    for table, columns in _tables(expected):
        wrong = " OR ".join(_wrong(*column) for column in columns)
        wrong_rows, total = connection.execute(f"SELECT total({wrong}), {_sum_of(columns)} FROM {table}").fetchone()
        if wrong_rows:
            totals = ", ".join(f"total({_wrong(*column)})" for column in columns)
            counts = connection.execute(f"SELECT {totals} FROM {table}").fetchone()
            name = next(name for (name, *_), count in zip(columns, counts, strict=True) if count)
            return f"a row of table {table} has a value of another type or range in column {name}"
        if sums.get(table, total) != total:
            way_out = f"`DELETE FROM {_NAME}` accepts those that you or an earlier version wrote"
            return f"table {table} has other rows than were written ({way_out})"
    return None


def read_columns(connection: sqlite3.Connection) -> Columns:
    """Return the columns of all tables."""
    return {
        table: connection.execute('SELECT name, type, "notnull" FROM pragma_table_info(?)', [table]).fetchall()
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    }


def _tables(columns: Columns) -> Iterator[tuple[str, list[Any]]]:
    return ((table, its) for table, its in columns.items() if table != _NAME)


def _wrong(name: str, kind: str, is_required: bool) -> str:
    """Return the SQL condition that a column has a value of another type or range."""
    wrong = f"typeof({name}) NOT IN ('{kind.lower()}', '{kind.lower() if is_required else 'null'}')"
    if kind not in _TYPE_RANGES:
        return wrong
    minimum, maximum = _RANGES.get(name, _TYPE_RANGES[kind])
    return f"{wrong} OR {name} NOT BETWEEN {minimum} AND {maximum}"


def _sum_of(columns: list[Any]) -> str:
    return f"coalesce(sum(row_hash({', '.join(name for name, *_ in columns)})), 0)"


def _row_hash(*values: Any) -> int:
    return zlib.crc32(ascii([_field(value) for value in values]).encode())


def _field(value: Any) -> Any:
    """Return a value whose text differs from that of all others, and is short."""
    if isinstance(value, bytes):
        return len(value), zlib.crc32(value)
    return value + 0.0 if isinstance(value, float) else value  # SQLite stores no -0.0
