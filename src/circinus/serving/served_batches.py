"""How long batches were in service: the last ones of a deployment, and how many there were in all."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from circinus.serving.engine import ServedBatch
from circinus.serving.replicas.messages import BatchResult
from circinus.serving.replicas.work import QueuedItem

RECENT = 32
"""Batches that are remembered: somebody who looks every quarter of a second misses none at a hundred a second."""


class BatchHistory:
    """Of one deployment."""

    def __init__(self) -> None:
        self.count = 0
        """Batches so far whose items all went well."""
        self._recent: deque[ServedBatch] = deque(maxlen=RECENT)

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
