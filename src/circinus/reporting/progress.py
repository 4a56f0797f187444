"""Progress displays: a bar on a terminal, plain lines at intervals elsewhere (logs, CI)."""

from __future__ import annotations

import math
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from circinus.reporting.escaping_console import EscapingConsole
from circinus.reporting.wrapping import print_wrapped
from circinus.specification.formatting import format_duration

if TYPE_CHECKING:
    from circinus.profiling import FailedConfiguration, ProfileProgress
    from circinus.serving.loadtest.load_test import LoadProgress
    from circinus.simulation import Progress as SimulationProgress

LINE_EVERY_S = 10.0
"""Interval between plain lines."""


def progress_console(*, quiet: bool = False) -> Console:
    """Return the console for progress and remarks: standard error, so that results can be piped.

    It is no terminal, whatever `FORCE_COLOR` says, where standard error is a file, a pipe or closed. It is none either
    where standard output is a pipe, as the reader of the pipe may write to the terminal between two states of a bar.
    """
    is_plain = sys.stderr is None or not sys.stderr.isatty() or _is_pipe(sys.stdout)
    return EscapingConsole(stderr=True, quiet=quiet, force_terminal=False if is_plain else None)


def _is_pipe(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError, ValueError):
        return False  # the stream is in memory, or closed


_Show = Callable[[str, int, int, str], None]
"""Display of (task, done, total, remaining)."""


@contextmanager
def _display(console: Console, title: str, clock: Callable[[], float]) -> Iterator[_Show]:
    """Show a bar on a terminal; elsewhere print lines, of which short tasks have none."""
    printed_s = clock()

    def print_line(task: str, done: int, total: int, remaining: str) -> None:
        nonlocal printed_s
        if (now_s := clock()) - printed_s >= LINE_EVERY_S:
            printed_s = now_s
            line = f"{task}: {done} of {total}, {remaining}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    if not console.is_terminal:
        yield print_line
        return
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(console.width // 6),
        TextColumn("{task.percentage:.0f}%"),
        TextColumn("{task.fields[remaining]}", markup=False, table_column=rest),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as progress:
        bar = progress.add_task(title, total=1, remaining="")

        def update_bar(task: str, done: int, total: int, remaining: str) -> None:
            progress.update(bar, description=task, completed=done, total=max(total, 1), remaining=remaining)

        yield update_bar


class ProfileBar:
    """`ProfileObserver` that shows progress and remaining time, and prints failures."""

    def __init__(self, console: Console, task: str, show: _Show) -> None:
        self._console, self._task, self._show = console, task, show

    def progressed(self, progress: ProfileProgress) -> None:
        """Show the progress."""
        remaining = f"{format_duration(progress.remaining_s)} left"
        if progress.candidates:
            remaining = f"at most {remaining}"
            remaining = f"{progress.settled} of {progress.candidates} configurations settled, {remaining}"
        if progress.configuration is not None and self._console.is_terminal:
            remaining += f": {progress.configuration}"
        self._show(f"{self._task}: {progress.phase}", progress.done, progress.total, remaining)

    def failed(self, failure: FailedConfiguration) -> None:
        """Print the failure."""
        item = f" on item {failure.item_key}" if failure.item_key is not None else ""
        print_wrapped(self._console, f"excluded: {failure.configuration} failed{item}: {failure.reason}")


@contextmanager
def profile_bar(console: Console, pipeline: str, clock: Callable[[], float] = time.monotonic) -> Iterator[ProfileBar]:
    """Show the progress of profiling a pipeline; `clock` is in seconds."""
    with _display(console, pipeline, clock) as show:
        yield ProfileBar(console, pipeline, show)


@contextmanager
def load_bar(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[LoadProgress], None]]:
    """Show the progress of a load test; `clock` is in seconds."""
    with _display(console, "traffic", clock) as display:

        def show(state: LoadProgress) -> None:
            remaining_s = max(state.total_s - state.elapsed_s, 0.0)
            failed = f", {state.failed} failed" if state.failed else ""
            display("traffic", state.answered, state.due, f"{format_duration(remaining_s)} left{failed}")

        yield show


@contextmanager
def simulation_bar(console: Console) -> Iterator[Callable[[SimulationProgress], None]]:
    """Show the progress of a simulation."""
    with _display(console, "simulated minutes", time.monotonic) as display:

        def show(state: SimulationProgress) -> None:
            display("simulated minutes", int(state.done_s / 60), math.ceil(state.total_s / 60), "")

        yield show
