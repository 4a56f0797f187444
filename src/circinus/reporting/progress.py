"""Progress bars on long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from circinus.spec.spoken import duration

if TYPE_CHECKING:
    from circinus.profiling import FailedConfiguration, ProfileProgress
    from circinus.serving.load import LoadProgress


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[left]}"),
        console=console,
        transient=True,
    )


class ProfileBar:
    """A `ProfileObserver` that shows a bar with the time left, and each failure as it happens."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def progressed(self, progress: ProfileProgress) -> None:
        """Move the bar."""
        self._progress.update(
            self._task,
            description=progress.phase,
            completed=progress.done,
            total=max(progress.total, 1),
            left=f"{duration(progress.remaining_s)} left",
        )

    def failed(self, failure: FailedConfiguration) -> None:
        """Print the failure above the bar."""
        where = f" on item {failure.item_key}" if failure.item_key is not None else ""
        self._progress.console.print(f"left out: {failure.configuration} failed{where}: {failure.reason}", markup=False)


@contextmanager
def profile_bar(console: Console, what: str) -> Iterator[ProfileBar]:
    """A bar for one measurement."""
    with _bar(console) as progress:
        yield ProfileBar(progress, progress.add_task(what, total=1, left=""))


@contextmanager
def load_bar(console: Console) -> Iterator[Callable[[LoadProgress], None]]:
    """A bar for one run of traffic."""
    with _bar(console) as progress:
        task = progress.add_task("traffic", total=1, left="")

        def show(state: LoadProgress) -> None:
            left_s = max(state.total_s - state.elapsed_s, 0.0)
            failed = f", {state.failed} failed" if state.failed else ""
            progress.update(
                task, completed=state.answered, total=max(state.due, 1), left=f"{duration(left_s)} left{failed}"
            )

        yield show
