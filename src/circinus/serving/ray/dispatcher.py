"""The queue of one deployment, and as many batches at a time as it has replicas."""

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
"""An item that this many replicas were lost with is given up: it may well be what ends them."""


class ReplicaLostError(CircinusError):
    """Replica that ended or became unreachable while it had a batch."""


class ReplicaClient(Protocol):
    """How batches come to replicas."""

    async def process(
        self, application: str, items: Sequence[BatchItem], payloads: Sequence[Payload]
    ) -> tuple[BatchResult, Sequence[Payload]]:
        """What a free replica of an application makes of a batch; the payloads are the inputs, item by item.

        Raises:
            ReplicaLostError: the replica was lost with it.
        """
        ...


class Dispatcher:
    """Gives what waits for one deployment to its replicas, batch by batch (`BatchQueue` says when)."""

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
        self._alarm: asyncio.TimerHandle | None = None
        self._dispatches_soon = False

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._queue)

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._batches and not len(self._queue)

    def configure(self, replicas: int, batch_wait_s: float) -> None:
        """From now on so many batches at a time, of which the oldest item may wait so long for others."""
        self.replicas = replicas
        self._queue.batch_wait_s = batch_wait_s
        self._dispatch_soon()

    def enqueue(self, work: QueuedItem) -> None:
        """Put an item into the queue."""
        self.requests += 1
        self._queue.put(work)
        self._dispatch_soon()

    def _dispatch_soon(self) -> None:
        """When all is there that comes now: the outputs of one batch come one after the other, but may go together."""
        if not self._dispatches_soon:
            self._dispatches_soon = True
            self._loop.call_soon(self._dispatch, context=Context())

    def _dispatch(self) -> None:
        self._dispatches_soon = False
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        while len(self._batches) < self.replicas:
            now_s = self._loop.time()
            begin_s = self._queue.next_batch_at_s(0.0)
            if begin_s is None:
                return
            if begin_s > now_s:
                self._alarm = self._loop.call_at(begin_s, self._dispatch, context=Context())
                return
            # In a context of its own: Ray Serve cancels what was begun in that of a request whose client went away.
            task = self._loop.create_task(self._process(self._queue.take(now_s)), context=Context())
            self._batches.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._dispatch_soon()
        if not task.cancelled():
            task.result()  # a fault of this program is heard of

    async def _process(self, batch: list[QueuedItem]) -> None:
        items = [BatchItem(work.item_key, len(work.inputs), work.recording) for work in batch]
        payloads = [packed for work in batch for packed in work.inputs]
        try:
            result, outputs = await self._calls.process(self.application, items, payloads)
        except ReplicaLostError as error:
            self.losses += 1
            self.last_loss = f"a replica was lost: {error}"
            self._lost(batch, error)
            return
        except asyncio.CancelledError:
            self._queue.put_back(batch)
            raise
        except Exception as error:  # of whatever kind: nobody may wait for ever
            for work in batch:
                work.failed(f"{type(error).__name__}: {error}")
            return
        self.served.record(batch, result)
        remaining = iter(outputs)
        for work, its_result in zip(batch, result.results, strict=True):
            output = next(remaining) if its_result.has_payload else None
            if its_result.error:
                work.failed(its_result.error)
            else:
                work.done(its_result, output, self._loop.time())

    def _lost(self, batch: list[QueuedItem], error: ReplicaLostError) -> None:
        for work in batch:
            work.replica_losses += 1
            if work.replica_losses >= MAX_DEATHS:
                work.failed(f"{MAX_DEATHS} replicas ended while they processed it; the last one: {error}")
        self._queue.put_back(work for work in batch if work.replica_losses < MAX_DEATHS)
