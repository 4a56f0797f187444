"""Pace of increments, so that what each of them takes besides measuring is a small share of the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

from circinus.profiling.settings import PROFILING

_RECENT = 32
"""Number of increments whose median overhead is expected of the next."""


class IncrementPace:
    """Overhead of increments, and the sizes of increments that make up for it.

    Selecting a step, the bounds after it, and its report take milliseconds however many items it measures. Where items
    take far less, analyses after every few items would take longer than the items that they save. An increment then
    goes on to a later analysis. On a simulated clock there is no overhead, and each analysis ends an increment.
    """

    def __init__(self) -> None:
        self._overheads_s: deque[float] = deque(maxlen=_RECENT)

    def add(self, overhead_s: float) -> None:
        """Add the seconds of an increment without its measurement."""
        self._overheads_s.append(overhead_s)

    def target(self, sizes: Sequence[int], seconds: Callable[[int], float]) -> int:
        """Return the first of ascending sample sizes up to which measuring takes long enough, else the last.

        Args:
            sizes: (n,) sample sizes of the next interim analyses; n > 0.
            seconds: sample size -> seconds of measuring up to it.
        """
        min_s = median(self._overheads_s) / PROFILING.overhead_share if self._overheads_s else 0.0
        return next((size for size in sizes if seconds(size) >= min_s), sizes[-1])
