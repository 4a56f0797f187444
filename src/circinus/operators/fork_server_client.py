"""Client of the fork server, which starts and ends the processes of operators."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import IO, Any, NamedTuple

from circinus.operators.fork_server import STARTED
from circinus.operators.framing import BlockingFrames
from circinus.operators.host import Executor, ProcessState
from circinus.operators.process_output import excerpt

_START_TIMEOUT_S = 60.0
"""Time for the fork server to import its modules, on a machine that hardly answers."""
_EXIT_TIMEOUT_S = 10.0
"""Time for the fork server to kill its processes and exit, before it is killed."""


@dataclass(frozen=True)
class ProcessExit:
    """End of a process."""

    description: str
    """Predicate of a sentence whose subject is the process, with its last output if that was kept."""
    is_isolated: bool
    """False if all processes ended together, so that the processed batch cannot be the cause."""


class ForkedProcess:
    """Process with an executor."""

    def __init__(self, connection: socket.socket, lifeline: socket.socket, output: IO[bytes] | None) -> None:
        self.requested_s = time.monotonic()
        """Monotonic time of the request, at which the start-up begins."""
        self.connection = connection
        """Stream of frames, see `run_executor`."""
        self.lifeline = lifeline
        """Socket that becomes readable when the process has ended."""
        self.exit: ProcessExit | None = None
        """How the process ended; None before `wait`."""
        self._output = output
        self._output_start = 0 if output is None else os.fstat(output.fileno()).st_size

    def kill(self) -> None:
        """Kill the process and all that it started."""
        with suppress(OSError):  # it may have ended
            self.lifeline.shutdown(socket.SHUT_WR)

    def wait(self, timeout_s: float | None = None) -> ProcessExit:
        """Wait until the process has ended, and kill it at the timeout."""
        if self.exit is None:
            self.lifeline.settimeout(timeout_s)
            try:
                message = self.lifeline.recv(16)
            except (BlockingIOError, TimeoutError):
                self.kill()
                self.lifeline.settimeout(None)
                message = self.lifeline.recv(16)
            self.exit = _process_exit(message)
            self.lifeline.close()
            if self._output is not None:
                with self._output:
                    last_output = excerpt(self._output.fileno(), self._output_start)
                self.exit = replace(self.exit, description=f"{self.exit.description}{last_output}")
        return self.exit


def _process_exit(message: bytes) -> ProcessExit:
    if not message:
        return ProcessExit("ended with the fork server, or could not be forked", is_isolated=False)
    code = int(message)
    description = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    return ProcessExit(description, is_isolated=True)


class _Server(NamedTuple):
    process: subprocess.Popen[bytes]
    handover: socket.socket


class ForkServerClient:
    """Client that starts the fork server on first use, and again if it was killed."""

    def __init__(self, create: Callable[..., Executor]) -> None:
        """Prepare a client.

        Args:
            create: public class or function of a module, which creates the executor in each process.
        """
        self._create = create
        self._server: _Server | None = None
        self._lock = threading.RLock()

    def spawn(
        self,
        *arguments: Any,
        cpus: float,
        output: IO[bytes] | None = None,
        create: Callable[..., Executor] | None = None,
    ) -> ForkedProcess:
        """Start a process, in the working folder and with the environment and search path of this process.

        Args:
            arguments: picklable arguments of the executor.
            cpus: CPUs that numeric libraries are limited to.
            output: file of the standard output and error, which is closed with the process; by default the standard
                error of this process.
            create: creates another executor than those of the other processes.

        Raises:
            OSError: the system refuses files or sockets, or the fork server does not start.
        """
        with ExitStack() as stack:
            if output is not None:
                stack.enter_context(output)
            (connection, its_connection), (lifeline, its_lifeline) = (
                map(stack.enter_context, socket.socketpair()) for _ in range(2)
            )
            descriptors = [its_connection.fileno(), its_lifeline.fileno(), *([output.fileno()] if output else [])]
            with self._lock:
                self._server = self._server or self._start()
                process = ForkedProcess(connection, lifeline, output)
                try:
                    socket.send_fds(self._server.handover, [b"\0"], descriptors)
                except ConnectionError:  # the server was killed
                    self.close()
                    self._server = self._start()
                    socket.send_fds(self._server.handover, [b"\0"], descriptors)
            stack.pop_all()
        its_connection.close()
        its_lifeline.close()
        with suppress(ConnectionError):  # the process has ended, as its lifeline tells
            BlockingFrames(connection).send((cpus, ProcessState.current(), create, arguments))
        return process

    @property
    def is_running(self) -> bool:
        """Whether the fork server runs, so that `spawn` need not start it."""
        server = self._server
        return server is not None and server.process.poll() is None

    def start(self) -> None:
        """Start the fork server unless it runs, which may take long on a busy machine.

        Raises:
            OSError: it does not start.
        """
        with self._lock:
            if not self.is_running:
                self.close()
                self._server = self._start()

    def kill(self) -> None:
        """Kill the fork server, with which all processes end."""
        if self._server is not None:
            self._server.process.kill()

    def close(self) -> None:
        """End all processes and the fork server, and wait until they have ended."""
        with self._lock:
            if self._server is None:
                return
            (process, handover), self._server = self._server, None
            handover.close()
            try:
                process.wait(_EXIT_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self) -> _Server:
        module, name = self._create.__module__, self._create.__qualname__
        handover, its_handover = socket.socketpair()
        with ExitStack() as stack, its_handover:
            stack.enter_context(handover)
            descriptor = its_handover.fileno()
            # A session of its own: Ctrl-C reaches only this process, which ends the others itself.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "circinus.operators.fork_server", str(descriptor), module, name],
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor],
                start_new_session=True,
            )
            its_handover.close()
            handover.settimeout(_START_TIMEOUT_S)
            if handover.recv(1) != STARTED:
                raise ChildProcessError(f"the fork server exited with code {process.wait()}")
            handover.settimeout(None)
            stack.pop_all()
        return _Server(process, handover)
