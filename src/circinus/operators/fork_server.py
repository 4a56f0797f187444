"""Fork server: the process from which the processes of operators are forked.

It has imported the modules that every such process needs, but none that starts threads. Processes therefore start in
milliseconds and share most of their memory, while numeric libraries still see the thread limits of each process. Its
client holds a lifeline for each process, a socket: when that closes, however the client ends, the fork server kills the
process with all that it started. If the fork server itself is killed, the kernel kills the processes (on Linux), or
their connections close.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from circinus.operators.host import Executor, run_executor
from circinus.operators.process_output import keep_output

STARTED = b"\0"
"""Message of the server that it can fork."""
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29


class ForkServer:
    """Server that forks processes on request, and reports their end."""

    def __init__(self, handover: socket.socket, create: Callable[..., Executor]) -> None:
        """Create a server.

        Args:
            handover: transfers descriptors for each process: of its connection, of its lifeline, and optionally of the
                file of its output.
            create: creates the executor of each process.
        """
        self._handover = handover
        self._create = create
        self._lifelines: dict[int, socket.socket] = {}
        """Process id -> lifeline."""
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Serve until the client closes the handover socket, then kill all processes."""
        for end in (self._wakeup_reader, self._wakeup_writer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler there is no wake-up
        signal.set_wakeup_fd(self._wakeup_writer.fileno())
        # Frozen objects are not touched by collections, so that their pages stay shared with all processes.
        gc.collect()
        gc.freeze()
        self._selector.register(self._handover, selectors.EVENT_READ)
        self._selector.register(self._wakeup_reader, selectors.EVENT_READ)
        try:
            self._handover.sendall(STARTED)
            while True:
                for key, _ in self._selector.select():
                    if key.fileobj is self._handover:
                        self._fork()
                    elif key.fileobj is self._wakeup_reader:
                        self._wakeup_reader.recv(4096)
                        self._reap()
                    elif key.data in self._lifelines:  # not reaped since `select`
                        self._selector.unregister(key.fileobj)
                        _kill_group(key.data)
        except (EOFError, ConnectionError):
            pass
        finally:
            for process in self._lifelines:
                _kill_group(process)
            for process in self._lifelines:
                os.waitpid(process, 0)

    def _fork(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._handover, 1, 3)
        if not message:
            raise EOFError
        parent = os.getpid()
        try:
            connection, lifeline, *output = descriptors
            process = os.fork()
        except (OSError, ValueError):  # the system refuses a process, or has cut off descriptors
            for descriptor in descriptors:
                os.close(descriptor)
            traceback.print_exc()
            return
        if process == 0:
            os.close(lifeline)
            self._become_child(socket.socket(fileno=connection), output, parent)
        for descriptor in (connection, *output):
            os.close(descriptor)
        _set_group(process)
        self._lifelines[process] = socket.socket(fileno=lifeline)
        self._selector.register(self._lifelines[process], selectors.EVENT_READ, process)

    def _become_child(self, connection: socket.socket, output: Sequence[int], parent: int) -> NoReturn:
        code = 1
        try:
            _set_group(0)
            if self._libc is not None:
                # By default, Linux wakes sleepers up to 50 us late, longer than some emulated service times.
                self._libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
                self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
                if os.getppid() != parent:  # the fork server died before the call above
                    os._exit(code)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            for end in (self._handover, self._wakeup_reader, self._wakeup_writer, *self._lifelines.values()):
                end.close()
            for descriptor in output:
                keep_output(descriptor)
            run_executor(connection, self._create)
            code = 0
        except ConnectionError:
            code = 0  # the client is gone
        except BaseException:
            traceback.print_exc()
        finally:  # nothing that the operator left behind may lead back to the server's loop
            with suppress(BaseException):
                atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                with suppress(BaseException):
                    stream.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._lifelines:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            _kill_group(process)
            lifeline = self._lifelines.pop(process)
            with suppress(KeyError):  # the client has closed it
                self._selector.unregister(lifeline)
            with lifeline, suppress(OSError):
                lifeline.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _set_group(process: int) -> None:
    """Give the process its own group, so that its children are killed with it. Parent and child both call this."""
    with suppress(OSError):  # the process may have ended already
        os.setpgid(process, process)


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the group may have ended; macOS refuses for zombies
        os.killpg(process, signal.SIGKILL)


def main() -> None:
    """Run `python -m circinus.operators.fork_server HANDOVER MODULE NAME`: inherited socket, and executor to create."""
    os.dup2(2, 1)  # keep the output of operators out of the output of commands
    descriptor, module, name = sys.argv[1:]
    ForkServer(socket.socket(fileno=int(descriptor)), getattr(import_module(module), name)).serve()


if __name__ == "__main__":
    main()
