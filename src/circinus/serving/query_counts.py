"""Counting the requests of every query."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from circinus.serving.engine import QueryStatus

RECENT = 200
"""Answers whose latencies are remembered."""


@dataclass(eq=False)
class _Counts:
    entered: int = 0
    answered: int = 0
    failed: int = 0
    latency_s: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))


class QueryCounts:
    """What became of the requests of every query."""

    def __init__(self) -> None:
        self._counts: dict[str, _Counts] = {}

    def entered(self, query: str) -> None:
        """A request came."""
        self._counts.setdefault(query, _Counts()).entered += 1

    def answered(self, query: str, latency_s: float) -> None:
        """One that came was answered."""
        counts = self._counts[query]
        counts.answered += 1
        counts.latency_s.append(latency_s)

    def failed(self, query: str) -> None:
        """One that came was not, and will not be."""
        self._counts[query].failed += 1

    def status(self) -> tuple[QueryStatus, ...]:
        """So far."""
        return tuple(
            QueryStatus(query, counts.entered, counts.answered, counts.failed, tuple(counts.latency_s))
            for query, counts in self._counts.items()
        )
