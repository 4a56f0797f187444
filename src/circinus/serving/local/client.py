"""Client of a background engine, for any process of this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from circinus.errors import OverloadedError, ServingError
from circinus.operators.framing import encode
from circinus.operators.pickling import Payload, pickle_value
from circinus.serving.engine import (
    ENGINE_ENDED,
    ENGINE_SILENT,
    AuditBatch,
    DesiredState,
    EngineStatus,
    Request,
    Response,
)
from circinus.serving.http_tokens import ENVIRONMENT_VARIABLE, HttpTokens
from circinus.serving.local import DEFAULT_RUN_FOLDER
from circinus.serving.local.connection import Connection
from circinus.serving.local.rpc_protocol import (
    EVERY_CALL,
    REPLIES_OF_ENGINE,
    TOO_MANY_CLIENTS,
    RpcMethod,
    RpcReply,
    RpcRequest,
    read_audits,
    read_content,
)
from circinus.serving.local.run_dir import EXIT_TAKEN, RunDirectory
from circinus.serving.router.request_messages import PickledResponse
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import state_to_json

_CHECKS = 10
"""Number of checks in which a ping must be answered, within `daemon_status_timeout_s`."""
_RETRY_S = 0.05


class LocalEngineClient:
    """`Engine` over the socket of a background engine, with any number of concurrent requests.

    Connects at the first call. `disconnect` leaves the engine running, `close` ends it. All calls must come from one
    event loop. While calls are under way, an engine that neither replies nor answers a ping within
    `daemon_status_timeout_s` is silent, and all of them fail.
    """

    def __init__(self, run_folder: Path = DEFAULT_RUN_FOLDER) -> None:
        self._folder = RunDirectory(run_folder.absolute())
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._call_ids = count(EVERY_CALL + 1)
        self._pending: dict[int, asyncio.Future[tuple[Any, list[memoryview]]]] = {}
        self._lost = asyncio.Event()
        self._next_check: asyncio.TimerHandle | None = None
        self._activity = 0
        """Activity of the engine at the last check."""
        self._silent_checks = 0

    async def apply(self, desired: DesiredState) -> None:
        """Implement `Engine.apply`."""
        absolute = replace(
            desired,
            module_paths=tuple(path.absolute() for path in desired.module_paths),
            recordings=desired.recordings.absolute() if desired.recordings is not None else None,
        )
        await self._call(RpcMethod.APPLY, payloads=[state_to_json(absolute).encode()])

    async def listen_http(self, address: tuple[str, int] | None) -> None:
        """Call `LocalEngine.listen_http` of the engine."""
        await self._call(RpcMethod.LISTEN_HTTP, address)

    async def require_tokens(self, tokens: HttpTokens) -> None:
        """Call `LocalEngine.require_tokens` of the engine, which keeps the hashes in its run folder."""
        await self._call(RpcMethod.REQUIRE_TOKENS, tokens.text)

    async def submit(self, request: Request) -> Response:
        """Implement `Engine.submit`. The output is unpickled in the calling process."""
        value = pickle_value(request.value)
        content, outputs = await self._call(RpcMethod.SUBMIT, replace(request, value=None), [value])
        sinks, timings = read_content(RpcMethod.SUBMIT, content)
        return PickledResponse(dict(zip(sinks, outputs, strict=True)), timings).unpickle()

    async def status(self) -> EngineStatus:
        """Implement `Engine.status`.

        Raises:
            ServingError: there is no engine, or it does not answer in time.
        """
        content, _ = await self._call(RpcMethod.STATUS)
        status: EngineStatus = read_content(RpcMethod.STATUS, content)
        return status

    async def drain_audits(self) -> AuditBatch:
        """Implement `AuditableEngine.drain_audits`."""
        return read_audits(*await self._call(RpcMethod.AUDITS))

    async def disconnect(self) -> None:
        """Disconnect, and leave the engine running. Pending calls fail with the code `engine.disconnected`."""
        if self._connection is not None:
            self._connection.close()
            reason, location = "its client was disconnected before the engine answered", str(self._folder.path)
            self._on_connection_lost(lambda: ServingError(reason, code="engine.disconnected", location=location))

    async def close(self) -> None:
        """End the engine with everything that it started, and remove its run folder.

        Raises:
            ServingError: the engine does not end in time.
        """
        process = self._folder.process()
        if self._connection is not None or self._folder.is_reachable():
            async with self._in_time(SERVING.daemon_close_timeout_s):
                try:
                    await self._call(RpcMethod.CLOSE)
                    if self._connection is not None:
                        await self._lost.wait()
                    return
                except ServingError as error:  # the engine may end before it replies
                    if error.code not in ENGINE_ENDED:
                        raise
        if self._folder.process() == process:  # else another engine has taken the folder
            await asyncio.to_thread(self._folder.clear)

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
        connection = self._connection or await self._connect()
        call_id = next(self._call_ids)
        reply: asyncio.Future[tuple[Any, list[memoryview]]] = asyncio.get_running_loop().create_future()
        self._pending[call_id] = reply
        if self._next_check is None:
            self._silent_checks = 0
            self._check_later(connection)
        try:
            connection.send(RpcRequest(call_id, method, argument), payloads)
            return await reply
        except asyncio.CancelledError:
            connection.send(RpcRequest(next(self._call_ids), RpcMethod.CANCEL, call_id))
            raise
        except ValueError as error:
            raise ServingError(f"{method} cannot be sent: {error}", code="engine.unsendable") from error
        finally:
            self._pending.pop(call_id, None)

    async def _connect(self) -> Connection:
        async with self._connecting:
            if self._connection is None:
                async with self._in_time(SERVING.daemon_status_timeout_s):
                    while True:
                        try:
                            socket = self._folder.connect()
                            break
                        except BlockingIOError:
                            await asyncio.sleep(_RETRY_S)
                if socket is None:
                    raise self._folder.missing_reason()
                self._lost.clear()
                self._connection = Connection(
                    asyncio.get_running_loop(), socket, self._on_reply, self._on_connection_lost, REPLIES_OF_ENGINE
                )
            return self._connection

    def _check_later(self, connection: Connection) -> None:
        self._activity = connection.activity
        wait_s = SERVING.daemon_status_timeout_s / _CHECKS
        self._next_check = asyncio.get_running_loop().call_later(wait_s, self._check, connection)

    def _check(self, connection: Connection) -> None:
        """Ping the engine if nothing came from it since the last check, and fail all calls if it does not answer.

        Checks are counted rather than seconds, so that a suspended client does not take the engine for silent.
        """
        self._next_check = None
        if not self._pending or connection is not self._connection:
            return
        self._silent_checks = self._silent_checks + 1 if connection.activity == self._activity else 0
        if self._silent_checks > _CHECKS:
            connection.abort()
            self._on_connection_lost(self._folder.silence_reason)
            return
        if self._silent_checks == 1:
            connection.send(RpcRequest(next(self._call_ids), RpcMethod.PING, None))
        self._check_later(connection)

    def _on_reply(self, reply: RpcReply, payloads: list[memoryview]) -> None:
        if reply.call_id == EVERY_CALL and self._connection is not None:
            self._connection.abort()
            self._on_connection_lost(lambda: _error(reply))
            return
        pending = self._pending.get(reply.call_id)
        if pending is None or pending.done():
            return  # the call was cancelled
        if reply.error:
            pending.set_exception(_error(reply))
        else:
            pending.set_result((reply.content, payloads))

    def _on_connection_lost(self, reason: Callable[[], ServingError] | None = None) -> None:
        self._connection = None
        self._lost.set()
        if self._next_check is not None:
            self._next_check.cancel()
            self._next_check = None
        waiting = [pending for pending in self._pending.values() if not pending.done()]
        if waiting:
            try:
                error = (reason or self._folder.missing_reason)()
            except ServingError as unreadable:  # the folder is no longer this user's
                error = unreadable
            for pending in waiting:
                pending.set_exception(error)


def _error(reply: RpcReply) -> ServingError:
    place = {"location": reply.location, "hint": reply.hint}
    if reply.retry_after_s is not None:
        return OverloadedError(reply.error, retry_after_s=reply.retry_after_s, **place)
    return ServingError(reply.error, code=reply.code, **place)


def start_daemon(run_folder: Path = DEFAULT_RUN_FOLDER) -> LocalEngineClient:
    """Start an engine in the background or join a running one, and return when the engine responds.

    Raises:
        ServingError: the engine did not start; the message has the end of its log.
    """
    folder = RunDirectory(run_folder.absolute())
    deadline_s = time.monotonic() + SERVING.daemon_start_timeout_s
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT_VARIABLE}
    while time.monotonic() < deadline_s:
        if _responds(folder):
            return LocalEngineClient(run_folder)
        started = subprocess.run(
            [sys.executable, "-P", "-m", "circinus.serving.local.daemon", str(folder.path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
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


def _responds(folder: RunDirectory) -> bool:
    """Return whether an engine responds, or is too busy to: a killed one listens until its last thread has ended."""
    try:
        connection = folder.connect()
    except BlockingIOError:
        return True
    if connection is None:
        return False
    ping = encode(RpcRequest(EVERY_CALL + 1, RpcMethod.PING, None), (), REPLIES_OF_ENGINE)
    with connection:
        connection.settimeout(SERVING.daemon_status_timeout_s)
        try:
            with suppress(BrokenPipeError):  # an engine with too many clients refuses before it reads
                connection.sendall(b"".join(ping))
            return bool(connection.recv(1))
        except TimeoutError:
            return True
        except ConnectionError:
            return False


def destroy(run_folder: Path = DEFAULT_RUN_FOLDER, on_kill: Callable[[int], None] = lambda process: None) -> bool:
    """End the engine of `run_folder`, or remove the files of a killed one.

    An engine that does not end in time is killed, with its replicas.

    Args:
        run_folder: run folder of the engine.
        on_kill: called with the process id of a killed engine.

    Returns:
        False if there was neither; a folder without files of an engine is not touched.

    Raises:
        ServingError: the engine is silent, and its process cannot be identified.
    """
    folder = RunDirectory(run_folder.absolute())
    try:
        if not folder.is_reachable():
            return folder.clear()
        asyncio.run(LocalEngineClient(run_folder).close())
    except ServingError as error:
        if error.code not in (ENGINE_SILENT, TOO_MANY_CLIENTS):
            raise
        from circinus.serving.local.engine_process import end_engine

        killed = end_engine(folder, responds=error.code == TOO_MANY_CLIENTS)
        if killed is not None:
            on_kill(killed)
        folder.clear()
    return True
