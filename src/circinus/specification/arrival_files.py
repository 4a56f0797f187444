"""Recorded arrivals: CSV files with the column `time_s`, and their resolution in queries."""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from circinus.errors import Diagnostic, SpecError
from circinus.specification.arrivals import RecordedArrivals
from circinus.specification.diagnostics import Issue, describe, did_you_mean
from circinus.specification.document import Document
from circinus.specification.query import Query

TIME = "time_s"
QUERY = "query"


@dataclass(frozen=True)
class ArrivalRow:
    """Row of a CSV file with the column `time_s`."""

    line: int
    written: str | None
    """Text in the column `time_s`, or None if absent."""
    time_s: float | None
    """Parsed time, or None if the text is not a finite number of seconds >= 0."""
    query: str | None
    """Text in the column `query`, or None if absent."""

    def fault(self, path: Path) -> Diagnostic:
        """Return the diagnostic of a row without a valid time."""
        return Diagnostic(str(path), self.line, TIME, repr(self.written), "seconds >= 0")


def read_arrival_rows(path: Path, columns: Collection[str]) -> tuple[list[ArrivalRow], bool]:
    """Return the rows of a CSV file, and whether it has a column `query`.

    Raises:
        SpecError: the file cannot be read or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            header = rows.fieldnames or ()
            if not set(columns) <= set(header):
                noun = "column" if len(columns) == 1 else "columns"
                expected = f"the {noun} {' and '.join(columns)}"
                raise SpecError([Diagnostic(str(path), 1, "header", ", ".join(header) or "an empty file", expected)])
            parsed = [ArrivalRow(rows.line_num, row[TIME], _time_s(row[TIME]), row.get(QUERY)) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError([Diagnostic(str(path), 0, "trace", reason, "a readable CSV file")]) from error
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
    for document in documents:
        query = document.content
        if isinstance(query, Query) and isinstance(query.arrivals, RecordedArrivals) and query.arrivals.times_s is None:
            own_folder = Path(document.source.file).parent if document.source is not None else Path()
            times_s, file_faults = _recording(document, query.name, query.arrivals.file, folders or (own_folder,))
            faults += [fault for fault in file_faults if fault not in faults]
            arrivals = query.arrivals.model_copy(update={"times_s": times_s})
            document = replace(document, content=query.model_copy(update={"arrivals": arrivals}))
        resolved.append(document)
    return resolved, faults


def _recording(
    document: Document, query: str, file: str, folders: Sequence[Path]
) -> tuple[tuple[float, ...] | None, list[Diagnostic]]:
    """Return the ascending times of a query in a file, or None and the problems of the file."""
    paths = [folder / file for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        siblings = [sibling.name for sibling in paths[0].parent.iterdir()] if paths[0].parent.is_dir() else []
        hint = did_you_mean(paths[0].name, siblings)
        expected = f"a CSV file ({paths[0]}) with the column {TIME}"
        missing = f"{describe(file)}, which does not exist"
        return None, [document.fault(Issue(("arrivals", "file"), missing, expected, hint))]
    try:
        rows, by_query = read_arrival_rows(path, (TIME,))
    except SpecError as error:
        return None, list(error.faults)
    faulty = [row.fault(path) for row in rows if row.time_s is None]
    if faulty:
        return None, faulty
    times_s = sorted(row.time_s for row in rows if row.time_s is not None and (not by_query or row.query == query))
    if len(times_s) < 2 or times_s[0] == times_s[-1]:
        owner = f" of the query {query}" if by_query else ""
        other_queries = {row.query for row in rows if row.query} - {query}
        distinct = len(set(times_s))
        found = f"{distinct} distinct time{'' if distinct == 1 else 's'}{owner}"
        hint = did_you_mean(query, other_queries) if not times_s else ""
        return None, [Diagnostic(str(path), 0, TIME, found, "at least two", hint)]
    return tuple(times_s), []


def _time_s(text: str | None) -> float | None:
    try:
        time_s = float(text or "")
    except ValueError:
        return None
    return time_s if time_s >= 0 and math.isfinite(time_s) else None
