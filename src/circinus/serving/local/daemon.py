"""Background process of the local engine."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
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
from circinus.operators.framing import FrameError, encode
from circinus.operators.pickling import Payload
from circinus.operators.process_output import output_folder
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.local.connection import Connection
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.local.peer import Peer
from circinus.serving.local.rpc_protocol import (
    EVERY_CALL,
    REQUESTS_TO_ENGINE,
    TOO_MANY_CLIENTS,
    RpcMethod,
    RpcReply,
    RpcRequest,
    audit_reply,
    require_payloads,
)
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
        self._connection = Connection(
            loop, accepted, self._on_request, self._on_connection_lost, REQUESTS_TO_ENGINE, _MAX_UNSENT_BYTES
        )

    async def finish(self) -> None:
        """Wait until all calls have ended."""
        await asyncio.gather(*self._calls.values(), return_exceptions=True)

    def _on_request(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        require_payloads(call, payloads)
        if call.method is RpcMethod.CANCEL:
            if call.argument in self._calls:
                self._calls[call.argument].cancel()
            return
        if call.call_id in self._calls:
            raise FrameError(f"the id {call.call_id} is that of a running call")
        if call.method is RpcMethod.PING:
            self._connection.send(RpcReply(call.call_id, "", None))
            return
        task = self._loop.create_task(self._reply(call, payloads))
        self._calls[call.call_id] = task
        task.add_done_callback(lambda _: self._calls.pop(call.call_id))

    async def _reply(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        try:
            content, outputs = await self._handler(call, payloads)
            self._connection.send(RpcReply(call.call_id, "", content), outputs)
        except CircinusError as error:
            self._fail(call, error)
        except Exception as error:  # the client needs a reply even after a bug of the engine
            _log.exception("%s failed", call.method)
            reason = f"the engine failed with {type(error).__name__}: {error}"
            self._fail(call, ServingError(reason, code="engine.failed"))

    def _fail(self, call: RpcRequest, error: CircinusError) -> None:
        # Messages of operators may have text that is not Unicode, such as names of files.
        message, location, hint = (
            text[:_MAX_TEXT_LENGTH].encode(errors="backslashreplace").decode()
            for text in (error.message, error.location, error.hint)
        )
        retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else None
        self._connection.send(RpcReply(call.call_id, message, None, error.code, location, hint, retry_after_s))

    def _on_connection_lost(self) -> None:
        for task in self._calls.values():
            task.cancel()
        self._on_closed(self)


_READY = b"."
_MAX_CLIENTS = 256
"""Number of clients at a time; each takes a descriptor, and memory for what it sends."""
_MAX_UNSENT_BYTES = 16 * 2**20
"""Size of replies that a client has not read, above which no more of its requests are."""
_MAX_TEXT_LENGTH = 2**20
"""Length to which texts of errors are cut."""
_ACCEPT_PAUSE_S = 1.0
"""Pause after the system refused to accept a client."""
_FOLDER_PERIOD_S = 0.5
"""Time between two looks at the run folder."""
_EXHAUSTED = errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM
"""Errors for lack of descriptors or memory."""


class Daemon:
    """Server of one `LocalEngine` for any number of clients, until a client closes it or SIGTERM arrives."""

    def __init__(self, folder: RunDirectory) -> None:
        self._folder = folder
        self._engine = LocalEngine(output=output_folder(folder.path))
        self._sessions: set[ClientSession] = set()
        self._refused = 0
        self._exhausted_s = -math.inf
        """Time of the last message that the system has no more descriptors or memory."""
        self._closing = asyncio.Event()
        self.has_folder = True
        """False after somebody has removed the run folder."""

    async def serve(self, listener: socket.socket) -> None:
        """Serve until closed, and return when everything that was started has ended."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        self._engine.require_tokens(self._folder.http_tokens())  # of a killed engine
        listener.setblocking(False)
        loop.add_reader(listener, self._accept, loop, listener)
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._closing.set)
        watch = loop.create_task(self._watch_folder())
        await self._closing.wait()
        watch.cancel()
        loop.remove_reader(listener)
        listener.close()
        _log.info("closing")
        await self._engine.close()
        await asyncio.gather(*(session.finish() for session in self._sessions))

    async def _watch_folder(self) -> None:
        """Close when the run folder was removed, as no verb could reach or end the engine any more."""
        name = self._folder.address.name
        folder = os.open(self._folder.path, os.O_DIRECTORY)  # of the same folder where it is moved to
        try:
            own = os.stat(name, dir_fd=folder)
            while os.path.samestat(own, os.stat(name, dir_fd=folder)):
                await asyncio.sleep(_FOLDER_PERIOD_S)
        except FileNotFoundError:
            pass
        finally:
            os.close(folder)
        self.has_folder = False
        _log.warning("the run folder was removed: the engine ends")
        self._closing.set()

    def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # the client has disconnected
        except OSError as error:
            self._note_exhaustion(loop, error)
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_PAUSE_S, self._resume, loop, listener)
            return
        peer = Peer.of(accepted)
        if peer.is_foreign:
            accepted.close()
            self._note_refusal(f"a client of another user (user id {peer.user})")
        elif len(self._sessions) >= _MAX_CLIENTS:
            self._refuse(accepted)
            self._note_refusal(f"a client beyond {_MAX_CLIENTS}")
        else:
            self._sessions.add(ClientSession(loop, accepted, self._handle, self._sessions.discard))

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report an error that nobody awaits. Servers of asyncio fail a hundred times a second without descriptors."""
        error = context.get("exception")
        if "socket" in context and isinstance(error, OSError) and error.errno in _EXHAUSTED:
            self._note_exhaustion(loop, error)
        else:
            loop.default_exception_handler(context)

    def _note_exhaustion(self, loop: asyncio.AbstractEventLoop, error: OSError) -> None:
        if loop.time() - self._exhausted_s >= _ACCEPT_PAUSE_S:
            self._exhausted_s = loop.time()
            _log.warning("cannot accept a client: %s", error)

    def _resume(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        if not self._closing.is_set():
            loop.add_reader(listener, self._accept, loop, listener)

    def _refuse(self, accepted: socket.socket) -> None:
        reason = RpcReply(
            EVERY_CALL,
            f"the engine has {_MAX_CLIENTS} clients already",
            None,
            TOO_MANY_CLIENTS,
            str(self._folder.path),
            "End some of the programs that use it, then try again.",
        )
        with accepted, suppress(OSError):
            accepted.setblocking(False)
            accepted.sendall(b"".join(encode(reason, (), REQUESTS_TO_ENGINE)))

    def _note_refusal(self, client: str) -> None:
        """Log the first refusal, and then each time their number has doubled: there may be any number."""
        self._refused += 1
        if self._refused & (self._refused - 1) == 0:
            _log.warning("refused %s (refusals so far: %d)", client, self._refused)

    async def _handle(self, call: RpcRequest, payloads: list[memoryview]) -> tuple[Any, Sequence[Payload]]:
        if call.method is RpcMethod.SUBMIT:
            response = await self._engine.submit_pickled(replace(call.argument, value=payloads[0]))
            return (tuple(response.outputs), response.timings), tuple(response.outputs.values())
        if call.method is RpcMethod.STATUS:
            return await self._engine.status(), ()
        if call.method is RpcMethod.AUDITS:
            return audit_reply(await self._engine.drain_audits())
        if call.method is RpcMethod.APPLY:
            await self._apply(str(payloads[0], "utf-8", "replace"))
        elif call.method is RpcMethod.LISTEN_HTTP:
            await self._listen_http(call.argument)
        elif call.method is RpcMethod.REQUIRE_TOKENS:
            tokens = HttpTokens.parse(call.argument, "engine")
            self._folder.save_http_tokens(tokens)
            self._engine.require_tokens(tokens)
        else:
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
    folder.http_tokens()  # an engine whose tokens are damaged must not take requests without any
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
        log = folder.open_log()
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
        if daemon.has_folder:
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
