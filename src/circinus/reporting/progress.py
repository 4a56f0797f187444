"""Progress of long work: a bar on a terminal, elsewhere (in logs, in CI) a plain line now and then."""

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
"""Seconds between plain lines."""


class _Shown(Protocol):
    """Where progress is shown."""

    def update(self, what: str, done: int, total: int, left: str) -> None:
        """So much of `total` is done of `what`."""
        ...


class _Bar:
    """A bar at the foot of a terminal."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=1, left="")

    def update(self, what: str, done: int, total: int, left: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, description=what, completed=done, total=max(total, 1), left=left)


class _Lines:
    """A line at most every `LINE_EVERY_S`, the first one not before that: short work says nothing."""

    def __init__(self, console: Console, clock: Callable[[], float]) -> None:
        self._console = console
        self._clock = clock
        self._said_s = clock()

    def update(self, what: str, done: int, total: int, left: str) -> None:
        """Print a line if it is time."""
        now_s = self._clock()
        if now_s - self._said_s >= LINE_EVERY_S:
            self._said_s = now_s
            self._console.print(f"{what}: {done} of {total}, {left}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _shown(console: Console, what: str, clock: Callable[[], float]) -> Iterator[_Shown]:
    if not console.is_terminal:
        yield _Lines(console, clock)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress, what)


class ProfileBar:
    """A `ProfileObserver` that shows how far it is with the time left, and each failure as it happens."""

    def __init__(self, console: Console, what: str, shown: _Shown) -> None:
        self._console = console
        self._what = what
        self._shown = shown

    def progressed(self, progress: ProfileProgress) -> None:
        """Show it."""
        left = f"{format_duration(progress.remaining_s)} left"
        self._shown.update(f"{self._what}: {progress.phase}", progress.done, progress.total, left)

    def failed(self, failure: FailedConfiguration) -> None:
        """Print the failure at once."""
        where = f" on item {failure.item_key}" if failure.item_key is not None else ""
        self._console.print(
            f"left out: {failure.configuration} failed{where}: {failure.reason}",
            markup=False,
            soft_wrap=not self._console.is_terminal,
        )


@contextmanager
def profile_bar(console: Console, what: str, clock: Callable[[], float] = time.monotonic) -> Iterator[ProfileBar]:
    """Shows one measurement of the pipeline `what`; `clock` counts seconds."""
    with _shown(console, what, clock) as shown:
        yield ProfileBar(console, what, shown)


@contextmanager
def load_bar(console: Console, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[LoadProgress], None]]:
    """Shows one run of traffic; `clock` counts seconds."""
    with _shown(console, "traffic", clock) as shown:

        def show(state: LoadProgress) -> None:
            left_s = max(state.total_s - state.elapsed_s, 0.0)
            failed = f", {state.failed} failed" if state.failed else ""
            shown.update("traffic", state.answered, state.due, f"{format_duration(left_s)} left{failed}")

        yield show


@contextmanager
def simulation_bar(
    console: Console, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[SimulationProgress], None]]:
    """Shows one simulation; `clock` counts seconds."""
    with _shown(console, "simulated minutes", clock) as shown:

        def show(state: SimulationProgress) -> None:
            shown.update("simulated minutes", int(state.done_s / 60), math.ceil(state.total_s / 60), "")

        yield show
