"""How many requests the HTTP entry lets in."""

from __future__ import annotations


class TokenBucket:
    """A token bucket: so many requests a second, and so many at once after a lull (Turner, IEEE Communications
    Magazine 24, 1986). Pure: told the time."""

    def __init__(self, rate_per_s: float, at_once: float) -> None:
        """Full.

        Args:
            rate_per_s: above 0.
            at_once: at least 1.
        """
        self.rate_per_s = rate_per_s
        self._at_once = at_once
        self._tokens = at_once
        self._since_s: float | None = None

    def retry_after_s(self, now_s: float) -> float:
        """Let a request in and give 0, or give the seconds after which the next one will be let in."""
        if self._since_s is not None:
            self._tokens = min(self._at_once, self._tokens + (now_s - self._since_s) * self.rate_per_s)
        self._since_s = now_s
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate_per_s
