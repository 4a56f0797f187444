"""Who may change what an engine runs: one at a time, until it ends or is not heard of any more."""

from __future__ import annotations

from typing import Protocol

from circinus.errors import ServingError


class LeaseHeldError(ServingError):
    """Lease that another controller holds."""


class LeaseLostError(ServingError):
    """Lease that another controller took over."""


class Lease(Protocol):
    """Something that one holder has at a time. Every lease has a number of its own."""

    def acquire(self, holder: str, now_s: float, lasts_s: float) -> int:
        """Take it, and give its number.

        Args:
            holder: who, for messages.
            now_s: seconds since 1970; one that has a clock of its own takes no notice.
            lasts_s: how long it lasts unless it is renewed.

        Raises:
            LeaseHeldError: somebody else has it.
        """
        ...

    def renew(self, lease: int, now_s: float, lasts_s: float) -> None:
        """Keep it for longer.

        Raises:
            LeaseLostError: it ended and somebody else has one.
        """
        ...

    def release(self, lease: int) -> None:
        """Give it back, so that the next one need not wait."""
        ...
