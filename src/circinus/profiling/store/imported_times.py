"""Times of batches on hardware classes from tables of the user, with their origin."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
_GROUP = "pipeline = ? AND operator = ? AND knobs = ? AND hardware_class = ?"


def save_imported_times(store: Path, times: Sequence[ImportedTime]) -> None:
    """Write times into a profile store, which is created if it is missing.

    They replace, atomically, all earlier ones of the same operators, knob values and hardware classes.

    Raises:
        ProfileError: the store cannot be written.
    """
    rows = [[_knobs(t.knobs) if c == "knobs" else getattr(t, c) for c in _COLUMNS] for t in times]
    with ProfileStore(store, create=True) as opened, opened.transaction():
        opened.write(f"DELETE FROM imported_time WHERE {_GROUP}", list({tuple(row[:4]) for row in rows}))
        opened.write(
            f"INSERT INTO imported_time ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})", rows
        )


def load_imported_times(store: Path, pipeline: str) -> tuple[ImportedTime, ...]:
    """Return the imported times of a pipeline's operators in a profile store; see `read_imported_times`.

    Raises:
        ProfileError: the store is missing.
    """
    with ProfileStore(store) as opened:
        return read_imported_times(opened, pipeline)


def read_imported_times(store: ProfileStore, pipeline: str) -> tuple[ImportedTime, ...]:
    """Return the imported times of a pipeline's operators, of any version of their code."""
    rows = store.rows(f"SELECT {', '.join(_COLUMNS)} FROM imported_time WHERE pipeline = ?", pipeline)
    named = (dict(zip(_COLUMNS, row, strict=True)) for row in rows)
    return tuple(ImportedTime(**{**row, "knobs": KnobValues.of(json.loads(row["knobs"]))}) for row in named)


def _knobs(knobs: KnobValues) -> str:
    return json.dumps(knobs.as_dict(), sort_keys=True)
