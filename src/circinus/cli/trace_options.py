"""Trace files on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import PROFILES

if TYPE_CHECKING:
    from circinus.profiling import TraceBackend
    from circinus.specification import Specification

Traces = Annotated[
    list[Path] | None,
    typer.Option(
        "--trace",
        help="Trace file to read measurements from instead of running operators. May be repeated.",
        rich_help_panel=PROFILES,
    ),
]


def load_trace_backends(traces: list[Path] | None, specification: Specification) -> dict[str, TraceBackend]:
    """Return pipeline -> measurement backend, one for each trace file.

    Raises:
        ProfileError: a file is no trace, or of a pipeline that is not specified or has another trace already.
    """
    if not traces:
        return {}
    from circinus.errors import ProfileError
    from circinus.profiling import TraceBackend, load_trace

    backends: dict[str, TraceBackend] = {}
    for path in traces:
        trace = load_trace(path)
        name = trace.pipeline.name
        if name in backends:
            raise ProfileError(
                f"this is a second trace of pipeline {name}",
                code="trace.duplicate",
                location=str(path),
                hint="Name one.",
            )
        if name not in specification.pipelines:
            present = ", ".join(specification.pipelines) or "(none)"
            raise ProfileError(
                f"the specification has no pipeline {name}, expected one of {present}",
                code="trace.unknown_pipeline",
                location=str(path),
            )
        trace.check(specification.pipelines[name])
        backends[name] = TraceBackend(trace)
    return backends
