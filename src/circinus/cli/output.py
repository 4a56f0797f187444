"""What a verb prints: tables for people on a terminal, one JSON document for programs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from circinus.errors import CircinusError, SpecError

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA_VERSION = 1
"""Of the JSON documents that verbs print."""


def console() -> Console:
    """For results. Outside a terminal nothing is cut to 80 columns."""
    from rich.console import Console

    plain = Console()
    return plain if plain.is_terminal else Console(width=200)


def progress_console() -> Console:
    """For progress and remarks: standard error, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True)


def print_json(kind: str, data: Any) -> None:
    """One document `{"schema_version", "kind", "data"}` on standard output.

    Dataclasses, paths and pydantic models inside `data` are converted.
    """
    from circinus.specification.json_dump import json_text

    document = {"schema_version": SCHEMA_VERSION, "kind": kind, "data": data}
    sys.stdout.write(f"{json_text(document, indent=2, by_alias=True, not_finite='null')}\n")


def print_error(error: CircinusError, *, as_json: bool) -> None:
    """The message on standard error or, for programs, as a document of the kind `error` on standard output."""
    if as_json:
        faults = error.faults if isinstance(error, SpecError) else ()
        print_json("error", {"type": type(error).__name__, "message": str(error), "faults": faults})
    else:
        sys.stderr.write(f"{error}\n")
