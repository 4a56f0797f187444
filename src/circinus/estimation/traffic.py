"""A stream of requests or transfers, as a queue sees it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """How many requests (or transfers) a second, and the first two moments of the seconds that one is in service."""

    rate_per_s: float
    mean_s: float
    square_s2: float
    """Mean of the squared seconds."""

    @property
    def scv(self) -> float:
        """Squared coefficient of variation of the seconds in service; 0 where they are always the same."""
        return max(0.0, self.square_s2 / self.mean_s**2 - 1.0) if self.mean_s > 0 else 0.0

    @property
    def busy(self) -> float:
        """Mean number of requests in service (Little's law)."""
        return self.rate_per_s * self.mean_s

    @classmethod
    def merged(cls, streams: Iterable[Traffic]) -> Traffic:
        """Several streams as one: rates add up, moments are those of the mixture."""
        parts = tuple(streams)
        rate_per_s = sum(part.rate_per_s for part in parts)
        if rate_per_s <= 0:
            return cls(0.0, 0.0, 0.0)
        return cls(
            rate_per_s,
            sum(part.rate_per_s * part.mean_s for part in parts) / rate_per_s,
            sum(part.rate_per_s * part.square_s2 for part in parts) / rate_per_s,
        )
