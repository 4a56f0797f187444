"""Lease on an engine: one controller at a time, until release or expiry."""

from __future__ import annotations

from typing import Protocol

from circinus.errors import ServingError


class LeaseHeldError(ServingError):
    """Error of acquiring a lease that another controller holds."""


class LeaseLostError(ServingError):
    """Error of using a lease that another controller took over."""


class Lease(Protocol):
    """Lease that one holder has at a time. Every acquisition has its own fencing token."""

    def acquire(self, holder: str, now_s: float, ttl_s: float) -> int:
        """Acquire the lease and return its fencing token.

        Args:
            holder: name of the holder, for messages.
            now_s: seconds since 1970; ignored by a lease with a clock of its own.
            ttl_s: time to live unless renewed.

        Raises:
            LeaseHeldError: another controller holds the lease.
        """
        ...

    def renew(self, lease: int, now_s: float, ttl_s: float) -> None:
        """Extend the lease.

        Raises:
            LeaseLostError: the lease expired and another controller acquired it.
        """
        ...

    def release(self, lease: int) -> None:
        """Release the lease, so that the next holder need not wait for its expiry."""
        ...
