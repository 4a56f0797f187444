"""Fork server: the process from which replicas are forked.

It has imported the modules that every replica needs, but none that starts threads. Replicas therefore start in
milliseconds and share most of their memory, while numeric libraries still see the thread limits of each replica. The
fork server ends with the engine, in whatever way that ends: the control connection closes, and the fork server kills
all replicas. If the fork server itself is killed, the kernel kills the replicas (on Linux), or their connections close.
"""

from __future__ import annotations

import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from circinus.errors import OperatorError
from circinus.operators.host import thread_limits
from circinus.serving.local.batch_codec import decode_batch, encode_result
from circinus.serving.local.framing import BlockingFrames, FrameReader, encode
from circinus.serving.replicas.compute_executor import ComputeExecutor
from circinus.serving.replicas.replay_executor import ReplayExecutor
from circinus.serving.replicas.replica_protocol import MessageType, ReplicaSpec


def run_replica(connection: socket.socket, spec: ReplicaSpec) -> None:
    """Load the operator, then process batches until the engine closes the connection."""
    frames = BlockingFrames(connection)
    os.environ.update(thread_limits(spec.cpus))
    sys.path[:] = spec.search_path
    start_s = time.perf_counter()
    executor: ComputeExecutor | ReplayExecutor
    try:
        executor = ReplayExecutor(spec) if spec.replays else ComputeExecutor(spec)
    except OperatorError as error:
        traceback.print_exc()
        frames.send((MessageType.FAILED, str(error)))
        return
    frames.send((MessageType.READY, time.perf_counter() - start_s))
    while (frame := frames.receive()) is not None:
        (message_type, content), payloads = frame
        if message_type == MessageType.RECORDINGS:
            assert isinstance(executor, ReplayExecutor), "recordings are only sent to replaying replicas"
            executor.add_recordings(content)
        else:
            result, outputs = executor.answer(decode_batch(content), payloads)
            frames.send((MessageType.DONE.value, encode_result(result)), outputs)


SPAWN = "spawn"
KILL = "kill"
EXITED = "exited"

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29


class ForkServer:
    """Server that forks replicas on command, and reports their end."""

    def __init__(self, control: socket.socket, handover: socket.socket) -> None:
        """Create a server.

        Args:
            control: frames from and to the engine.
            handover: transfers the replica's end of its connection, one before each spawn command.
        """
        self._control = control
        self._handover = handover
        self._reader = FrameReader(control)
        self._replicas: dict[int, int] = {}
        """Process id -> replica id."""
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()

    def serve(self) -> None:
        """Serve until the engine closes the control connection."""
        for end in (self._wakeup_reader, self._wakeup_writer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # without a handler there is no wake-up
        signal.set_wakeup_fd(self._wakeup_writer.fileno())
        # Frozen objects are not touched by collections, so that their pages stay shared with all replicas.
        gc.collect()
        gc.freeze()
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._wakeup_reader, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._control:
                        for header, _ in self._reader.receive():
                            self._execute(*header)
                    else:
                        self._wakeup_reader.recv(4096)
                        self._reap()
        except (EOFError, ConnectionError):
            self._kill_all()

    def _execute(self, command: str, replica_id: int, argument: Any) -> None:
        if command == SPAWN:
            self._spawn(replica_id, argument)
        elif command == KILL:
            for process, running_id in self._replicas.items():
                if running_id == replica_id:
                    _kill_group(process)

    def _spawn(self, replica_id: int, spec: ReplicaSpec) -> None:
        _, (descriptor, *_), _, _ = socket.recv_fds(self._handover, 1, 1)
        parent = os.getpid()
        process = os.fork()
        if process == 0:
            self._become_replica(socket.socket(fileno=descriptor), spec, parent)
        os.close(descriptor)
        self._set_group(process)
        self._replicas[process] = replica_id

    def _become_replica(self, connection: socket.socket, spec: ReplicaSpec, parent: int) -> NoReturn:
        code = 1
        try:
            self._set_group(0)
            if self._libc is not None:
                # By default, Linux wakes sleepers up to 50 us late, longer than some emulated service times.
                self._libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
                self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
                if os.getppid() != parent:  # the fork server died before the call above
                    os._exit(code)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._handover, self._wakeup_reader, self._wakeup_writer):
                end.close()
            run_replica(connection, spec)
            code = 0
        except ConnectionError:
            code = 0  # the engine is gone
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    @staticmethod
    def _set_group(process: int) -> None:
        """Give the process its own group, so that its children are killed with it. Parent and child both call this."""
        with suppress(OSError):  # the process may have ended already
            os.setpgid(process, process)

    def _reap(self) -> None:
        while self._replicas:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            _kill_group(process)
            replica_id = self._replicas.pop(process)
            for part in encode((EXITED, replica_id, _exit_description(os.waitstatus_to_exitcode(status)))):
                self._control.sendall(part)

    def _kill_all(self) -> None:
        for process in self._replicas:
            _kill_group(process)
        for process in self._replicas:
            os.waitpid(process, 0)


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError):  # the group may have ended
        os.killpg(process, signal.SIGKILL)


def _exit_description(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"


def main() -> None:
    """Run `python -m circinus.serving.local.fork_server CONTROL HANDOVER` (descriptors of two inherited sockets)."""
    os.dup2(2, 1)  # keep the output of operators out of the output of commands
    ForkServer(socket.socket(fileno=int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))).serve()


if __name__ == "__main__":
    main()
