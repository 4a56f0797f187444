"""Time that passes only when somebody says so."""

from __future__ import annotations


class SimulatedClock:
    """A clock for `profile_pipeline` that counts recorded seconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        """Begin at `now_s`."""
        self._now_s = now_s

    def __call__(self) -> float:
        """Seconds now."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, which must not be negative."""
        if not seconds >= 0:
            raise ValueError(f"found {seconds} seconds to pass, expected at least 0")
        self._now_s += seconds
