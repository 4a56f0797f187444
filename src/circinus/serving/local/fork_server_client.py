"""Client of the fork server, which starts and kills the processes of replicas."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

from circinus.errors import ServingError
from circinus.serving.local.connection import Connection
from circinus.serving.local.fork_server import EXITED, KILL, SPAWN
from circinus.serving.replicas.replica_protocol import ProcessExit, ReplicaSpec

_EXIT_TIMEOUT_S = 10.0
"""Time for the fork server to kill its replicas and exit, before it is killed."""


class ForkServerClient:
    """Client that starts the fork server on first use, and again if it was killed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ids = count(1)
        self._exit_callbacks: dict[int, Callable[[ProcessExit], None]] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._handover: socket.socket | None = None

    def spawn(self, spec: ReplicaSpec, connection: socket.socket, on_ended: Callable[[ProcessExit], None]) -> int:
        """Start a replica that communicates over `connection`, which is closed in this process.

        Args:
            spec: start-up parameters.
            connection: the replica's end of a socket pair.
            on_ended: called once in the loop's thread, when the process has ended.

        Returns:
            The id of the replica.

        Raises:
            ServingError: the fork server cannot be started.
        """
        with connection:
            if self._control is None:
                self._start_server()
            assert self._control is not None
            assert self._handover is not None
            replica_id = next(self._ids)
            self._exit_callbacks[replica_id] = on_ended
            with suppress(OSError):  # `_on_server_lost` follows if the fork server is gone
                socket.send_fds(self._handover, [b"\0"], [connection.fileno()])
            self._control.send((SPAWN, replica_id, spec))
            return replica_id

    def kill(self, replica_id: int) -> None:
        """Kill a replica and its child processes."""
        if self._control is not None:
            self._control.send((KILL, replica_id, None))

    async def close(self) -> None:
        """End all replicas and the fork server, and wait until they have ended."""
        if self._control is not None:
            self._control.close()
            await self._end_server()

    def _start_server(self) -> None:
        (control, server_control), (handover, server_handover) = socket.socketpair(), socket.socketpair()
        with server_control, server_handover:
            descriptors = (server_control.fileno(), server_handover.fileno())
            command = [sys.executable, "-P", "-m", "circinus.serving.local.fork_server", *map(str, descriptors)]
            try:
                self._server = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True
                )
            except OSError as error:
                control.close()
                handover.close()
                raise ServingError(
                    f"cannot start the fork server of the replicas: {error}", code="engine.fork_server_not_started"
                ) from error
        self._handover = handover
        self._control = Connection(self._loop, control, self._on_exit, self._on_server_lost)

    def _on_exit(self, header: Any, payloads: list[memoryview]) -> None:
        event, replica_id, description = header
        assert event == EXITED
        self._exit_callbacks.pop(replica_id)(ProcessExit(description, is_isolated=True))

    def _on_server_lost(self) -> None:
        """Report the end of all replicas, which the kernel kills with the fork server; they may be started again."""
        server = self._detach()
        if server is not None:
            server.kill()
            server.wait()
        callbacks, self._exit_callbacks = self._exit_callbacks, {}
        for on_ended in callbacks.values():
            on_ended(ProcessExit("ended with the process it was forked from", is_isolated=False))

    async def _end_server(self) -> None:
        server = self._detach()
        self._exit_callbacks.clear()
        if server is None:
            return
        try:
            await asyncio.to_thread(server.wait, _EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()
            await asyncio.to_thread(server.wait)

    def _detach(self) -> subprocess.Popen[bytes] | None:
        server, self._server, self._control = self._server, None, None
        if self._handover is not None:
            self._handover.close()
            self._handover = None
        return server
