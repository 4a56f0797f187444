"""Output of a verb: tables on a terminal, or one JSON document for programs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circinus.errors import CircinusError
from circinus.reporting.wrapping import print_wrapped, wrapped

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.progress import Progress

    from circinus.api.engine_handle import EngineHandle
    from circinus.api.plans import Plan
    from circinus.api.workspace import Workspace
    from circinus.profiling import ProfileObserver

SCHEMA_VERSION = 2
"""Schema version of the JSON documents that verbs print."""

_remarks_silenced = False


def console() -> Console:
    """Return the console for results. Outside a terminal it has `COLUMNS` columns, by default 100."""
    from circinus.reporting.escaping_console import EscapingConsole

    plain = EscapingConsole()
    return plain if plain.is_terminal or "COLUMNS" in os.environ else EscapingConsole(width=100)


def progress_console() -> Console:
    """Return the console for progress and remarks, see `circinus.reporting.progress.progress_console`."""
    from circinus.reporting.progress import progress_console

    return progress_console(quiet=_remarks_silenced)


@dataclass(frozen=True)
class ElapsedTime:
    """Line with a task and its elapsed time; None: there is no terminal."""

    line: Progress | None

    def __call__(self, task: str) -> None:
        """Show another task instead."""
        if self.line is not None:
            self.line.update(self.line.task_ids[0], description=task)

    @contextmanager
    def progress_bar(self, pipeline: str) -> Iterator[ProfileObserver]:
        """Show the progress of a pipeline instead of the line; afterwards the time begins anew."""
        if self.line is not None:
            self.line.stop()
        with progress_bar(pipeline) as observer:
            yield observer
        if self.line is not None:
            self.line.reset(self.line.task_ids[0])
            self.line.start()


@contextmanager
def elapsed_time(task: str, console: Console | None = None) -> Iterator[ElapsedTime]:
    """Show a task and its elapsed time on standard error while it runs, on a terminal only."""
    console = console or progress_console()
    if not console.is_terminal or console.quiet:
        yield ElapsedTime(None)
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    # What operators print to a file or pipe must not go to the terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        progress.add_task(task, total=None)
        yield ElapsedTime(progress)


def progress_bar(pipeline: str) -> AbstractContextManager[ProfileObserver]:
    """Return an observer that shows the progress of a pipeline on the console for progress."""
    from circinus.reporting.progress import profile_bar

    return profile_bar(progress_console(), pipeline)


def silence_remarks() -> None:
    """Print nothing more on the console for progress and remarks."""
    global _remarks_silenced
    _remarks_silenced = True


def print_json(kind: str, data: Any, *, indent: int | None = 2) -> None:
    """Print a document `{"schema_version", "kind", "data"}` on standard output; without an indent on one line.

    Dataclasses, paths and pydantic models inside `data` are converted.
    """
    from circinus.specification.json_dump import json_text

    document = {"schema_version": SCHEMA_VERSION, "kind": kind, "data": data}
    sys.stdout.write(f"{json_text(document, indent=indent, by_alias=True, not_finite='null')}\n")
    sys.stdout.flush()


def print_error(error: CircinusError, *, as_json: bool) -> None:
    """Print an error on standard error or, for programs, as a document of the kind `error` on standard output."""
    if as_json:
        print_json("error", error.to_dict())
    else:
        sys.stderr.write(f"{wrapped(str(error), progress_console().width)}\n")


def report_error(error: Exception, *, as_json: bool) -> int:
    """Print an error that is no fault of the program, and return the exit code.

    Raises:
        Exception: the error, if it is none of these.
    """
    if isinstance(error, CircinusError):
        reported = error
    elif isinstance(error, OSError):
        reported = _file_error(error)
    elif isinstance(error, MemoryError):
        message, hint = "not enough memory", "Free memory, raise its limit, or specify less."
        reported = CircinusError(message, code="memory.exhausted", location="this process", hint=hint)
    elif any(base.__name__ == "ClickException" for base in type(error).__mro__):
        print_error(_usage_error(error), as_json=True)
        return 2
    else:
        raise error
    print_error(reported, as_json=as_json)
    return reported.exit_code


_HINTS = {
    errno.ENOSPC: "Free space on the disk.",
    errno.EDQUOT: "Free space within the quota.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.EACCES: "Choose another path, or change its permissions.",
    errno.EPERM: "Choose another path, or change its permissions.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
    errno.ELOOP: "Remove the symbolic links that lead to each other.",
    errno.EISDIR: "Name a file, not a folder.",
    errno.ENOTDIR: "Name a path whose parents are folders.",
    errno.ENOENT: "Name an existing path.",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
    errno.ENFILE: "Close programs: the system has no more open files.",
    errno.ENOMEM: "Free memory.",
    errno.EADDRINUSE: "Choose another port, or end the program that uses it.",
}
"""Error number -> fix."""


def _file_error(error: OSError) -> CircinusError:
    """Return the message about a file, a folder or a stream that cannot be used."""
    hint = _HINTS.get(error.errno or 0, "Check that it exists and can be used.")
    location = str(error.filename or "input/output")
    if isinstance(error, FileNotFoundError) and error.filename is None and not _has_working_folder():
        location, hint = "working folder", "It was removed: change to a folder that exists."
    message = error.strerror or str(error) or type(error).__name__
    return CircinusError(message, code="file.inaccessible", location=location, hint=hint)


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _usage_error(error: Exception) -> CircinusError:
    """Return a usage error (a missing argument, an unknown option, a value out of range) with its code."""
    codes = {"BadParameter": "usage.invalid_value", "MissingParameter": "usage.missing_value"}
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return CircinusError(
        message.rstrip("."),
        code=codes.get(type(error).__name__, "usage.invalid_command"),
        hint="Add --help to see the options.",
    )


def open_plan(
    plan_file: Path, *, shows_rejected: bool = False, shown: Collection[str] = (), **options: Any
) -> tuple[Workspace, Plan]:
    """Open a plan file with `Workspace.open_plan`, and warn on standard error of queries that it does not serve.

    Args:
        plan_file: plan file, which names its specification.
        shows_rejected: whether the verb shows all rejected queries itself.
        shown: queries that the verb shows itself.
        options: further arguments of `Workspace.open_plan`.
    """
    from circinus.api.workspace import Workspace

    workspace, plan = Workspace.open_plan(plan_file, **options)
    rejections = () if shows_rejected else plan.rejected.values()
    unplanned = [name for name in plan.unplanned if name not in shown]
    if rejections or unplanned:
        from circinus.reporting.explanation import unserved_text

        unserved = unserved_text(rejections, unplanned, plan.metrics, plan_file)
        print_wrapped(progress_console(), unserved, style="yellow")
    return workspace, plan


def warn_of_controller(engine: EngineHandle) -> None:
    """Warn on standard error if a controller will undo a change of the engine."""
    holder = engine.controller()
    if holder:
        message = f"{holder} (circinus serve) controls {engine} and will restore its own state. Stop it first."
        print_wrapped(progress_console(), message, style="yellow")
