"""Queue of one deployment, with as many concurrent batches as it has replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from typing import Protocol

from circinus.errors import CircinusError
from circinus.serving.counters import BatchHistory
from circinus.serving.replicas.batch_queue import BatchQueue, QueuedItem
from circinus.serving.replicas.replica_protocol import BatchItem, BatchResult, Payload

MAX_DEATHS = 2
"""Replica losses after which an item fails, because it probably causes them."""


class ReplicaLostError(CircinusError):
    """Replica that ended or became unreachable while it had a batch."""


class ReplicaClient(Protocol):
    """Transport of batches to replicas."""

    async def process(
        self, application: str, items: Sequence[BatchItem], payloads: Sequence[Payload]
    ) -> tuple[BatchResult, Sequence[Payload]]:
        """Process a batch on a free replica of an application; payloads are the inputs in the order of items.

        Raises:
            ReplicaLostError: the replica was lost while it had the batch.
        """
        ...


class Dispatcher:
    """Dispatches queued items of one deployment to its replicas in batches (`BatchQueue` decides when)."""

    def __init__(
        self, application: str, calls: ReplicaClient, loop: asyncio.AbstractEventLoop, batch_size: int
    ) -> None:
        self.application = application
        self.replicas = 1
        self.requests = 0
        self.losses = 0
        self.last_loss = ""
        self.served = BatchHistory()
        self._calls = calls
        self._loop = loop
        self._queue = BatchQueue(batch_size, 0.0)
        self._batches: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._dispatches_soon = False

    def __len__(self) -> int:
        """Return the number of queued items."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """True if no item is queued or in service."""
        return not self._batches and not len(self._queue)

    def configure(self, replicas: int, batch_wait_s: float) -> None:
        """Set the number of concurrent batches, and how long the oldest item may wait for its batch to fill."""
        self.replicas = replicas
        self._queue.batch_wait_s = batch_wait_s
        self._dispatch_soon()

    def enqueue(self, work: QueuedItem) -> None:
        """Append an item to the queue."""
        self.requests += 1
        self._queue.put(work)
        self._dispatch_soon()

    def _dispatch_soon(self) -> None:
        """Dispatch after all current arrivals: outputs of one batch arrive one by one, but may share the next batch."""
        if not self._dispatches_soon:
            self._dispatches_soon = True
            self._loop.call_soon(self._dispatch, context=Context())

    def _dispatch(self) -> None:
        self._dispatches_soon = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while len(self._batches) < self.replicas:
            now_s = self._loop.time()
            start_s = self._queue.next_batch_at_s(0.0)
            if start_s is None:
                return
            if start_s > now_s:
                self._timer = self._loop.call_at(start_s, self._dispatch, context=Context())
                return
            # Own context: Ray Serve cancels tasks that were created in the context of a disconnected request.
            task = self._loop.create_task(self._process(self._queue.take(now_s)), context=Context())
            self._batches.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._dispatch_soon()
        if not task.cancelled():
            task.result()  # reports a bug instead of hiding it

    async def _process(self, batch: list[QueuedItem]) -> None:
        items = [BatchItem(work.item_key, len(work.inputs), work.recording) for work in batch]
        payloads = [packed for work in batch for packed in work.inputs]
        try:
            result, outputs = await self._calls.process(self.application, items, payloads)
        except ReplicaLostError as error:
            self.losses += 1
            self.last_loss = f"a replica was lost: {error}"
            self._handle_loss(batch, error)
            return
        except asyncio.CancelledError:
            self._queue.put_back(batch)
            raise
        except Exception as error:  # any failure must fail the requests; otherwise their callers wait forever
            for work in batch:
                work.failed(f"{type(error).__name__}: {error}")
            return
        self.served.record(batch, result)
        remaining = iter(outputs)
        for work, item_result in zip(batch, result.results, strict=True):
            output = next(remaining) if item_result.has_payload else None
            if item_result.error:
                work.failed(item_result.error)
            else:
                work.done(item_result, output, self._loop.time())

    def _handle_loss(self, batch: list[QueuedItem], error: ReplicaLostError) -> None:
        for work in batch:
            work.replica_losses += 1
            if work.replica_losses >= MAX_DEATHS:
                work.failed(f"{MAX_DEATHS} replicas were lost while processing it; last loss: {error}")
        self._queue.put_back(work for work in batch if work.replica_losses < MAX_DEATHS)
