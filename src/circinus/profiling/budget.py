"""Time budget of a measurement."""

from __future__ import annotations

import math
from collections.abc import Callable


class TimeBudget:
    """Time budget that starts with its construction."""

    def __init__(self, limit_s: float | None, clock: Callable[[], float]) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._started_s = clock()

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started_s

    @property
    def remaining_s(self) -> float:
        """Remaining seconds, at least 0; infinite without a limit."""
        return math.inf if self.limit_s is None else max(0.0, self.limit_s - self.elapsed_s)
