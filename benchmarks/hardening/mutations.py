"""Seeded mutations of bytes, JSON documents, tables of text and SQLite files."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from circinus.profiling.store.migrations import current_columns
from circinus.profiling.store.table_checksums import enable_checksums, write_checksums

_HUGE_DIGITS = 5_000
_DEPTH = 100_000
_MAX_BLOCK = 4096
_LONG = 100_000
_ODD_TEXTS = (
    "", " ", "\0", "\ud800", "é" * 300, "x" * _LONG, "../../../../etc/passwd", "/dev/zero", "/dev/stdin", "~", ".",
    "..", "$(id)", "%s%n", "[bold]x[/red]", "\x1b[2J\x1b]0;x\x07", "\u202e", "NaN", "1e999", "-1", "0", "true", "null",
    "None", "os:system", "builtins:exec", "nowhere:nothing", "a:b:c", ":", "__main__:x", "{}", "[]", "\n\n",
    "a" * 5_000 + ".yaml",
)  # fmt: skip
_ODD_NUMBERS = (
    0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 1e308, -1e308, 5e-324, 1e-300, 1e12, 1e9, float("nan"),
    float("inf"), -0.0, 0.5, True, False, None,
)  # fmt: skip


PICKLED = "os.makedirs"
"""Function that hostile pickles name."""


class MarkerPickle:
    """Value whose unpickling creates a folder, as a sign that data was run."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.makedirs, (self._marker, 0o777, True)


def hostile_pickle(marker: Path) -> bytes:
    """Return a pickle that creates a folder when it is read."""
    return pickle.dumps(MarkerPickle(marker))


def hostile_array(marker: Path) -> bytes:
    """Return an array of objects in the format of NumPy, which creates a folder when it is read as a pickle."""
    import io

    file = io.BytesIO()
    array = np.empty(1, dtype=object)
    array[0] = MarkerPickle(marker)
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def odd_value(rng: np.random.Generator) -> Any:
    """Return a value that few fields expect."""
    kind = int(rng.integers(5))
    if kind <= 1:
        return _ODD_NUMBERS[int(rng.integers(len(_ODD_NUMBERS)))]
    if kind <= 3:
        return _ODD_TEXTS[int(rng.integers(len(_ODD_TEXTS)))]
    return ([], {}, [[]], {"": None}, [None] * 10_000, {"kind": "Plan"}, [1, "a", None])[int(rng.integers(7))]


def mutated_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, or overwrite, cut, repeat, remove or insert blocks, one to eight times."""
    changed = bytearray(data)
    for _ in range(int(rng.choice((1, 1, 1, 2, 4, 8)))):
        size = len(changed)
        if not size:
            return bytes(rng.bytes(int(rng.integers(1, 64))))
        at, block = int(rng.integers(size)), int(rng.integers(1, min(size, _MAX_BLOCK) + 1))
        kind = int(rng.integers(7))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at : at + block] = rng.bytes(len(changed[at : at + block]))
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + block]
        elif kind == 4:
            changed[at:at] = changed[at : at + block]
        elif kind == 5:
            changed[at:at] = rng.bytes(int(rng.integers(1, 64)))
        else:
            changed[at : at + block] = bytes(len(changed[at : at + block]))
    return bytes(changed)


def mutated_json(text: str, rng: np.random.Generator) -> bytes:
    """Replace, remove, add or move one to three values of a document; now and then break the text instead."""
    kind = int(rng.integers(12))
    if kind == 0:
        return mutated_bytes(text.encode(), rng)
    if kind == 1:
        depth = int(rng.choice((100, 1_000, _DEPTH)))
        odd = (
            "[" * depth,
            "{" + '"a":{' * depth,
            "1" * _HUGE_DIGITS,
            "",
            "null",
            "[]",
            '"x"',
            "\ufeff" + text,
            text * 2,
        )
        return odd[int(rng.integers(len(odd)))].encode()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # it was mutated before
        return mutated_bytes(text.encode(errors="replace"), rng)
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        holders = list(_holders(document))
        if not holders:
            return mutated_bytes(text.encode(), rng)
        holder, key = holders[int(rng.integers(len(holders)))]
        action = int(rng.integers(6))
        with suppress(LookupError):
            if action == 0:
                del holder[key]
            elif action == 1 and isinstance(holder, dict):
                holder[_text(odd_value(rng))] = holder[key]
            elif action == 2:
                other, other_key = holders[int(rng.integers(len(holders)))]
                holder[key] = json.loads(json.dumps(other[other_key]))
            elif action == 3 and isinstance(holder[key], int | float):
                holder[key] = holder[key] * float(rng.choice((-1, 0, 1e-9, 1e9, 1e300)))
            else:
                holder[key] = odd_value(rng)
    # Huge integers that no floating-point number holds are written as digits, lone surrogates as escapes.
    return json.dumps(document).encode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)[:100]


def _holders(value: Any) -> Any:
    """Yield (list or dictionary, index or key) of each value within a document."""
    if isinstance(value, dict):
        for key, inner in list(value.items()):
            yield value, key
            yield from _holders(inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield value, index
            yield from _holders(inner)


def mutated_lines(text: str, rng: np.random.Generator) -> bytes:
    """Replace, remove or repeat cells and lines of a table or of JSON lines."""
    if rng.random() < 0.3:
        return mutated_bytes(text.encode(), rng)
    lines = text.splitlines()
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(lines)))
        cells = lines[at].split(",")
        kind = int(rng.integers(5))
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines[at:at] = [lines[at]] * int(rng.choice((1, 1_000)))
        elif kind == 2:
            lines[at] = ",".join(cells * int(rng.choice((2, 500))))
        else:
            cells[int(rng.integers(len(cells)))] = _text(odd_value(rng))
            lines[at] = ",".join(cells)
        lines = lines or [""]
    return "\n".join(lines).encode("utf-8", errors="surrogatepass")


def mutate_database(path: Path, rng: np.random.Generator, marker: Path, *, forged_share: float = 0.5) -> str:
    """Change bytes, schema or one to three values of an SQLite file in place; return the kind of change."""
    kind = int(rng.integers(10))
    if kind <= 3:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
        return "bytes"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA ignore_check_constraints = 1")
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [name for name in tables if not name.startswith("sqlite_")]
        table = tables[int(rng.integers(len(tables)))]
        with suppress(sqlite3.Error):
            if kind == 4:
                version = int(rng.integers(99))
                statements = (f"DROP TABLE {table}", f"DELETE FROM {table}", f"PRAGMA user_version = {version}",
                              "PRAGMA application_id = 7", f"ALTER TABLE {table} RENAME TO gone")  # fmt: skip
                database.execute(statements[int(rng.integers(len(statements)))])
                return "schema"
            for _ in range(int(rng.integers(1, 4))):
                _change_value(database, _filled(database, tables, rng), rng, marker)
            if "checksum" in tables and rng.random() < forged_share:
                _forge_checksums(database, rng)
    return "values"


def plant_pickles(path: Path, rng: np.random.Generator, marker: Path) -> None:
    """Put hostile pickles in place of recorded outputs of a profile store that looks sound, and is to score them."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        rows = [row for (row,) in database.execute("SELECT rowid FROM output")]
        seals = (None, b"", rng.bytes(16), database.execute("SELECT seal FROM output").fetchone()[0])
        for row in rng.permutation(rows)[: int(rng.choice((len(rows), len(rows) // 2)))].tolist():
            given = hostile_pickle(marker), seals[int(rng.integers(len(seals)))], row
            database.execute("UPDATE output SET packed = ?, seal = ? WHERE rowid = ?", given)
        database.execute("DELETE FROM score")
        _forge_checksums(database, rng)


def _forge_checksums(database: sqlite3.Connection, rng: np.random.Generator) -> None:
    """Leave a profile store no checksums, or right ones: they show accidents, and protect from no attacker."""
    if rng.random() < 0.5:
        database.execute("DELETE FROM checksum")
    else:
        enable_checksums(database)
        write_checksums(database, current_columns())


def _filled(database: sqlite3.Connection, tables: list[str], rng: np.random.Generator) -> str:
    filled = [name for name in tables if database.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone()]
    return filled[int(rng.integers(len(filled)))]


def _change_value(database: sqlite3.Connection, table: str, rng: np.random.Generator, marker: Path) -> None:
    """Replace a value of one row, or a column of all rows."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    column = columns[int(rng.integers(len(columns)))]
    rows = database.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()
    (value,) = rows[int(rng.integers(len(rows)))]
    new: Any
    if isinstance(value, bytes):
        choices = hostile_pickle(marker), hostile_array(marker), mutated_bytes(value, rng), b"", b"\0" * 16
        new = choices[int(rng.integers(len(choices)))]
    elif isinstance(value, str) and value[:1] in ("{", "[") and rng.random() < 0.7:
        new = mutated_json(value, rng).decode("utf-8", errors="replace")
    else:
        new = odd_value(rng)
        new = json.dumps(new) if isinstance(new, list | dict) else new
    if isinstance(new, int) and abs(new) >= 2**63:
        new = float(new)
    if isinstance(new, str):
        new = new.encode("utf-8", errors="replace").decode()
    where = "" if rng.random() < 0.3 else f" WHERE {column} IS ?"
    database.execute(f"UPDATE OR REPLACE {table} SET {column} = ?{where}", (new, value) if where else (new,))
