"""Progress of long work: an observer for each pipeline that is measured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circinus.profiling import ProfileObserver

ProgressFactory = Callable[[str], "AbstractContextManager[ProfileObserver]"]
"""Pipeline name -> context in which its observer reports progress."""


def progress_bar(pipeline: str) -> AbstractContextManager[ProfileObserver]:
    """Return an observer that shows progress: a bar on a terminal, elsewhere a line each 10 s.

    Example:
        >>> report = workspace.profile(budget="1s", progress=c.progress_bar)
        >>> report["mend"].dataset_items
        120
    """
    from circinus.reporting.progress import profile_bar, progress_console

    return profile_bar(progress_console(), pipeline)


def no_progress(pipeline: str) -> AbstractContextManager[ProfileObserver]:
    """Return an observer that reports nothing."""
    from circinus.profiling import SilentObserver

    return nullcontext(SilentObserver())
