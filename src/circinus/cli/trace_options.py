"""Trace files on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from circinus.profiling import TraceBackend
    from circinus.specification import Specification

Traces = Annotated[
    list[Path] | None,
    typer.Option(
        "--trace",
        help="Take measurements from this trace instead of running operators; time is recorded time. May be repeated.",
    ),
]


def load_trace_backends(traces: list[Path] | None, specification: Specification) -> dict[str, TraceBackend]:
    """By pipeline.

    Raises:
        ProfileError: a file is no trace, or of no pipeline of the specification, or of one that has another already.
    """
    from circinus.errors import ProfileError
    from circinus.profiling import TraceBackend, load_trace

    found: dict[str, TraceBackend] = {}
    for path in traces or ():
        trace = load_trace(path)
        if trace.pipeline in found:
            raise ProfileError(
                f"{path}: found a second trace of pipeline {trace.pipeline}, expected one; name one",
                code="trace.duplicate",
            )
        if trace.pipeline not in specification.pipelines:
            present = ", ".join(specification.pipelines) or "(none)"
            raise ProfileError(
                f"{path}: found a trace of pipeline {trace.pipeline}, expected one of {present}",
                code="trace.unknown_pipeline",
            )
        trace.check(specification.pipelines[trace.pipeline])
        found[trace.pipeline] = TraceBackend(trace)
    return found
