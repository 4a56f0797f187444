"""Time budget and progress of a measurement."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from circinus.profiling.profile import FailedConfiguration
from circinus.specification import Configuration


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


@dataclass(frozen=True)
class ProfileProgress:
    """Progress of a measurement after an increment."""

    phase: str
    """Phase that is being measured, for display: `scores`, `allocations`, `held-out items`."""
    configuration: Configuration | None
    """Configuration measured last."""
    done: int
    """Number of completed runs of a configuration on an item, including those read from the store."""
    total: int
    """Number of runs if every listed configuration is measured. It shrinks when configurations are decided early."""
    elapsed_s: float
    """Seconds since the start of the call."""
    remaining_s: float
    """Estimated maximum of the remaining seconds, at most those of the budget."""
    settled: int = 0
    """Number of configurations for which more items would change no decision."""
    candidates: int = 0
    """Number of configurations: of all, if they can be listed, else of those that are compared; 0 elsewhere."""


class ProfileObserver(Protocol):
    """Observer of the progress and the failures of a measurement, called in the measuring thread."""

    def progressed(self, progress: ProfileProgress) -> None:
        """Handle a committed increment."""
        ...

    def failed(self, failure: FailedConfiguration) -> None:
        """Handle the failure of a configuration, which is excluded; the measurement continues."""
        ...


class SilentObserver:
    """Observer that ignores all events."""

    def progressed(self, progress: ProfileProgress) -> None:
        """Do nothing."""

    def failed(self, failure: FailedConfiguration) -> None:
        """Do nothing."""
