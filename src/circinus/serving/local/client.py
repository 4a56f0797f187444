"""Speaking to an engine that runs in the background, from any process of this machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from circinus.errors import ServingError
from circinus.profiling.measurement.pickling import pickle_value
from circinus.serving.engine import AuditBatch, DesiredState, EngineStatus, Request, Response
from circinus.serving.local import DEFAULT_RUN_FOLDER
from circinus.serving.local.connection import Connection
from circinus.serving.local.daemon import EXIT_TAKEN
from circinus.serving.local.rpc_protocol import ResponseHeader, RpcMethod, RpcReply, RpcRequest, SubmitHeader
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.pickled_response import PickledResponse, unpickle_response
from circinus.serving.replicas.replica_protocol import Payload
from circinus.serving.state_serialization import state_to_json

_START_S = 30.0
_END_S = 30.0


class LocalEngineClient:
    """The `Engine` protocol over the socket of a background engine. Many requests may be under way at once.

    Connects at the first call. `disconnect` leaves the engine running, `close` ends it. All calls must come from one
    event loop.
    """

    def __init__(self, run_folder: Path = DEFAULT_RUN_FOLDER) -> None:
        self._folder = RunDirectory(run_folder.absolute())
        self._connection: Connection | None = None
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[tuple[Any, list[memoryview]]]] = {}
        self._lost = asyncio.Event()

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`."""
        absolute = replace(
            desired,
            module_paths=tuple(path.absolute() for path in desired.module_paths),
            recordings=desired.recordings.absolute() if desired.recordings is not None else None,
        )
        await self._call(RpcMethod.APPLY, state_to_json(absolute))

    async def submit(self, request: Request) -> Response:
        """As `Engine.submit`; the output is unpickled here, not in the engine."""
        value = pickle_value(request.value)
        submission = SubmitHeader(request.query, request.item_key, request.input_bytes)
        answer: ResponseHeader
        answer, outputs = await self._call(RpcMethod.SUBMIT, submission, [value])
        by_sink = dict(zip(answer.sinks, outputs, strict=True))
        return unpickle_response(
            PickledResponse(by_sink, answer.latency_s, answer.stage_s, answer.busy_s, answer.link_bytes)
        )

    async def status(self) -> EngineStatus:
        """As `Engine.status`."""
        status: EngineStatus
        status, _ = await self._call(RpcMethod.STATUS)
        return status

    async def drain_audits(self) -> AuditBatch:
        """As `Audited.audits`."""
        audits: AuditBatch
        audits, _ = await self._call(RpcMethod.AUDITS)
        return audits

    async def disconnect(self) -> None:
        """Leave the engine running. Calls under way are cancelled."""
        if self._connection is not None:
            self._connection.close()
            self._connection_lost()

    async def close(self) -> None:
        """End the engine with everything it started, and remove its run folder."""
        if self._connection is None and not _answers(self._folder):
            await asyncio.to_thread(self._folder.clear)
            return
        with suppress(ServingError):  # it may end before it has replied
            await self._call(RpcMethod.CLOSE)
        if self._connection is not None:
            await asyncio.wait_for(self._lost.wait(), _END_S)

    async def _call(
        self, verb: RpcMethod, argument: Any = None, payloads: Sequence[Payload] = ()
    ) -> tuple[Any, list[memoryview]]:
        connection = self._connect()
        number = next(self._numbers)
        reply: asyncio.Future[tuple[Any, list[memoryview]]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        connection.send(RpcRequest(number, verb, argument), payloads)
        try:
            return await reply
        except asyncio.CancelledError:
            connection.send(RpcRequest(next(self._numbers), RpcMethod.CANCEL, number))
            raise
        finally:
            self._waiting.pop(number, None)

    def _connect(self) -> Connection:
        if self._connection is None:
            socket = self._folder.connect()
            if socket is None:
                raise self._folder.missing_reason()
            self._lost.clear()
            self._connection = Connection(asyncio.get_running_loop(), socket, self._replied, self._connection_lost)
        return self._connection

    def _replied(self, reply: RpcReply, payloads: list[memoryview]) -> None:
        waiting = self._waiting.get(reply.number)
        if waiting is None or waiting.done():
            return  # it was cancelled
        if reply.error:
            waiting.set_exception(ServingError(reply.error, code=reply.code, location=reply.location, hint=reply.hint))
        else:
            waiting.set_result((reply.content, payloads))

    def _connection_lost(self) -> None:
        self._connection = None
        self._lost.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(self._folder.missing_reason())


def start_daemon(run_folder: Path = DEFAULT_RUN_FOLDER) -> LocalEngineClient:
    """Start an engine in the background, or join the one that runs; returns when it answers.

    Raises:
        ServingError: it did not start; the message has the end of its log.
    """
    folder = RunDirectory(run_folder.absolute())
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        if _answers(folder):
            return LocalEngineClient(run_folder)
        started = subprocess.run(
            [sys.executable, "-P", "-m", "circinus.serving.local.daemon", str(folder.path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if started.returncode == 0:
            return LocalEngineClient(run_folder)
        if started.returncode != EXIT_TAKEN:
            told = started.stderr.strip() or folder.log_end()
            raise ServingError(f"the engine did not start: {told}", code="engine.not_started", location=str(run_folder))
        time.sleep(0.05)  # another is starting there, or about to end
    raise ServingError(
        f"the engine (process {folder.process()}) holds its lock and does not answer",
        code="engine.silent",
        location=str(run_folder),
    )


def connect(run_folder: Path = DEFAULT_RUN_FOLDER) -> LocalEngineClient:
    """The engine that runs in `run_folder`.

    Raises:
        ServingError: none runs; the message says whether one was killed.
    """
    folder = RunDirectory(run_folder.absolute())
    if not _answers(folder):
        raise folder.missing_reason()
    return LocalEngineClient(run_folder)


def destroy(run_folder: Path = DEFAULT_RUN_FOLDER) -> bool:
    """End the engine of `run_folder`, or remove what a killed one left there.

    False when there was neither; a folder that no engine had is not touched.
    """
    folder = RunDirectory(run_folder.absolute())
    if not _answers(folder):
        return folder.clear()
    asyncio.run(LocalEngineClient(run_folder).close())
    return True


def _answers(folder: RunDirectory) -> bool:
    connection = folder.connect()
    if connection is None:
        return False
    connection.close()
    return True
