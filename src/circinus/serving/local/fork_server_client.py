"""The engine's side of the nursery: starting and ending the processes of replicas."""

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

_END_S = 10.0
"""How long the nursery may take to end its replicas and itself, all killed, before it is killed."""


class ForkServerClient:
    """Starts replicas' processes through a nursery, which is started at the first and again should it be killed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ids = count(1)
        self._ended: dict[int, Callable[[ProcessExit], None]] = {}
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: Connection | None = None
        self._handover: socket.socket | None = None

    def spawn(self, spec: ReplicaSpec, connection: socket.socket, on_ended: Callable[[ProcessExit], None]) -> int:
        """Start a replica that speaks over `connection`, which is closed here.

        Args:
            spec: what to run.
            connection: the replica's end of a socket pair.
            on_ended: told how the process ended, once, in the loop's thread.

        Returns:
            An id to name it by.

        Raises:
            ServingError: the nursery cannot be started.
        """
        with connection:
            if self._control is None:
                self._start_nursery()
            assert self._control is not None
            assert self._handover is not None
            replica = next(self._ids)
            self._ended[replica] = on_ended
            with suppress(OSError):  # if the nursery is gone, its control connection is about to tell
                socket.send_fds(self._handover, [b"\0"], [connection.fileno()])
            self._control.send((SPAWN, replica, spec))
            return replica

    def kill(self, replica: int) -> None:
        """End a replica and what it started, at once."""
        if self._control is not None:
            self._control.send((KILL, replica, None))

    async def close(self) -> None:
        """End all replicas and the nursery, and wait until they have ended."""
        if self._control is not None:
            self._control.close()
            await self._end_nursery()

    def _start_nursery(self) -> None:
        (control, its_control), (handover, its_handover) = socket.socketpair(), socket.socketpair()
        with its_control, its_handover:
            descriptors = (its_control.fileno(), its_handover.fileno())
            command = [sys.executable, "-P", "-m", "circinus.serving.local.fork_server", *map(str, descriptors)]
            try:
                self._nursery = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True
                )
            except OSError as error:
                control.close()
                handover.close()
                raise ServingError(
                    f"the process that forks replicas cannot be started: {error}", code="engine.fork_server_not_started"
                ) from error
        self._handover = handover
        self._control = Connection(self._loop, control, self._told, self._lost)

    def _told(self, header: Any, payloads: list[memoryview]) -> None:
        verb, replica, ending = header
        assert verb == EXITED
        self._ended.pop(replica)(ProcessExit(ending, by_itself=True))

    def _lost(self) -> None:
        """The nursery was killed, and the kernel kills its replicas; they are reported and may be started anew."""
        nursery = self._release()
        if nursery is not None:
            nursery.kill()
            nursery.wait()
        ended, self._ended = self._ended, {}
        for on_ended in ended.values():
            on_ended(ProcessExit("ended with the process it was forked from", by_itself=False))

    async def _end_nursery(self) -> None:
        nursery = self._release()
        self._ended.clear()
        if nursery is None:
            return
        try:
            await asyncio.to_thread(nursery.wait, _END_S)
        except subprocess.TimeoutExpired:
            nursery.kill()
            await asyncio.to_thread(nursery.wait)

    def _release(self) -> subprocess.Popen[bytes] | None:
        nursery, self._nursery, self._control = self._nursery, None, None
        if self._handover is not None:
            self._handover.close()
            self._handover = None
        return nursery
