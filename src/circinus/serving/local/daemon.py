"""Background process of the local engine."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NoReturn

from circinus.errors import CircinusError, OverloadedError, ServingError
from circinus.operators.pickling import Payload
from circinus.operators.process_output import output_folder
from circinus.serving.local.connection import Connection
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.local.rpc_protocol import RpcMethod, RpcReply, RpcRequest
from circinus.serving.local.run_dir import EXIT_TAKEN, RunDirectory
from circinus.serving.state_serialization import state_from_json

_log = logging.getLogger(__name__)

Handler = Callable[[RpcRequest, list[memoryview]], Awaitable[tuple[Any, Sequence[Payload]]]]
"""Handler of a call, which returns content and payloads of the reply."""


class ClientSession:
    """Session that runs the calls of one client concurrently, and cancels them when the client disconnects."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: socket.socket,
        handler: Handler,
        on_closed: Callable[[ClientSession], None],
    ) -> None:
        self._loop = loop
        self._handler = handler
        self._on_closed = on_closed
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._connection = Connection(loop, accepted, self._on_request, self._on_connection_lost)

    async def finish(self) -> None:
        """Wait until all calls have ended."""
        await asyncio.gather(*self._calls.values(), return_exceptions=True)

    def _on_request(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        if call.method is RpcMethod.CANCEL:
            if call.argument in self._calls:
                self._calls[call.argument].cancel()
            return
        task = self._loop.create_task(self._reply(call, payloads))
        self._calls[call.call_id] = task
        task.add_done_callback(lambda _: self._calls.pop(call.call_id))

    async def _reply(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        try:
            content, outputs = await self._handler(call, payloads)
        except CircinusError as error:
            retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else None
            failure = RpcReply(call.call_id, error.message, None, error.code, error.location, error.hint, retry_after_s)
            self._connection.send(failure)
        except Exception as error:  # the client needs a reply even after a bug of the engine
            _log.exception("%s failed", call.method)
            reason = f"the engine failed with {type(error).__name__}: {error}"
            self._connection.send(RpcReply(call.call_id, reason, None, code="engine.failed"))
        else:
            self._connection.send(RpcReply(call.call_id, "", content), outputs)

    def _on_connection_lost(self) -> None:
        for task in self._calls.values():
            task.cancel()
        self._on_closed(self)


_READY = b"."


class Daemon:
    """Server of one `LocalEngine` for any number of clients, until a client closes it or SIGTERM arrives."""

    def __init__(self, folder: RunDirectory) -> None:
        self._folder = folder
        self._engine = LocalEngine(output=output_folder(folder.path))
        self._sessions: set[ClientSession] = set()
        self._closing = asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until closed, and return when everything that was started has ended."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        loop.add_reader(listener, self._accept, loop, listener)
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._closing.set)
        await self._closing.wait()
        loop.remove_reader(listener)
        listener.close()
        _log.info("closing")
        await self._engine.close()
        await asyncio.gather(*(session.finish() for session in self._sessions))

    def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # the client has disconnected
        self._sessions.add(ClientSession(loop, accepted, self._handle, self._sessions.discard))

    async def _handle(self, call: RpcRequest, payloads: list[memoryview]) -> tuple[Any, Sequence[Payload]]:
        if call.method is RpcMethod.SUBMIT:
            response = await self._engine.submit_pickled(replace(call.argument, value=payloads[0]))
            return (tuple(response.outputs), response.timings), tuple(response.outputs.values())
        if call.method is RpcMethod.APPLY:
            await self._apply(call.argument)
            return None, ()
        if call.method is RpcMethod.LISTEN_HTTP:
            await self._listen_http(call.argument)
            return None, ()
        if call.method is RpcMethod.STATUS:
            return await self._engine.status(), ()
        if call.method is RpcMethod.AUDITS:
            return await self._engine.drain_audits(), ()
        self._closing.set()
        return None, ()

    async def _listen_http(self, address: tuple[str, int] | None) -> None:
        """Listen for HTTP requests; at any port (0), prefer the one of a killed engine, whose clients use it."""
        previous = self._folder.http_address()
        if address is not None and previous is not None and address == (previous[0], 0):
            with suppress(ServingError):
                await self._engine.listen_http(previous)
                return
        await self._engine.listen_http(address)
        self._folder.save_http_address(self._engine.http_address)

    async def _apply(self, text: str) -> None:
        desired = state_from_json(text)
        _log.info("applying %d deployments, mode %s", len(desired.deployments), desired.mode)
        await self._engine.apply(desired)
        self._folder.save(desired)
        state, queries = (await self._engine.status()).state, ", ".join(route.query for route in desired.routes)
        _log.info("state %s is in force for the queries %s", state, queries)


def start(folder: RunDirectory) -> int:
    """Fork an engine into the background, and return the exit code of the caller once the engine responds."""
    folder.create()
    lock = folder.try_lock()
    if lock is None:
        return EXIT_TAKEN
    ready, report = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        _run(folder, lock, report)
    os.close(report)
    lock.close()  # the fork still holds the lock
    return 0 if os.read(ready, 1) == _READY else 1


def _run(folder: RunDirectory, lock: IO[str], report: int) -> NoReturn:
    """Run the background process in its own session, with its log as output.

    The run folder is removed after a regular end.
    """
    code = 1
    try:
        os.setsid()
        log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for output in (1, 2):
            os.dup2(log, output)
        os.close(log)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        listener = folder.listen()
        os.write(report, _READY)
        os.close(report)
        daemon = Daemon(folder)  # outlives the loop: clients take a closed connection for the end of the engine
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(daemon.serve(listener))
        folder.remove()
        code = 0
    except Exception:  # no process waits for this one, so the log is the only report
        _log.exception("the engine failed")
    finally:
        os._exit(code)


def main() -> int:
    """Run `python -m circinus.serving.local.daemon RUN_FOLDER`."""
    try:
        return start(RunDirectory(Path(sys.argv[1])))
    except (ServingError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
