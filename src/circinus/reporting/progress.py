"""Progress displays: a bar on a terminal, plain lines at intervals elsewhere (logs, CI)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from circinus.specification.formatting import format_duration

if TYPE_CHECKING:
    from circinus.profiling import FailedConfiguration, ProfileProgress
    from circinus.serving.loadtest.load_test import LoadProgress
    from circinus.simulation import Progress as SimulationProgress

LINE_EVERY_S = 10.0
"""Interval between plain lines."""


class _Display(Protocol):
    """Display of progress."""

    def update(self, task: str, done: int, total: int, remaining: str) -> None:
        """Show the progress of a task."""
        ...


class _Bar:
    """Progress bar at the bottom of a terminal."""

    def __init__(self, progress: Progress, task: str) -> None:
        self._progress = progress
        self._task = progress.add_task(task, total=1, remaining="")

    def update(self, task: str, done: int, total: int, remaining: str) -> None:
        self._progress.update(self._task, description=task, completed=done, total=max(total, 1), remaining=remaining)


class _Lines:
    """Lines at intervals of at least `LINE_EVERY_S`; short tasks print none."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._printed_s = clock()

    def update(self, task: str, done: int, total: int, remaining: str) -> None:
        now_s = self._clock()
        if now_s - self._printed_s >= LINE_EVERY_S:
            self._printed_s = now_s
            line = f"{task}: {done} of {total}, {remaining}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _display(console: Console, task: str, clock: Callable[[], float]) -> Iterator[_Display]:
    if not console.is_terminal:
        yield _Lines(console, clock)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[remaining]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, task)


class ProfileBar:
    """`ProfileObserver` that shows progress and remaining time, and prints failures."""

    def __init__(self, console: Console, task: str, display: _Display) -> None:
        self._console = console
        self._task = task
        self._display = display

    def progressed(self, progress: ProfileProgress) -> None:
        """Show the progress."""
        remaining = f"{format_duration(progress.remaining_s)} left"
        self._display.update(f"{self._task}: {progress.phase}", progress.done, progress.total, remaining)

    def failed(self, failure: FailedConfiguration) -> None:
        """Print the failure."""
        item = f" on item {failure.item_key}" if failure.item_key is not None else ""
        self._console.print(
            f"excluded: {failure.configuration} failed{item}: {failure.reason}",
            markup=False,
            soft_wrap=not self._console.is_terminal,
        )


@contextmanager
def profile_bar(console: Console, pipeline: str, clock: Callable[[], float] = time.monotonic) -> Iterator[ProfileBar]:
    """Show the progress of profiling a pipeline; `clock` is in seconds."""
    with _display(console, pipeline, clock) as display:
        yield ProfileBar(console, pipeline, display)


@contextmanager
def load_bar(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[LoadProgress], None]]:
    """Show the progress of a load test; `clock` is in seconds."""
    with _display(console, "traffic", clock) as display:

        def show(state: LoadProgress) -> None:
            remaining_s = max(state.total_s - state.elapsed_s, 0.0)
            failed = f", {state.failed} failed" if state.failed else ""
            display.update("traffic", state.answered, state.due, f"{format_duration(remaining_s)} left{failed}")

        yield show


@contextmanager
def simulation_bar(
    console: Console, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[SimulationProgress], None]]:
    """Show the progress of a simulation; `clock` is in seconds."""
    with _display(console, "simulated minutes", clock) as display:

        def show(state: SimulationProgress) -> None:
            display.update("simulated minutes", int(state.done_s / 60), math.ceil(state.total_s / 60), "")

        yield show
