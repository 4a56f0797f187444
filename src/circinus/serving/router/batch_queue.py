"""Queue of a deployment, which forms the batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from circinus.operators.pickling import Payload
from circinus.serving.replicas.replica_protocol import BatchResult, ItemResult


@dataclass(eq=False)
class QueuedItem:
    """Item that waits for a replica, or is being processed by one."""

    item_key: str
    inputs: Sequence[Payload]
    recording: int | str | None
    due_s: float
    """Arrival time of the last input."""
    done: Callable[[ItemResult, Payload | None, float], None]
    """Callback for success, with the end of the batch in seconds."""
    failed: Callable[[str], None]
    is_cancelled: Callable[[], bool]
    """Predicate for the cancellation of the request."""
    prefix: str = ""
    """Configuration hash of the `RouteStage.prefix`."""
    replica_losses: int = 0
    """Number of replicas that ended while processing the item."""


def end_batch(batch: Sequence[QueuedItem], result: BatchResult, outputs: Iterable[Payload], end_s: float) -> None:
    """Call back every item of a batch that ended at `end_s`; `outputs` are those of items that have one, in order."""
    remaining = iter(outputs)
    for item, item_result in zip(batch, result.results, strict=True):
        output = next(remaining) if item_result.has_payload else None
        if item_result.error:
            item.failed(item_result.error)
        else:
            item.done(item_result, output, end_s)


class BatchQueue:
    """Queue of items in order of arrival, of which the oldest form the next batch.

    With a replica free at f, and arrival times a1 of the oldest item and ab of the b-th (infinity if there are fewer; b
    is the batch size), the next batch begins at max(f, min(a1 + batch_wait_s, ab)) and takes up to b of the oldest
    items that have arrived by then. Cancelled items are ignored. An item whose replica ended forms a batch of its own
    without waiting, so that it cannot fail other items.
    """

    def __init__(self, batch_size: int, batch_wait_s: float) -> None:
        self.batch_wait_s = batch_wait_s
        """Maximum time that the oldest item waits for its batch to fill."""
        self._batch_size = batch_size
        self._waiting: deque[QueuedItem] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: QueuedItem) -> None:
        """Insert an item in order of arrival, usually at the end."""
        position = len(self._waiting)
        while position and self._waiting[position - 1].due_s > item.due_s:
            position -= 1
        self._waiting.insert(position, item)

    def put_back(self, batch: Iterable[QueuedItem]) -> None:
        """Return the items of a batch to the head of the queue, in order."""
        self._waiting.extendleft(reversed(tuple(batch)))

    def next_batch_at_s(self, free_s: float) -> float | None:
        """Return the start of the next batch on a replica free since `free_s`, or None if no item waits."""
        batch, closed = self._next()
        if not batch:
            return None
        latest_s = batch[0].due_s + self.batch_wait_s
        return max(free_s, min(latest_s, batch[-1].due_s) if closed else latest_s)

    def take(self, start_s: float) -> list[QueuedItem]:
        """Remove and return the batch that begins at `start_s`."""
        candidates, _ = self._next()
        batch = [item for item in candidates if item.due_s <= start_s]
        for _ in batch:
            self._waiting.popleft()
        return batch

    def clear(self) -> list[QueuedItem]:
        """Remove and return all items."""
        waiting, self._waiting = self._waiting, deque()
        return list(waiting)

    def _next(self) -> tuple[list[QueuedItem], bool]:
        """Return the oldest items of one batch, and whether the batch is closed to later ones."""
        oldest = self._oldest()
        if oldest and oldest[0].replica_losses:
            return oldest[:1], True
        batch = list(takewhile(lambda item: not item.replica_losses, oldest))
        return batch, len(batch) == self._batch_size or len(batch) < len(oldest)

    def _oldest(self) -> list[QueuedItem]:
        """Return the oldest items, up to the batch size, and drop cancelled ones."""
        oldest: list[QueuedItem] = []
        while self._waiting and len(oldest) < self._batch_size:
            item = self._waiting.popleft()
            if not item.is_cancelled():
                oldest.append(item)
        self.put_back(oldest)
        return oldest
