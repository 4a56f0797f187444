"""The process that replicas are forked from.

It has imported what every replica needs and nothing that starts threads, so a replica starts in milliseconds and shares
most of its memory with the others, while numeric libraries still see the thread limits that each replica sets. It ends
with the engine, however that ends: the control connection closes, and it ends every replica. Should the nursery itself
be killed, the kernel ends the replicas (where it can: Linux) or the engine notices and they end with their connections.
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

from circinus.profiling.measurement.thread_limits import thread_limits
from circinus.serving.local.batch_codec import decode_batch, encode_result
from circinus.serving.local.framing import BlockingFrames, FrameReader, encode
from circinus.serving.replicas.compute_executor import ComputeExecutor
from circinus.serving.replicas.replay_executor import ReplayExecutor
from circinus.serving.replicas.replica_protocol import MessageType, ReplicaSpec


def run_replica(connection: socket.socket, spec: ReplicaSpec) -> None:
    """Load the operator, then answer batches until the engine closes the connection."""
    frames = BlockingFrames(connection)
    os.environ.update(thread_limits(spec.cpus))
    sys.path[:] = spec.search_path
    begin_s = time.perf_counter()
    responder: ComputeExecutor | ReplayExecutor
    try:
        responder = ReplayExecutor(spec) if spec.replays else ComputeExecutor(spec)
    except Exception as error:  # whatever the user's operator raises while it loads is the answer
        traceback.print_exc()
        frames.send((MessageType.FAILED, f"{type(error).__name__}: {error}"))
        return
    frames.send((MessageType.READY, time.perf_counter() - begin_s))
    while (frame := frames.receive()) is not None:
        (say, content), payloads = frame
        if say == MessageType.RECORDINGS:
            assert isinstance(responder, ReplayExecutor), "only replaying replicas are sent recordings"
            responder.add_recordings(content)
        else:
            result, outputs = responder.answer(decode_batch(content), payloads)
            frames.send((MessageType.DONE.value, encode_result(result)), outputs)


SPAWN = "spawn"
KILL = "kill"
EXITED = "exited"

_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29


class ForkServer:
    """Forks replicas on command and tells when they end."""

    def __init__(self, control: socket.socket, handover: socket.socket) -> None:
        """Take commands.

        Args:
            control: frames from and to the engine.
            handover: brings the replica's end of its connection, one before each command to spawn.
        """
        self._control = control
        self._handover = handover
        self._reader = FrameReader(control)
        self._replicas: dict[int, int] = {}
        """Process id -> replica id."""
        self._libc = ctypes.CDLL(None) if sys.platform == "linux" else None
        self._woken, self._waker = socket.socketpair()

    def serve(self) -> None:
        """Until the engine is gone."""
        for end in (self._woken, self._waker):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # a handler must stand for the wake-up to happen
        signal.set_wakeup_fd(self._waker.fileno())
        # What is here stays: unmoved by collections, its pages stay shared with all replicas.
        gc.collect()
        gc.freeze()
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._woken, selectors.EVENT_READ)
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._control:
                        for header, _ in self._reader.receive():
                            self._command(*header)
                    else:
                        self._woken.recv(4096)
                        self._reap()
        except (EOFError, ConnectionError):
            self._end_all()

    def _command(self, verb: str, replica: int, argument: Any) -> None:
        if verb == SPAWN:
            self._spawn(replica, argument)
        elif verb == KILL:
            for process, known in self._replicas.items():
                if known == replica:
                    _kill_group(process)

    def _spawn(self, replica: int, spec: ReplicaSpec) -> None:
        _, (descriptor, *_), _, _ = socket.recv_fds(self._handover, 1, 1)
        parent = os.getpid()
        process = os.fork()
        if process == 0:
            self._become_replica(socket.socket(fileno=descriptor), spec, parent)
        os.close(descriptor)
        self._set_group(process)
        self._replicas[process] = replica

    def _become_replica(self, connection: socket.socket, spec: ReplicaSpec, parent: int) -> NoReturn:
        code = 1
        try:
            self._set_group(0)
            if self._libc is not None:
                # Linux wakes sleepers up to 50 us late unless told otherwise: more than many a service is emulated for.
                self._libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
                self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
                if os.getppid() != parent:  # it died before the line above
                    os._exit(code)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._control, self._handover, self._woken, self._waker):
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
        """Its own process group, so that what an operator starts ends with it. Set on both sides: any may be first."""
        with suppress(OSError):  # it may have ended already
            os.setpgid(process, process)

    def _reap(self) -> None:
        while self._replicas:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            _kill_group(process)
            replica = self._replicas.pop(process)
            for part in encode((EXITED, replica, _ending(os.waitstatus_to_exitcode(status)))):
                self._control.sendall(part)

    def _end_all(self) -> None:
        for process in self._replicas:
            _kill_group(process)
        for process in self._replicas:
            os.waitpid(process, 0)


def _kill_group(process: int) -> None:
    with suppress(ProcessLookupError):  # nothing may be left of it
        os.killpg(process, signal.SIGKILL)


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"


def main() -> None:
    """`python -m circinus.serving.local.fork_server CONTROL HANDOVER` (descriptors of two inherited sockets)."""
    os.dup2(2, 1)  # what operators print must not mix with the output of a command
    ForkServer(socket.socket(fileno=int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))).serve()


if __name__ == "__main__":
    main()
