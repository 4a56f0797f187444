"""Who is told how far a long measurement has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from circinus.profiling.profile import FailedConfiguration
from circinus.specification import Configuration


@dataclass(frozen=True)
class ProfileProgress:
    """How far it has come, after each increment."""

    phase: str
    """What is being measured, in words: `scores`, `allocations`, `held-out items`."""
    configuration: Configuration | None
    """The one that was measured last."""
    done: int
    """Runs of a configuration on an item that are done, those found in the store included."""
    total: int
    """Runs foreseen. May shrink when configurations settle early."""
    elapsed_s: float
    """Since the call began."""
    remaining_s: float
    """Estimate of the seconds until the end, never more than the budget leaves."""


class ProfileObserver(Protocol):
    """Is told about progress and failures while a measurement runs, in the calling thread."""

    def progressed(self, progress: ProfileProgress) -> None:
        """Something was measured and committed."""
        ...

    def failed(self, failure: FailedConfiguration) -> None:
        """A configuration failed and is left out; the rest goes on."""
        ...


class SilentObserver:
    """Tells nobody."""

    def progressed(self, progress: ProfileProgress) -> None:
        """Do nothing."""

    def failed(self, failure: FailedConfiguration) -> None:
        """Do nothing."""
