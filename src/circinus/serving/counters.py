"""Counters of requests and batches."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_low

from circinus.serving.engine import QueryStatus, RequestRuns, ServedBatch
from circinus.serving.replicas.replica_protocol import BatchResult
from circinus.serving.router.batch_queue import QueuedItem
from circinus.serving.settings import SERVING


class BatchHistory:
    """Batch counter and most recent batches of one deployment."""

    def __init__(self) -> None:
        self.count = 0
        """Number of batches without a failed item."""
        self.median_batch_s = 0.0
        """Median time for which a recent batch kept its replica; 0 before the second one, as the first may compile."""
        self._recent: deque[ServedBatch] = deque(maxlen=SERVING.recent_batches)
        self._recent_s: deque[float] = deque(maxlen=SERVING.recent_batches)

    def record(self, batch: Sequence[QueuedItem], result: BatchResult, occupied_s: float) -> None:
        """Record a batch, but not its service time if an item failed, which makes it meaningless.

        Args:
            batch: the batch.
            result: its result.
            occupied_s: time for which it kept its replica, by the clock of the engine.
        """
        self._recent_s.append(occupied_s)
        self.median_batch_s = median_low(self._recent_s) if len(self._recent_s) > 1 else 0.0
        if not batch or any(item_result.error for item_result in result.results):
            return
        prefixes = {item.prefix for item in batch}
        prefix = prefixes.pop() if len(prefixes) == 1 else ""
        self.count += 1
        self._recent.append(ServedBatch(result.results[0].service_s, len(batch), prefix, result.earlier))

    @property
    def recent(self) -> tuple[ServedBatch, ...]:
        """Most recent batches, oldest first."""
        return tuple(self._recent)


@dataclass(eq=False)
class _Counts:
    received: int = 0
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    outcomes_s: deque[float | None] = field(default_factory=lambda: deque(maxlen=SERVING.recent_requests))
    """Latencies of the most recently ended requests: infinite for a dropped one, None for a failed one."""
    runs: deque[RequestRuns] = field(default_factory=lambda: deque(maxlen=SERVING.recent_requests))

    def status(self, query: str) -> QueryStatus:
        latency_s = tuple(seconds for seconds in self.outcomes_s if seconds is not None)
        failed = len(self.outcomes_s) - len(latency_s)
        return QueryStatus(
            *(query, self.received, self.answered, self.failed, latency_s, failed, self.dropped), tuple(self.runs)
        )


class RequestCounters:
    """Request counters of all queries."""

    def __init__(self) -> None:
        self._counts: dict[str, _Counts] = {}

    def entered(self, query: str) -> None:
        """Count a received request."""
        self._counts.setdefault(query, _Counts()).received += 1

    def received(self, query: str) -> int:
        """Return the number of received requests."""
        counts = self._counts.get(query)
        return 0 if counts is None else counts.received

    def answered(self, query: str, latency_s: float, runs: RequestRuns | None = None) -> None:
        """Count an answered request, with its runs if their number may vary."""
        counts = self._counts[query]
        counts.answered += 1
        counts.outcomes_s.append(latency_s)
        if runs is not None:
            counts.runs.append(runs)

    def dropped(self, query: str) -> None:
        """Count a request that was dropped as late."""
        counts = self._counts[query]
        counts.dropped += 1
        counts.outcomes_s.append(math.inf)

    def refused(self, query: str) -> None:
        """Count a request that was received and dropped at once."""
        self.entered(query)
        self.dropped(query)

    def failed(self, query: str) -> None:
        """Count a failed request."""
        counts = self._counts[query]
        counts.failed += 1
        counts.outcomes_s.append(None)

    def status(self) -> tuple[QueryStatus, ...]:
        """Return the counters of all queries with requests."""
        return tuple(counts.status(query) for query, counts in self._counts.items())
