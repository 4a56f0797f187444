"""Queue of a deployment, which forms the batches; `circinus.queueing.edf` simulates it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import count, islice, takewhile

from circinus.operators.pickling import Payload
from circinus.serving.replicas.replica_protocol import BatchItem, BatchResult, ItemResult
from circinus.specification.dataflow import RunPath


@dataclass(eq=False)
class QueuedItem:
    """Item that waits for a replica, or is being processed by one."""

    item_key: str
    inputs: Sequence[Payload]
    recording: int | str | None
    arrived_s: float
    """Arrival time of the last input."""
    done: Callable[[ItemResult, Sequence[Payload], float], None]
    """Callback for success, with the outputs, and the end of the batch in seconds."""
    failed: Callable[..., None]
    """Callback for failure, with the reason, and optionally its code."""
    is_cancelled: Callable[[], bool]
    """Predicate for the cancellation of the request."""
    prefix: str = ""
    """Configuration hash of the `RouteStage.prefix`."""
    replica_losses: int = 0
    """Number of replicas that ended while processing the item."""
    latest_start_s: float = math.inf
    """Latest start of its service that can meet the latency SLO, by the clock of `arrived_s`."""
    dropped: Callable[[], None] | None = None
    """Callback for an item that is dropped because its latest start has passed; None for one that must be served."""
    path: RunPath = ()
    """Path of the element; empty for the item itself."""
    memory: QueueMemory = field(default_factory=lambda: QueueMemory())
    """Memory of all queues of the router."""

    @property
    def batch_item(self) -> BatchItem:
        """The item as replicas receive it."""
        return BatchItem(self.item_key, len(self.inputs), self.recording, self.path)


class QueueMemory:
    """Memory of the inputs in the queues of a router. A payload takes it once, however many items share it."""

    def __init__(self) -> None:
        self.used_bytes = 0
        self._items = Counter[int]()
        """Identity of a payload -> number of queued items with it."""

    def add(self, payloads: Sequence[Payload]) -> None:
        """Count the payloads of an item that enters a queue."""
        for payload in payloads:
            self._items[id(payload)] += 1
            if self._items[id(payload)] == 1:
                self.used_bytes += len(payload)

    def remove(self, payloads: Sequence[Payload]) -> None:
        """Count the payloads of an item that leaves a queue."""
        for payload in payloads:
            self._items[id(payload)] -= 1
            if not self._items[id(payload)]:
                del self._items[id(payload)]
                self.used_bytes -= len(payload)


def end_batch(batch: Sequence[QueuedItem], result: BatchResult, outputs: Iterable[Payload], end_s: float) -> None:
    """Call back every item of a batch that ended at `end_s`; `outputs` are those of items that have one, in order."""
    remaining = iter(outputs)
    for item, item_result in zip(batch, result.results, strict=True):
        own = list(islice(remaining, item_result.payloads))
        if item_result.error:
            item.failed(item_result.error)
        else:
            item.done(item_result, own, end_s)


def timeout_reason(items: int, limit_s: float) -> str:
    """Return the reason of items whose batch exceeded its time limit."""
    return (
        f"its batch of {items} took longer than {limit_s:.3g} s, so that the replica was replaced. "
        "Look for an endless loop or a wait without a timeout, or profile with such inputs"
    )


_Entry = tuple[float, float, int, QueuedItem]
"""(latest start, arrival time, number, item); numbers are unique, so that items are never compared."""


class BatchQueue:
    """Queue of items, of which those with the earliest latest start form the next batch.

    With a replica free at f, and arrival times a1 of the oldest item and ab of the b-th (infinity if there are fewer; b
    is the batch size), the next batch begins at max(f, min(a1 + batch_wait_s, ab)). Of the items that have arrived by
    then, it takes up to b with the earliest latest start, the oldest of equal ones. Droppable items whose latest start
    lies before the begin are dropped first, and the begin follows from the others. Cancelled items are ignored. An item
    whose replica ended forms a batch of its own, before all others and without waiting, so that it cannot fail other
    items.
    """

    def __init__(self, batch_size: int, batch_wait_s: float) -> None:
        self.batch_wait_s = batch_wait_s
        """Maximum time that the oldest item waits for its batch to fill."""
        self._batch_size = batch_size
        self._lost: deque[QueuedItem] = deque()
        """Items whose replica ended."""
        self._by_arrival: list[tuple[float, int, QueuedItem]] = []
        """(arrival time, number, item), ascending; items with the same arrival time are in the order of numbers."""
        self._required: list[_Entry] = []
        self._droppable: list[_Entry] = []
        self._numbers = count()
        self._returned_numbers = count(-1, -1)

    def __len__(self) -> int:
        return len(self._lost) + len(self._by_arrival)

    def put(self, item: QueuedItem) -> None:
        """Insert an item, after others with the same latest start and arrival time."""
        self._insert(item, next(self._numbers))

    def put_back(self, batch: Sequence[QueuedItem]) -> None:
        """Return the items of a batch, in order, before others with the same latest start and arrival time."""
        for item in reversed(batch):
            if item.replica_losses:
                self._lost.appendleft(item)
                item.memory.add(item.inputs)
            else:
                self._insert(item, next(self._returned_numbers))

    def next_batch_at_s(self, free_s: float) -> float | None:
        """Return the start of the next batch on a replica free since `free_s`, or None if no item waits."""
        while self._lost and self._lost[0].is_cancelled():
            self._pop_lost()
        if self._lost:
            return max(free_s, self._lost[0].arrived_s)
        arrived_s = self._oldest_arrivals_s()
        if not arrived_s:
            return None
        latest_s = arrived_s[0] + self.batch_wait_s
        return max(free_s, min(latest_s, arrived_s[-1]) if len(arrived_s) == self._batch_size else latest_s)

    def take(self, start_s: float) -> list[QueuedItem]:
        """Remove and return the batch that begins at `start_s`; empty if items were dropped, as it may begin later."""
        if self._lost:
            return [self._pop_lost()]
        late = [e for e in takewhile(lambda e: e[0] < start_s, self._droppable) if e[1] <= start_s]
        for entry in late:
            item = self._remove(entry)
            if item.dropped is not None and not item.is_cancelled():
                item.dropped()
        if late:
            return []
        batch: list[_Entry] = []
        cancelled: list[_Entry] = []
        for entry in merge(self._required, self._droppable):
            if entry[1] <= start_s:
                (cancelled if entry[3].is_cancelled() else batch).append(entry)
            if len(batch) == self._batch_size:
                break
        for entry in cancelled:
            self._remove(entry)
        return [self._remove(entry) for entry in batch]

    def clear(self) -> list[QueuedItem]:
        """Remove and return all items."""
        waiting = [*self._lost, *(item for _, _, item in self._by_arrival)]
        for queue in (self._lost, self._by_arrival, self._required, self._droppable):
            queue.clear()
        for item in waiting:
            item.memory.remove(item.inputs)
        return waiting

    def items_before(self, latest_start_s: float, now_s: float) -> int:
        """Return the number of items served before one that arrives now, without those that will be dropped as late."""
        last = (latest_start_s, math.inf)
        required, droppable = bisect_right(self._required, last), bisect_right(self._droppable, last)
        return len(self._lost) + required + max(droppable - bisect_left(self._droppable, (now_s,)), 0)

    def remove_cancelled(self) -> None:
        """Remove all cancelled items, whose inputs take memory."""
        for item in [item for item in self._lost if item.is_cancelled()]:
            self._lost.remove(item)
            item.memory.remove(item.inputs)
        for arrived_s, number, item in [entry for entry in self._by_arrival if entry[2].is_cancelled()]:
            self._remove((item.latest_start_s, arrived_s, number, item))

    def _pop_lost(self) -> QueuedItem:
        item = self._lost.popleft()
        item.memory.remove(item.inputs)
        return item

    def _insert(self, item: QueuedItem, number: int) -> None:
        item.memory.add(item.inputs)
        insort(self._by_arrival, (item.arrived_s, number, item))
        insort(self._ordered(item), (item.latest_start_s, item.arrived_s, number, item))

    def _remove(self, entry: _Entry) -> QueuedItem:
        _, arrived_s, number, item = entry
        item.memory.remove(item.inputs)
        ordered = self._ordered(item)
        del ordered[bisect_left(ordered, entry)]
        del self._by_arrival[bisect_left(self._by_arrival, (arrived_s, number, item))]
        return item

    def _ordered(self, item: QueuedItem) -> list[_Entry]:
        return self._required if item.dropped is None else self._droppable

    def _oldest_arrivals_s(self) -> list[float]:
        """Return the arrival times of the oldest items, up to the batch size, and remove cancelled ones."""
        oldest_s: list[float] = []
        while len(oldest_s) < min(self._batch_size, len(self._by_arrival)):
            arrived_s, number, item = self._by_arrival[len(oldest_s)]
            if item.is_cancelled():
                self._remove((item.latest_start_s, arrived_s, number, item))
            else:
                oldest_s.append(arrived_s)
        return oldest_s
