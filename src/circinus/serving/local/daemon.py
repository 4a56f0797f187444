"""The local engine as a background process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from circinus.errors import CircinusError, ServingError
from circinus.serving.local.connection import Connection
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.serving.local.rpc_protocol import ResponseHeader, RpcMethod, RpcReply, RpcRequest, SubmitHeader
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.replicas.replica_protocol import Payload
from circinus.serving.state_serialization import state_from_json

_log_of_session = logging.getLogger(__name__)

Handler = Callable[[RpcRequest, list[memoryview]], Awaitable[tuple[Any, Sequence[Payload]]]]
"""Carries out a call; returns content and payloads of the reply."""


class ClientSession:
    """Runs the calls of one client side by side, and cancels them when it is gone."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: socket.socket,
        handler: Handler,
        on_over: Callable[[ClientSession], None],
    ) -> None:
        self._loop = loop
        self._handler = handler
        self._on_over = on_over
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._connection = Connection(loop, accepted, self._called, self._lost)

    async def finish(self) -> None:
        """Wait until all calls have been answered."""
        await asyncio.gather(*self._calls.values(), return_exceptions=True)

    def _called(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        if call.verb is RpcMethod.CANCEL:
            if call.argument in self._calls:
                self._calls[call.argument].cancel()
            return
        task = self._loop.create_task(self._answer(call, payloads))
        self._calls[call.number] = task
        task.add_done_callback(lambda _: self._calls.pop(call.number))

    async def _answer(self, call: RpcRequest, payloads: list[memoryview]) -> None:
        try:
            content, outputs = await self._handler(call, payloads)
        except CircinusError as error:
            failure = RpcReply(call.number, error.message, None, error.code, error.location, error.hint)
            self._connection.send(failure)
        except Exception as error:  # a fault of the engine must not leave the client without a reply
            _log_of_session.exception("%s failed", call.verb)
            reason = f"the engine failed with {type(error).__name__}: {error}"
            self._connection.send(RpcReply(call.number, reason, None, code="engine.failed"))
        else:
            self._connection.send(RpcReply(call.number, "", content), outputs)

    def _lost(self) -> None:
        for task in self._calls.values():
            task.cancel()
        self._on_over(self)


EXIT_TAKEN = 75
"""Exit code when another engine runs, or is just starting, in the folder."""

_READY = b"."
_log = logging.getLogger(__name__)


class Daemon:
    """Serves one `LocalEngine` to any number of clients, until one says close, or SIGTERM comes."""

    def __init__(self, folder: RunDirectory) -> None:
        self._folder = folder
        self._engine = LocalEngine()
        self._module_paths: tuple[Path, ...] = ()
        self._sessions: set[ClientSession] = set()
        self._closing = asyncio.Event()

    async def serve(self, listener: socket.socket) -> None:
        """Returns when everything that was started has ended."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        loop.add_reader(listener, self._accept, loop, listener)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._closing.set)
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
            return  # the client is gone already
        self._sessions.add(ClientSession(loop, accepted, self._carry_out, self._sessions.discard))

    async def _carry_out(self, call: RpcRequest, payloads: list[memoryview]) -> tuple[Any, Sequence[Payload]]:
        if call.verb is RpcMethod.SUBMIT:
            return await self._submit(call.argument, payloads[0])
        if call.verb is RpcMethod.APPLY:
            await self._apply(call.argument)
            return None, ()
        if call.verb is RpcMethod.STATUS:
            return await self._engine.status(), ()
        if call.verb is RpcMethod.AUDITS:
            return await self._engine.drain_audits(), ()
        if call.verb is RpcMethod.MODULE_PATHS:
            return self._module_paths, ()
        self._closing.set()
        return None, ()

    async def _apply(self, text: str) -> None:
        desired = state_from_json(text)
        _log.info("applying %d deployments, mode %s", len(desired.deployments), desired.mode)
        await self._engine.apply(desired)
        self._module_paths = desired.module_paths
        self._folder.save(desired)
        state, queries = (await self._engine.status()).state, ", ".join(route.query for route in desired.routes)
        _log.info("state %s is in force for the queries %s", state, queries)

    async def _submit(self, submission: SubmitHeader, value: memoryview) -> tuple[ResponseHeader, Sequence[Payload]]:
        packed = await self._engine.submit_packed(submission.query, submission.item_key, value, submission.input_bytes)
        answer = ResponseHeader(
            tuple(packed.outputs), packed.latency_s, packed.stage_s, packed.busy_s, packed.link_bytes
        )
        return answer, tuple(packed.outputs.values())


def start(folder: RunDirectory) -> int:
    """Fork an engine into the background; the exit code for the process that called, once the engine answers."""
    folder.create()
    lock = folder.try_lock()
    if lock is None:
        return EXIT_TAKEN
    ready, report = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        _run(folder, lock, report)
    os.close(report)
    lock.close()  # the fork holds it on
    return 0 if os.read(ready, 1) == _READY else 1


def _run(folder: RunDirectory, lock: IO[str], report: int) -> NoReturn:
    """The background process: its own session, its log as output; the run folder goes when it ends in good order."""
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
        daemon = Daemon(folder)  # kept to the last: clients take the end of their connections for the end of it all
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(daemon.serve(listener))
        folder.remove()
        code = 0
    except Exception:  # whatever it is, nobody waits for this process: its log is all that can tell
        _log.exception("the engine failed")
    finally:
        os._exit(code)


def main() -> int:
    """`python -m circinus.serving.local.daemon RUN_FOLDER`."""
    try:
        return start(RunDirectory(Path(sys.argv[1])))
    except (ServingError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
