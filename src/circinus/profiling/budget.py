"""The time a measurement may take."""

from __future__ import annotations

import math
from collections.abc import Callable


class TimeBudget:
    """Counts from its making."""

    def __init__(self, limit_s: float | None, clock: Callable[[], float]) -> None:
        """Begin.

        Args:
            limit_s: seconds; None: without end.
            clock: seconds that pass.
        """
        self.limit_s = limit_s
        self._clock = clock
        self._began = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    @property
    def remaining_s(self) -> float:
        """Seconds left, at least 0; infinite without a limit."""
        return math.inf if self.limit_s is None else max(0.0, self.limit_s - self.elapsed_s)
