"""Times of batches on hardware classes from tables of the user, with their origin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from circinus.profiling.store.profile_store import ProfileStore
from circinus.specification import KnobValues


@dataclass(frozen=True)
class ImportedTime:
    """Time of a full batch of one operator with its knob values, on one hardware class and allocation."""

    pipeline: str
    operator: str
    knobs: KnobValues
    """Knob values of the operator itself."""
    hardware_class: str
    cpus: float
    batch_size: int
    batch_s: float
    """Seconds of the whole batch."""
    version: str
    """Version of the operator's code at the import; the time is not used for other versions."""
    origin: str
    """Source of the time as the table names it, or empty."""
    file: str
    """Path of the table."""
    sha256: str
    """SHA-256 of the table in hexadecimal."""
    at: str
    """Time of the import; ISO 8601, UTC."""


_COLUMNS = (
    *("pipeline", "operator", "knobs", "hardware_class", "cpus", "batch_size", "batch_s", "version", "origin", "file"),
    *("sha256", "at"),
)


def save_imported_times(store: Path, times: Sequence[ImportedTime]) -> None:
    """Write times into a profile store, which is created if it is missing.

    They replace, atomically, all earlier ones of the same operators, knob values and hardware classes.

    Raises:
        ProfileError: the store cannot be written.
    """
    rows = [[_knobs(t.knobs) if c == "knobs" else getattr(t, c) for c in _COLUMNS] for t in times]
    with ProfileStore(store, create=True) as opened, opened.transaction():
        opened.write(f"DELETE FROM imported_time{_condition(_COLUMNS[:4])}", list({tuple(row[:4]) for row in rows}))
        opened.write(
            f"INSERT INTO imported_time ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})", rows
        )


def load_imported_times(store: Path, **selection: str) -> tuple[ImportedTime, ...]:
    """Return the imported times of a profile store, of any version of the code.

    Args:
        store: profile store.
        selection: values of `pipeline`, `operator` or `hardware_class` that they have; by default any.

    Raises:
        ProfileError: the store is missing.
    """
    with ProfileStore(store) as opened:
        return read_imported_times(opened, **selection)


def delete_imported_times(store: Path, **selection: str) -> tuple[ImportedTime, ...]:
    """Delete the selected times of a profile store, atomically, and return them; see `load_imported_times`.

    Raises:
        ProfileError: the store is missing or cannot be written.
    """
    with ProfileStore(store) as opened, opened.transaction():
        deleted = read_imported_times(opened, **selection)
        opened.write(f"DELETE FROM imported_time{_condition(selection)}", [tuple(selection.values())])
    return deleted


def read_imported_times(store: ProfileStore, **selection: str) -> tuple[ImportedTime, ...]:
    """Return the imported times of an open store; see `load_imported_times`."""
    condition = _condition(selection)
    rows = store.rows(f"SELECT {', '.join(_COLUMNS)} FROM imported_time{condition}", *selection.values())
    named = (dict(zip(_COLUMNS, row, strict=True)) for row in rows)
    return tuple(ImportedTime(**{**row, "knobs": KnobValues.of(json.loads(row["knobs"]))}) for row in named)


def _condition(columns: Iterable[str]) -> str:
    condition = " AND ".join(f"{column} = ?" for column in columns)
    return f" WHERE {condition}" if condition else ""


def _knobs(knobs: KnobValues) -> str:
    return json.dumps(knobs.as_dict(), sort_keys=True)
