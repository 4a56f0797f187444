"""Exponential backoff between attempts."""

from __future__ import annotations


class Backoff:
    """Exponential backoff with a maximum; the caller passes the time."""

    def __init__(self, initial_s: float, max_s: float) -> None:
        self._initial_s, self._max_s = initial_s, max_s
        self._due_s: float | None = None
        self.failures = 0
        """Number of consecutive failures."""
        self.backoff_s = 0.0
        """Backoff after the last failure."""

    def record_failure(self, now_s: float) -> None:
        """Record a failure, which starts a longer backoff."""
        self.backoff_s = min(self._initial_s * 2.0 ** min(self.failures, 60), self._max_s)
        self.failures += 1
        self._due_s = now_s + self.backoff_s

    def is_due(self, now_s: float) -> bool:
        """Return whether the backoff has expired."""
        return self._due_s is None or now_s >= self._due_s

    def reset(self) -> None:
        """Reset the backoff after a success or a change of the target."""
        self._due_s, self.failures = None, 0
