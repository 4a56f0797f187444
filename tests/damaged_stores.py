"""Damaged copies of a store: seeded, on the disk or by SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

VALUES = (
    "'text'",
    "x'00ff'",
    "CAST(x'80ff' AS TEXT)",
    "-1",
    "0.5",
    "1e308",
    "9223372036854775807",
    "'[{]'",
    "'{}'",
    "'[]'",
)
"""What a column may have of another type or meaning than it was written with."""


def damaged_on_disk(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield what was done, and the content of the file after it."""
    rng = np.random.default_rng(seed)
    page_bytes = int.from_bytes(content[16:18], "big")
    pages = len(content) // page_bytes
    for k in range(count):
        data = bytearray(content)
        kind = ("bits", "bytes", "truncated", "swapped", "blank", "noise", "header")[k % 7]
        first, second = (slice(p * page_bytes, (p + 1) * page_bytes) for p in rng.choice(pages, 2, replace=False))
        if kind == "bits":
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        elif kind == "bytes":
            for place in rng.integers(len(data), size=8).tolist():
                data[place] = int(rng.integers(256))
        elif kind == "truncated":
            del data[int(rng.integers(len(data))) :]
        elif kind == "swapped":
            data[first], data[second] = data[second], data[first]
        elif kind == "blank":
            data[first] = bytes(page_bytes)
        elif kind == "noise":
            data[first] = rng.bytes(page_bytes)
        else:
            data[int(rng.integers(100))] = int(rng.integers(256))
        yield f"{kind} {k}", bytes(data)


def damage_by_sql(path: Path, seed: int) -> str:
    """Drop a table, or put a value of another kind into a column; return the statement."""
    rng = np.random.default_rng(seed)
    connection = sqlite3.connect(path)
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        if connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
    ]
    table = tables[int(rng.integers(len(tables)))]
    columns = [column[1] for column in connection.execute(f"PRAGMA table_info({table})")]
    if rng.random() < 0.2:
        statement = f"DROP TABLE {table}"
    else:
        column, value = columns[int(rng.integers(len(columns)))], VALUES[int(rng.integers(len(VALUES)))]
        statement = f"UPDATE OR IGNORE {table} SET {column} = {value}"
    with connection, suppress(sqlite3.IntegrityError):
        connection.execute(statement)
    connection.close()
    return statement
