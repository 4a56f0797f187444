"""Trying again what failed, ever more rarely."""

from __future__ import annotations


class Backoff:
    """Pauses that double. Told the time."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        """Nothing failed.

        Args:
            first_s: pause after the first failure.
            longest_s: no pause is longer.
        """
        self._first_s, self._longest_s = first_s, longest_s
        self._not_before_s: float | None = None
        self.failures = 0
        """In a row."""

    def record_failure(self, now_s: float) -> float:
        """Once more; how long to wait now."""
        pause_s = min(self._first_s * 2.0 ** min(self.failures, 60), self._longest_s)
        self.failures += 1
        self._not_before_s = now_s + pause_s
        return pause_s

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to try."""
        return self._not_before_s is None or now_s >= self._not_before_s

    def reset(self) -> None:
        """It went well, or something else is tried."""
        self._not_before_s, self.failures = None, 0
