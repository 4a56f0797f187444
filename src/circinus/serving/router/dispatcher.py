"""Dispatch of the items of one deployment to its replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Protocol

from circinus.serving.counters import BatchHistory
from circinus.serving.router.batch_queue import BatchQueue, QueuedItem
from circinus.serving.settings import SERVING


class ReplicaSet(Protocol):
    """Replicas of one deployment, each of which processes one batch at a time."""

    @property
    def desired_replicas(self) -> int:
        """Number of replicas, of which some may start."""
        ...

    def idle_since_s(self) -> float | None:
        """Return the time since which the next replica is idle, or None if none is."""
        ...

    def process(self, batch: list[QueuedItem], start_s: float) -> None:
        """Start a batch on the next idle replica. It ends its items, or returns them with `Dispatcher.put_back`."""
        ...


class Dispatcher:
    """Queue of one deployment. Batches begin when its `BatchQueue` allows it and a replica is idle."""

    def __init__(
        self,
        replicas: ReplicaSet,
        loop: asyncio.AbstractEventLoop,
        batch_size: int,
        batch_wait_s: float = 0.0,
        *,
        replays: bool = False,
    ) -> None:
        """Create a dispatcher with an empty queue.

        Args:
            replicas: the replicas.
            loop: event loop of all calls.
            batch_size: maximum number of items of a batch.
            batch_wait_s: maximum time that the oldest item waits for its batch to fill.
            replays: True if batches begin at their due time instead of when a busy machine notices it, so that lateness
                does not accumulate in the queues of a replay.
        """
        self.requests = 0
        """Number of items enqueued so far."""
        self.history = BatchHistory()
        self._replicas = replicas
        self._loop = loop
        self._queue = BatchQueue(batch_size, batch_wait_s)
        self._replays = replays
        self._batch_size = batch_size
        self._collects = replays or batch_size > 1
        """True if simultaneous arrivals are collected before a dispatch."""
        self._timer: asyncio.TimerHandle | None = None
        """Timer of the next batch that an idle replica waits for."""
        self._dispatch_scheduled = False

    def __len__(self) -> int:
        """Return the number of queued items."""
        return len(self._queue)

    def enqueue(self, item: QueuedItem) -> None:
        """Insert an item into the queue."""
        self.requests += 1
        self._queue.put(item)
        self.dispatch()

    def expected_wait_s(self, latest_start_s: float) -> float:
        """Return the expected time in the queue of an item that arrives now; 0 before the second batch.

        As many batches as the items before it fill take their recent median time each, on all replicas at once. Items
        that only wait for their batch to fill are no queue.
        """
        items = self._queue.items_before(latest_start_s, self._loop.time()) if len(self._queue) else 0
        if items < self._batch_size and self._replicas.idle_since_s() is not None:
            return 0.0
        return items / self._batch_size * self.history.median_batch_s / max(self._replicas.desired_replicas, 1)

    def remove_cancelled(self) -> None:
        """Remove the items of requests that have ended."""
        self._queue.remove_cancelled()

    def set_batch_wait(self, batch_wait_s: float) -> None:
        """Change how long the oldest item waits for its batch to fill."""
        self._queue.batch_wait_s = batch_wait_s
        self._dispatch_soon()

    def dispatch(self) -> None:
        """Dispatch after all simultaneous arrivals: the outputs of one batch arrive one by one, but may form one batch.

        With a batch size of 1 that is unnecessary, except in a replay, whose order depends on no delay of the machine.
        """
        if self._collects:
            self._dispatch_soon()
        else:
            self._dispatch()

    def put_back(self, batch: Sequence[QueuedItem], reason: str = "", *, is_lost: bool = False) -> None:
        """Return the items of an unfinished batch to the queue, except those that have lost too many replicas.

        Args:
            batch: the batch; its items keep their order.
            reason: predicate of a sentence whose subject is the replica.
            is_lost: True if the batch may be the cause of the loss of its replica.
        """
        for item in batch:
            item.replica_losses += is_lost
            if item.replica_losses >= SERVING.max_replica_losses:
                item.failed(f"{SERVING.max_replica_losses} replicas ended while processing it; the last one {reason}")
        self._queue.put_back([item for item in batch if item.replica_losses < SERVING.max_replica_losses])
        self._dispatch_soon()  # not now: further replicas may have ended with this one

    def fail_waiting(self, reason: str) -> None:
        """Fail all queued items."""
        self._cancel_timer()
        for item in self._queue.clear():
            item.failed(reason)

    def _dispatch_soon(self) -> None:
        """Dispatch after all callbacks that are due now."""
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            # Own context: Ray Serve cancels tasks that were created in the context of a disconnected request.
            self._loop.call_soon(self._dispatch, context=Context())

    def _dispatch(self) -> None:
        """Begin every batch that is due, and set the timer of the next one."""
        self._dispatch_scheduled = False
        self._cancel_timer()
        while self._queue and (idle_since_s := self._replicas.idle_since_s()) is not None:
            start_s, now_s = self._queue.next_batch_at_s(idle_since_s), self._loop.time()
            if start_s is None:
                return
            if start_s > now_s:
                self._timer = self._loop.call_at(start_s, self._dispatch, context=Context())
                return
            if not self._replays:
                start_s = now_s
            batch = self._queue.take(start_s)
            if batch:
                self._replicas.process(batch, start_s)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
