"""Recorded arrivals: CSV files with the column `time_s`, and their resolution in queries."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from circinus.errors import Diagnostic, SpecError
from circinus.specification.arrivals import RecordedArrivals
from circinus.specification.diagnostics import Issue, describe, did_you_mean, shorten
from circinus.specification.document import Document
from circinus.specification.limits import MAX_ARRIVALS, MAX_ARRIVALS_BYTES, MAX_FAULTS
from circinus.specification.query import Query
from circinus.specification.source_files import require_regular, similar_sibling
from circinus.specification.units import DURATION

TIME = "time_s"
QUERY = "query"
_EXPECTED = f"seconds from 0 to {DURATION.maximum:g}"
_MIN_SPAN_S = 1e-6
"""Least time from the first to the last arrival, which is scaled to the rate of the query."""


@dataclass(frozen=True, slots=True)
class ArrivalRow:
    """Row of a CSV file with the column `time_s`."""

    line: int
    written: str | None
    """Text in the column `time_s`, or None if absent."""
    time_s: float | None
    """Parsed time, or None if the text is not a number of seconds from 0 to `DURATION.maximum`."""
    query: str | None
    """Text in the column `query`, or None if absent."""

    def fault(self, path: Path) -> Diagnostic:
        """Return the diagnostic of a row without a valid time."""
        return Diagnostic(str(path), self.line, TIME, describe(self.written), _EXPECTED)


def read_arrival_rows(path: Path, columns: Collection[str]) -> tuple[list[ArrivalRow], bool]:
    """Return the rows of a CSV file, and whether it has a column `query`.

    Raises:
        SpecError: the file cannot be read, is too large, or lacks a column.
    """
    line = 0
    parsed: list[ArrivalRow] = []
    try:
        require_regular(path, MAX_ARRIVALS_BYTES)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            line = 1
            header = rows.fieldnames or ()
            if not set(columns) <= set(header):
                noun = "column" if len(columns) == 1 else "columns"
                expected = f"the {noun} {' and '.join(columns)}"
                written = shorten(", ".join(header)) or "an empty file"
                raise SpecError([Diagnostic(str(path), 1, "header", written, expected)])
            for row in rows:
                line = rows.line_num
                if len(parsed) == MAX_ARRIVALS:
                    raise SpecError([Diagnostic(str(path), line, TIME, "more rows", f"at most {MAX_ARRIVALS:,}")])
                parsed.append(ArrivalRow(line, row[TIME], _time_s(row[TIME]), row.get(QUERY)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        line = 0 if isinstance(error, OSError) else line + 1
        raise SpecError([Diagnostic(str(path), line, "trace", reason, "a readable CSV file")]) from error
    return parsed, QUERY in header


def resolve_arrival_files(
    documents: Sequence[Document], folders: Sequence[Path]
) -> tuple[list[Document], list[Diagnostic]]:
    """Return the documents with the times of recorded arrivals read from files, and the problems of the files.

    Args:
        folders: search path of relative files; if empty, the folder of the document.
    """
    faults: list[Diagnostic] = []
    resolved = []
    read_recording = lru_cache(maxsize=16)(_read_recording)  # queries may share a file
    for document in documents:
        query = document.content
        if isinstance(query, Query) and isinstance(query.arrivals, RecordedArrivals) and query.arrivals.times_s is None:
            own_folder = Path(document.source.file).parent if document.source is not None else Path()
            file, searched = query.arrivals.file, folders or (own_folder,)
            times_s, file_faults = _times_of(document, query.name, file, searched, read_recording)
            faults += [fault for fault in file_faults if fault not in faults]
            arrivals = query.arrivals.model_copy(update={"times_s": times_s})
            document = replace(document, content=query.model_copy(update={"arrivals": arrivals}))
        resolved.append(document)
    return resolved, faults


class _Recording(NamedTuple):
    """Arrivals in a file."""

    times_s: Mapping[str | None, tuple[float, ...]]
    """Query, or None for all queries -> ascending times."""
    faults: Sequence[Diagnostic] = ()


def _read_recording(path: Path) -> _Recording:
    try:
        rows, by_query = read_arrival_rows(path, (TIME,))
    except SpecError as error:
        return _Recording({}, error.faults)
    times_s: dict[str | None, list[float]] = {} if by_query else {None: []}
    faults: list[Diagnostic] = []
    for row in rows:
        if row.time_s is not None:
            times_s.setdefault((row.query or "") if by_query else None, []).append(row.time_s)
        elif len(faults) < MAX_FAULTS:
            faults.append(row.fault(path))
    return _Recording({query: tuple(sorted(times)) for query, times in times_s.items()}, faults)


def _times_of(
    document: Document,
    query: str,
    file: str,
    folders: Sequence[Path],
    read_recording: Callable[[Path], _Recording],
) -> tuple[tuple[float, ...] | None, Sequence[Diagnostic]]:
    """Return the ascending times of a query in a file, or None and the problems of the file."""
    paths = [folder / file for folder in folders]
    path = next((path for path in paths if os.path.isfile(path)), None)
    if path is None:
        hint = similar_sibling(paths[0])
        expected = f"a CSV file ({paths[0]}) with the column {TIME}"
        missing = f"{describe(file)}, which does not exist"
        return None, [document.fault(Issue(("arrivals", "file"), missing, expected, hint))]
    recording = read_recording(path)
    if recording.faults:
        return None, recording.faults
    by_query = None not in recording.times_s
    times_s = recording.times_s.get(query if by_query else None, ())
    if len(times_s) < 2 or times_s[-1] - times_s[0] < _MIN_SPAN_S:
        owner = f" of the query {query}" if by_query else ""
        other_queries = {name for name in recording.times_s if name}
        distinct = len(set(times_s))
        found = f"{distinct} distinct time{'' if distinct == 1 else 's'}{owner}"
        hint = did_you_mean(query, other_queries) if not times_s else ""
        expected = "at least two" if distinct < 2 else f"times at least {DURATION.format(_MIN_SPAN_S)} apart"
        return None, [Diagnostic(str(path), 0, TIME, found, expected, hint)]
    return times_s, ()


def _time_s(text: str | None) -> float | None:
    try:
        time_s = float(text or "")
    except ValueError:
        return None
    return time_s if 0 <= time_s <= DURATION.maximum else None
