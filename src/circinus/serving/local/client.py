"""Client of a background engine, for any process of this machine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from circinus.errors import OverloadedError, ServingError
from circinus.operators.pickling import Payload, pickle_value
from circinus.serving.engine import AuditBatch, DesiredState, EngineStatus, Request, Response
from circinus.serving.local import DEFAULT_RUN_FOLDER
from circinus.serving.local.connection import Connection
from circinus.serving.local.rpc_protocol import RpcMethod, RpcReply, RpcRequest
from circinus.serving.local.run_dir import EXIT_TAKEN, RunDirectory
from circinus.serving.router.request_messages import PickledResponse
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import state_to_json


class LocalEngineClient:
    """`Engine` over the socket of a background engine, with any number of concurrent requests.

    Connects at the first call. `disconnect` leaves the engine running, `close` ends it. All calls must come from one
    event loop.
    """

    def __init__(self, run_folder: Path = DEFAULT_RUN_FOLDER) -> None:
        self._folder = RunDirectory(run_folder.absolute())
        self._connection: Connection | None = None
        self._call_ids = count(1)
        self._pending: dict[int, asyncio.Future[tuple[Any, list[memoryview]]]] = {}
        self._lost = asyncio.Event()

    async def apply(self, desired: DesiredState) -> None:
        """Implement `Engine.apply`."""
        absolute = replace(
            desired,
            module_paths=tuple(path.absolute() for path in desired.module_paths),
            recordings=desired.recordings.absolute() if desired.recordings is not None else None,
        )
        await self._call(RpcMethod.APPLY, state_to_json(absolute))

    async def listen_http(self, address: tuple[str, int] | None) -> None:
        """Call `LocalEngine.listen_http` of the engine."""
        await self._call(RpcMethod.LISTEN_HTTP, address)

    async def submit(self, request: Request) -> Response:
        """Implement `Engine.submit`. The output is unpickled in the calling process."""
        value = pickle_value(request.value)
        (sinks, timings), outputs = await self._call(RpcMethod.SUBMIT, replace(request, value=None), [value])
        return PickledResponse(dict(zip(sinks, outputs, strict=True)), timings).unpickle()

    async def status(self) -> EngineStatus:
        """Implement `Engine.status`.

        Raises:
            ServingError: there is no engine, or it does not answer in time.
        """
        status: EngineStatus
        async with self._in_time(SERVING.daemon_status_timeout_s):
            status, _ = await self._call(RpcMethod.STATUS)
        return status

    async def drain_audits(self) -> AuditBatch:
        """Implement `AuditableEngine.drain_audits`."""
        audits: AuditBatch
        audits, _ = await self._call(RpcMethod.AUDITS)
        return audits

    async def disconnect(self) -> None:
        """Disconnect, and leave the engine running. Pending calls are cancelled."""
        if self._connection is not None:
            self._connection.close()
            self._on_connection_lost()

    async def close(self) -> None:
        """End the engine with everything that it started, and remove its run folder.

        Raises:
            ServingError: the engine does not end in time.
        """
        if self._connection is None and not _is_reachable(self._folder):
            await asyncio.to_thread(self._folder.clear)
            return
        async with self._in_time(SERVING.daemon_close_timeout_s):
            with suppress(ServingError):  # the engine may end before it replies
                await self._call(RpcMethod.CLOSE)
            if self._connection is not None:
                await self._lost.wait()

    @asynccontextmanager
    async def _in_time(self, limit_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise self._folder.silence_reason() from None

    async def _call(
        self, method: RpcMethod, argument: Any = None, payloads: Sequence[Payload] = ()
    ) -> tuple[Any, list[memoryview]]:
        connection = self._connect()
        call_id = next(self._call_ids)
        reply: asyncio.Future[tuple[Any, list[memoryview]]] = asyncio.get_running_loop().create_future()
        self._pending[call_id] = reply
        connection.send(RpcRequest(call_id, method, argument), payloads)
        try:
            return await reply
        except asyncio.CancelledError:
            connection.send(RpcRequest(next(self._call_ids), RpcMethod.CANCEL, call_id))
            raise
        finally:
            self._pending.pop(call_id, None)

    def _connect(self) -> Connection:
        if self._connection is None:
            socket = self._folder.connect()
            if socket is None:
                raise self._folder.missing_reason()
            self._lost.clear()
            self._connection = Connection(asyncio.get_running_loop(), socket, self._on_reply, self._on_connection_lost)
        return self._connection

    def _on_reply(self, reply: RpcReply, payloads: list[memoryview]) -> None:
        pending = self._pending.get(reply.call_id)
        if pending is None or pending.done():
            return  # the call was cancelled
        if reply.retry_after_s is not None:
            pending.set_exception(
                OverloadedError(
                    reply.error, retry_after_s=reply.retry_after_s, location=reply.location, hint=reply.hint
                )
            )
        elif reply.error:
            pending.set_exception(ServingError(reply.error, code=reply.code, location=reply.location, hint=reply.hint))
        else:
            pending.set_result((reply.content, payloads))

    def _on_connection_lost(self) -> None:
        self._connection = None
        self._lost.set()
        for pending in self._pending.values():
            if not pending.done():
                pending.set_exception(self._folder.missing_reason())


def start_daemon(run_folder: Path = DEFAULT_RUN_FOLDER) -> LocalEngineClient:
    """Start an engine in the background or join a running one, and return when the engine responds.

    Raises:
        ServingError: the engine did not start; the message has the end of its log.
    """
    folder = RunDirectory(run_folder.absolute())
    deadline_s = time.monotonic() + SERVING.daemon_start_timeout_s
    while time.monotonic() < deadline_s:
        if _is_reachable(folder):
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
            reason = started.stderr.strip() or folder.log_end()
            raise ServingError(
                f"the engine did not start: {reason}", code="engine.not_started", location=str(run_folder)
            )
        time.sleep(0.05)  # another engine is starting in the folder, or about to end
    raise folder.silence_reason()


def connect(run_folder: Path = DEFAULT_RUN_FOLDER) -> LocalEngineClient:
    """Return a client of the engine that runs in `run_folder`.

    Raises:
        ServingError: no engine runs; the message tells whether one was killed.
    """
    folder = RunDirectory(run_folder.absolute())
    if not _is_reachable(folder):
        raise folder.missing_reason()
    return LocalEngineClient(run_folder)


def destroy(run_folder: Path = DEFAULT_RUN_FOLDER) -> bool:
    """End the engine of `run_folder`, or remove the files of a killed one.

    Returns:
        False if there was neither; a folder without files of an engine is not touched.
    """
    folder = RunDirectory(run_folder.absolute())
    if not _is_reachable(folder):
        return folder.clear()
    asyncio.run(LocalEngineClient(run_folder).close())
    return True


def _is_reachable(folder: RunDirectory) -> bool:
    connection = folder.connect()
    if connection is None:
        return False
    connection.close()
    return True
