"""Recorded arrivals: CSV files with the column `time_s`, and the queries that name such files."""

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
    """One row of a CSV file with the column `time_s`."""

    line: int
    written: str | None
    """What stands in the column `time_s`; None: nothing."""
    time_s: float | None
    """None: it is no number of seconds from 0 on."""
    query: str | None
    """None: there is no such column, or nothing in it."""

    def fault(self, path: Path) -> Diagnostic:
        """That there is no time."""
        return Diagnostic(str(path), self.line, TIME, repr(self.written), "seconds >= 0")


def read_arrival_rows(path: Path, columns: Collection[str]) -> tuple[list[ArrivalRow], bool]:
    """The rows of a CSV file, and whether it has a column `query`.

    Args:
        path: of the file.
        columns: those it must have; others are passed over.

    Raises:
        SpecError: the file cannot be read or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            given = rows.fieldnames or ()
            if not set(columns) <= set(given):
                noun = "column" if len(columns) == 1 else "columns"
                expected = f"the {noun} {' and '.join(columns)}"
                raise SpecError([Diagnostic(str(path), 1, "header", ", ".join(given) or "an empty file", expected)])
            found = [ArrivalRow(rows.line_num, row[TIME], _time_s(row[TIME]), row.get(QUERY)) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SpecError([Diagnostic(str(path), 0, "trace", reason, "a readable CSV file")]) from error
    return found, QUERY in given


def resolve_arrival_files(
    documents: Sequence[Document], folders: Sequence[Path]
) -> tuple[list[Document], list[Diagnostic]]:
    """The documents, with the times of all recorded arrivals that are not known yet, and what is wrong with the files.

    Args:
        documents: of a specification.
        folders: where relative files are looked for, the first that has it first; none: beside the document.
    """
    faults: list[Diagnostic] = []
    filled = []
    for document in documents:
        query = document.content
        if isinstance(query, Query) and isinstance(query.arrivals, RecordedArrivals) and query.arrivals.times_s is None:
            own = Path(document.source.file).parent if document.source is not None else Path()
            times_s, wrong = _recording(document, query.name, query.arrivals.file, folders or (own,))
            faults += [fault for fault in wrong if fault not in faults]
            arrivals = query.arrivals.model_copy(update={"times_s": times_s})
            document = replace(document, content=query.model_copy(update={"arrivals": arrivals}))
        filled.append(document)
    return filled, faults


def _recording(
    document: Document, query: str, file: str, folders: Sequence[Path]
) -> tuple[tuple[float, ...] | None, list[Diagnostic]]:
    """The times that a file has for a query, ascending; None where the file is at fault."""
    paths = [folder / file for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        beside = [one.name for one in paths[0].parent.iterdir()] if paths[0].parent.is_dir() else []
        expected = f"a CSV file ({paths[0]}) with the column {TIME}"
        found = f"{describe(file)}, where there is no file"
        return None, [document.fault(Issue(("arrivals", "file"), found, expected, did_you_mean(paths[0].name, beside)))]
    try:
        rows, by_query = read_arrival_rows(path, (TIME,))
    except SpecError as error:
        return None, list(error.faults)
    faulty = [row.fault(path) for row in rows if row.time_s is None]
    if faulty:
        return None, faulty
    times_s = sorted(row.time_s for row in rows if row.time_s is not None and (not by_query or row.query == query))
    if len(times_s) < 2 or times_s[0] == times_s[-1]:
        whose = f" of the query {query}" if by_query else ""
        others = {row.query for row in rows if row.query} - {query}
        different = len(set(times_s))
        found = f"{different} different time{'' if different == 1 else 's'}{whose}"
        hint = did_you_mean(query, others) if not times_s else ""
        return None, [Diagnostic(str(path), 0, TIME, found, "at least two", hint)]
    return tuple(times_s), []


def _time_s(text: str | None) -> float | None:
    try:
        time_s = float(text or "")
    except ValueError:
        return None
    return time_s if time_s >= 0 and math.isfinite(time_s) else None
