"""The engine's side of one replica: from its start to its end, one batch at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

from circinus.errors import ServingError
from circinus.serving.local.batch_codec import decode_result, encode_batch
from circinus.serving.local.connection import Connection
from circinus.serving.local.fork_server_client import ForkServerClient
from circinus.serving.replicas.batch_queue import QueuedItem
from circinus.serving.replicas.replica_protocol import (
    Batch,
    BatchItem,
    BatchResult,
    MessageType,
    ProcessExit,
    ReplayStage,
    ReplicaSpec,
)

_LEAVE_S = 5.0
"""How long a replica that was told to leave may take, before it is killed."""


class ReplicaHandle:
    """One replica. `ready` is done once the operator is loaded, and fails with a ServingError when it cannot be."""

    def __init__(
        self,
        spec: ReplicaSpec,
        loop: asyncio.AbstractEventLoop,
        processes: ForkServerClient,
        on_idle: Callable[[ReplicaHandle], None],
        on_ended: Callable[[ReplicaHandle, ProcessExit], None],
        on_batch: Callable[[list[QueuedItem], BatchResult], None],
    ) -> None:
        """Start it.

        Args:
            spec: what it runs.
            loop: in whose thread everything happens.
            processes: to start it with.
            on_idle: called when it can take a batch.
            on_ended: called once, with how, when its process has ended.
            on_batch: called with what it has processed and what became of it.

        Raises:
            ServingError: its process cannot be started.
        """
        self.ready: asyncio.Future[None] = loop.create_future()
        self.batch: list[QueuedItem] = []
        """What it is processing."""
        self.leaving = False
        """Whether it was told to end."""
        self.batches_done = 0
        self.free_s = 0.0
        """Since when it can take a batch: when it ended its last one, or was ready."""
        self.startup_s = 0.0
        """From being asked for until it was ready."""
        self._asked_s = loop.time()
        self._name = spec.name
        self._loop = loop
        self._processes = processes
        self._on_idle = on_idle
        self._on_ended = on_ended
        self._on_batch = on_batch
        self._gone = False
        """Whether its connection is lost or its process has ended."""
        self._reason = ""
        """Why it could not load its operator, as it told."""
        self._ended: asyncio.Future[None] = loop.create_future()
        ours, theirs = socket.socketpair()
        self._connection = Connection(loop, ours, self._told, self._lost)
        try:
            self._id = processes.spawn(spec, theirs, self._process_ended)
        except ServingError:
            self._connection.close()
            raise

    @property
    def is_ready(self) -> bool:
        """Whether it serves."""
        return self.was_ready and not self.leaving and not self._ended.done()

    @property
    def reachable(self) -> bool:
        """Whether its end is not known to be near; only then may it be given a batch."""
        return not self._gone

    @property
    def was_ready(self) -> bool:
        """Whether its operator was ever loaded."""
        return self.ready.done() and self.ready.exception() is None

    def send_recordings(self, stages: Mapping[int, ReplayStage]) -> None:
        """Send recordings to answer from."""
        self._connection.send((MessageType.RECORDINGS, stages))

    def process(self, batch: list[QueuedItem], begin_s: float) -> None:
        """Begin a batch; it must be idle."""
        self.batch = batch
        items = tuple(BatchItem(work.item_key, len(work.inputs), work.recording) for work in batch)
        inputs = [packed for work in batch for packed in work.inputs]
        self._connection.send((MessageType.WORK.value, encode_batch(Batch(begin_s, items))), inputs)

    def drain(self) -> None:
        """End after the present batch."""
        self.leaving = True
        if not self.batch:
            self._connection.close()
            self._loop.call_later(_LEAVE_S, self.kill)

    def kill(self) -> None:
        """End at once."""
        if not self._ended.done():
            self._processes.kill(self._id)

    async def ended(self) -> None:
        """Wait until its process has ended."""
        await asyncio.shield(self._ended)

    def _told(self, header: Any, payloads: list[memoryview]) -> None:
        say, content = header
        if say == MessageType.READY:
            if not self.ready.done():
                self.ready.set_result(None)
            self.free_s = self._loop.time()
            self.startup_s = self.free_s - self._asked_s
            self._on_idle(self)
        elif say == MessageType.FAILED:
            self._reason = content
        else:
            self._batch_done(decode_result(content), payloads)

    def _batch_done(self, result: BatchResult, payloads: list[memoryview]) -> None:
        batch, self.batch = self.batch, []
        self.free_s = result.end_s
        self.batches_done += 1
        self._on_batch(batch, result)
        if self.leaving:
            self.drain()
        elif not self._gone:
            self._on_idle(self)
        outputs = iter(payloads)
        for work, its_result in zip(batch, result.results, strict=True):
            if its_result.error:
                work.failed(its_result.error)
            else:
                work.done(its_result, next(outputs) if its_result.has_payload else None, result.end_s)

    def _lost(self) -> None:
        """It closed its connection: it has ended, or it can no longer be reached and must."""
        self._gone = True
        self.kill()

    def _process_ended(self, ending: ProcessExit) -> None:
        if self._ended.done():
            return
        self._gone = True
        self._connection.receive()  # what it said before it ended
        self._ended.set_result(None)
        self._connection.close()
        self._on_ended(self, ending)
        if not self.ready.done():
            reason = self._reason or f"its process {ending.how}"
            self.ready.set_exception(
                ServingError(
                    f"a replica could not load its operator: {reason}", code="replica.not_loaded", location=self._name
                )
            )
            self.ready.exception()  # whoever waits is told; where nobody does, that is no fault of the program
