"""Counting the requests of every query."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from circinus.serving.engine import QueryStatus, ServedBatch
from circinus.serving.replicas.batch_queue import QueuedItem
from circinus.serving.replicas.replica_protocol import BatchResult

RECENT_OF_SERVED_BATCHES = 32
"""Batches that are remembered: somebody who looks every quarter of a second misses none at a hundred a second."""


class BatchHistory:
    """Of one deployment."""

    def __init__(self) -> None:
        self.count = 0
        """Batches so far whose items all went well."""
        self._recent: deque[ServedBatch] = deque(maxlen=RECENT_OF_SERVED_BATCHES)

    def record(self, batch: Sequence[QueuedItem], result: BatchResult) -> None:
        """One more; where an item failed nothing is said of how long the others would have taken without it."""
        if not batch or any(its_result.error for its_result in result.results):
            return
        prefixes = {work.prefix for work in batch}
        prefix = prefixes.pop() if len(prefixes) == 1 else ""
        self.count += 1
        self._recent.append(ServedBatch(result.results[0].service_s, len(batch), prefix, result.earlier))

    @property
    def recent(self) -> tuple[ServedBatch, ...]:
        """The last ones, oldest first."""
        return tuple(self._recent)


RECENT = 200
"""Requests that ended of which it is remembered how."""


@dataclass(eq=False)
class _Counts:
    entered: int = 0
    answered: int = 0
    failed: int = 0
    ends_s: deque[float | None] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Latencies of the last requests; None: it failed."""

    def status(self, query: str) -> QueryStatus:
        latency_s = tuple(seconds for seconds in self.ends_s if seconds is not None)
        return QueryStatus(
            query, self.entered, self.answered, self.failed, latency_s, len(self.ends_s) - len(latency_s)
        )


class RequestCounters:
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
        counts.ends_s.append(latency_s)

    def failed(self, query: str) -> None:
        """One that came was not, and will not be."""
        counts = self._counts[query]
        counts.failed += 1
        counts.ends_s.append(None)

    def status(self) -> tuple[QueryStatus, ...]:
        """So far."""
        return tuple(counts.status(query) for query, counts in self._counts.items())
