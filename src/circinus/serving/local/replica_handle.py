"""Handle of one replica in the engine, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from circinus.errors import ServingError
from circinus.operators.fork_server_client import ForkServerClient, ProcessExit
from circinus.operators.host import ReplyType
from circinus.operators.process_output import open_output
from circinus.serving.engine import TIMED_OUT
from circinus.serving.local.connection import Connection
from circinus.serving.local.replica_executor import decode_result, encode_batch
from circinus.serving.replicas.replica_protocol import Batch, BatchResult, ReplayStage, ReplicaSpec
from circinus.serving.router.batch_queue import QueuedItem, end_batch
from circinus.serving.settings import SERVING


def start_failure(deployment: str, error: OSError) -> ServingError:
    """Return the error of a replica whose process cannot be started."""
    return ServingError(
        f"cannot start a replica: {error}",
        code="engine.fork_server_not_started",
        location=f"deployment {deployment}",
    )


class ReplicaHandle:
    """Replica process, which processes one batch at a time.

    The future `ready` completes when the operator is loaded, and fails with a ServingError if it cannot be loaded.
    """

    def __init__(
        self,
        spec: ReplicaSpec,
        loop: asyncio.AbstractEventLoop,
        processes: ForkServerClient,
        on_idle: Callable[[ReplicaHandle], None],
        on_ended: Callable[[ReplicaHandle, ProcessExit], None],
        on_batch: Callable[[list[QueuedItem], BatchResult, float], None],
        output: Path | None = None,
    ) -> None:
        """Start the replica.

        Args:
            spec: start-up parameters.
            loop: event loop of all callbacks.
            processes: client of the fork server.
            on_idle: called when the replica can take a batch.
            on_ended: called once when the process has ended.
            on_batch: called with every batch, its result, and the seconds that it took.
            output: folder of the operators' output.

        Raises:
            ServingError: the process cannot be started.
        """
        self.ready: asyncio.Future[None] = loop.create_future()
        self.batch: list[QueuedItem] = []
        """Batch in service; empty for an idle replica."""
        self.draining = False
        """True after `drain`: the replica ends after its batch."""
        self.batches_done = 0
        self.free_s = 0.0
        """Time since which the replica can take a batch: the end of its last one, or when it became ready."""
        self.startup_s = 0.0
        """Time from the request until the replica was ready."""
        self.busy_s = 0.0
        """Time of the engine since the current batch began, or since the start of a replica that is not ready."""
        self.base_memory_bytes = 0.0
        """Resident memory after the first batches, or so far."""
        self._lost_s = 0.0
        """Time of the engine since the replica could no longer be reached."""
        self.has_timed_out = False
        self._start_s = 0.0
        self._system_process: psutil.Process | None = None
        self._name, self._replays = spec.name, spec.replays
        self._loop = loop
        self._on_idle = on_idle
        self._on_ended = on_ended
        self._on_batch = on_batch
        self._disconnected = False
        """True after the loss of the connection or the end of the process."""
        self._load_error = ""
        """Error of the operator while loading."""
        self._ended: asyncio.Future[None] = loop.create_future()
        try:
            kept = None if output is None or spec.replays else open_output(output, spec.uses)
            self._process = processes.spawn(spec, cpus=spec.cpus, output=kept)
        except OSError as error:
            raise start_failure(spec.name, error) from error
        self._connection = Connection(loop, self._process.connection, self._on_message, self._on_connection_lost)
        loop.add_reader(self._process.lifeline, self._process_ended)

    @property
    def is_ready(self) -> bool:
        """Return whether the replica serves."""
        return self.was_ready and not self.draining and not self._disconnected

    @property
    def reachable(self) -> bool:
        """Return whether the replica may be given a batch: no sign of its end has been noticed."""
        return not self._disconnected

    @property
    def was_ready(self) -> bool:
        """Return whether the operator was ever loaded."""
        return self.ready.done() and self.ready.exception() is None

    def send_recordings(self, stages: Mapping[int, ReplayStage]) -> None:
        """Send recordings to answer from."""
        self._connection.send((stages, None))

    def process(self, batch: list[QueuedItem], start_s: float) -> None:
        """Send a batch to the replica, which must be idle."""
        self.batch, self._start_s, self.busy_s = batch, start_s, 0.0
        items = tuple(item.batch_item for item in batch)
        inputs = [value for item in batch for value in item.inputs]
        self._connection.send((None, encode_batch(Batch(start_s, items))), inputs)

    def drain(self) -> None:
        """End the replica after its current batch."""
        self.draining = True
        if not self.batch:
            self._connection.close()
            self._loop.call_later(SERVING.replica_exit_timeout_s, self.kill)

    def time_out(self, reason: str) -> None:
        """Kill a replica that hangs, and fail the items of its batch, one of which may be the cause."""
        self.has_timed_out = self._disconnected = True
        self._load_error = self._load_error or reason
        batch, self.batch = self.batch, []
        self.kill()
        for item in batch:
            item.failed(reason, TIMED_OUT)

    def is_hung(self, elapsed_s: float, limit_s: float) -> bool:
        """Add time of the engine to that of the current batch or start, and return whether it exceeds a limit."""
        self.busy_s += elapsed_s
        if self.busy_s <= limit_s or self._disconnected:
            return False
        self._connection.receive()  # what has arrived while the engine was busy
        return bool(self.batch) or not self.ready.done()

    def is_stuck(self, elapsed_s: float) -> bool:
        """Add time of the engine to that since its loss, and return whether its end should have been told by now."""
        self._lost_s += elapsed_s if self._disconnected else 0.0
        return self._lost_s > SERVING.replica_exit_timeout_s

    def memory_bytes(self) -> float:
        """Return the resident memory of the process; 0 if it has ended or is not ready."""
        if self._system_process is None:
            return 0.0
        try:
            used_bytes = float(self._system_process.memory_info().rss)
        except psutil.Error:
            return 0.0
        if self.batches_done <= SERVING.warm_up_batches:
            self.base_memory_bytes = max(self.base_memory_bytes, used_bytes)
        return used_bytes

    def kill(self) -> None:
        """Kill the replica."""
        if not self._ended.done():
            self._process.kill()

    async def ended(self) -> None:
        """Wait until the process has ended."""
        await asyncio.shield(self._ended)

    def _on_message(self, header: Any, payloads: list[memoryview]) -> None:
        message_type, content = header
        if message_type == ReplyType.READY:
            if not self.ready.done():
                self.ready.set_result(None)
            process_id, _ = content
            with suppress(psutil.Error):  # it may have ended
                self._system_process = psutil.Process(process_id)
            self.free_s = self._loop.time()
            self.startup_s = self.free_s - self._process.requested_s
            self._on_idle(self)
        elif message_type == ReplyType.FAILED:
            self._load_error = str(content)
        else:
            self._batch_done(decode_result(content), payloads)

    def _batch_done(self, result: BatchResult, payloads: list[memoryview]) -> None:
        if not self.batch:
            return  # its items have failed
        batch, self.batch = self.batch, []
        # A replay ends when it is due, however late a busy machine notices it.
        self.free_s = result.end_s if self._replays else self._loop.time()
        occupied_s = self.free_s - self._start_s
        result = result.lasting(occupied_s)
        self.batches_done += 1
        self._on_batch(batch, result, occupied_s)
        if self.draining:
            self.drain()
        elif not self._disconnected:
            self._on_idle(self)
        end_batch(batch, result, payloads, self.free_s)

    def _on_connection_lost(self) -> None:
        """Kill the process: it has ended, or can no longer be reached."""
        self._disconnected = True
        self.kill()

    def _process_ended(self) -> None:
        self._loop.remove_reader(self._process.lifeline)
        process_exit = self._process.wait()
        self._disconnected = True
        self._connection.receive()  # messages sent before the end
        self._ended.set_result(None)
        self._connection.close()
        self._on_ended(self, process_exit)
        if not self.ready.done():
            reason = self._load_error or f"its process {process_exit.description}"
            self.ready.set_exception(
                ServingError(
                    f"a replica could not load its operator: {reason}",
                    code="replica.not_loaded",
                    location=f"deployment {self._name}",
                )
            )
            self.ready.exception()  # marks the exception as retrieved, in case no task waits for it
