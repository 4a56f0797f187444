"""What waits at one deployment: which items become the next batch, and when it begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from circinus.serving.replicas.replica_protocol import ItemResult, Payload


@dataclass(eq=False)
class QueuedItem:
    """One item that waits for, or is in, a replica."""

    item_key: str
    inputs: Sequence[Payload]
    recording: int | str | None
    due_s: float
    """When the last of its inputs arrived."""
    done: Callable[[ItemResult, Payload | None, float], None]
    """Told when the batch ended, too."""
    failed: Callable[[str], None]
    is_cancelled: Callable[[], bool]
    """Whether nobody waits for it any more."""
    prefix: str = ""
    """Label of the `RouteStage.prefix`."""
    replica_losses: int = 0
    """Replicas that ended while they had it."""


class BatchQueue:
    """Items in order of when they were due, of which the oldest become the next batch.

    With a replica free at f, the oldest item due at a1 and the b-th at ab (never, where there are fewer; b the batch
    size), the next batch begins at max(f, min(a1 + batch_wait_s, ab)), and takes the up to b oldest items that were due
    by then. Items that nobody waits for any more count for nothing. An item that a replica ended with goes alone and at
    once, so that it harms no other.
    """

    def __init__(self, batch_size: int, batch_wait_s: float) -> None:
        self.batch_wait_s = batch_wait_s
        """How long the oldest item may wait for its batch to fill."""
        self._batch_size = batch_size
        self._waiting: deque[QueuedItem] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, work: QueuedItem) -> None:
        """Add an item; mostly it is the one that was due last."""
        position = len(self._waiting)
        while position and self._waiting[position - 1].due_s > work.due_s:
            position -= 1
        self._waiting.insert(position, work)

    def put_back(self, batch: Iterable[QueuedItem]) -> None:
        """Put items that were taken before all others, in their order."""
        self._waiting.extendleft(reversed(tuple(batch)))

    def next_batch_at_s(self, free_s: float) -> float | None:
        """When the next batch begins on a replica free since `free_s`, if no other item comes; None: none waits."""
        together, closed = self._next()
        if not together:
            return None
        latest_s = together[0].due_s + self.batch_wait_s
        return max(free_s, min(latest_s, together[-1].due_s) if closed else latest_s)

    def take(self, begin_s: float) -> list[QueuedItem]:
        """Take out the batch that begins at `begin_s`."""
        together, _ = self._next()
        batch = [work for work in together if work.due_s <= begin_s]
        for _ in batch:
            self._waiting.popleft()
        return batch

    def clear(self) -> list[QueuedItem]:
        """Take out everything."""
        waiting, self._waiting = self._waiting, deque()
        return list(waiting)

    def _next(self) -> tuple[list[QueuedItem], bool]:
        """The oldest items that may go together, and whether no other may join them."""
        oldest = self._oldest()
        if oldest and oldest[0].replica_losses:
            return oldest[:1], True
        together = list(takewhile(lambda work: not work.replica_losses, oldest))
        return together, len(together) == self._batch_size or len(together) < len(oldest)

    def _oldest(self) -> list[QueuedItem]:
        """As many as a batch holds; those before and among them that nobody waits for are dropped."""
        oldest: list[QueuedItem] = []
        while self._waiting and len(oldest) < self._batch_size:
            work = self._waiting.popleft()
            if not work.is_cancelled():
                oldest.append(work)
        self.put_back(oldest)
        return oldest
