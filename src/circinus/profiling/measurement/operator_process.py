"""An operator loaded in a process of its own, seen from the planner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from circinus.profiling.measurement.thread_limits import thread_limits
from circinus.profiling.measurement.worker import Failed, Loaded, LoadRequest, Processed, ProcessRequest
from circinus.specification import KnobValues


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now; 0 when it has ended."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def peak_resident_bytes(pid: int) -> int:
    """Greatest resident memory of a process since it began its program.

    Linux tells it in /proc. `getrusage` does not do: a child inherits its parent's maximum through fork and exec.
    Elsewhere the resident memory of now is the best there is.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resident_bytes(pid)


def available_bytes() -> int:
    """Memory that new processes can be given without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


_LAST_WORDS_BYTES = 2000
_PATIENCE_S = 2.0


class OperatorProcessError(Exception):
    """The operator could not be loaded, raised, or took its process with it. The message is the reason alone."""


@dataclass(frozen=True)
class OperatorProcessKey:
    """What makes two replicas the same."""

    uses: str
    knobs: KnobValues
    cpus: float


@dataclass(frozen=True)
class BatchRun:
    """One batch as it was processed."""

    outputs: tuple[bytes, ...]
    service_s: float
    """Seconds, as if the process had been held to its share of CPUs."""


class OperatorProcess:
    """One loaded operator. Starting it takes as long as the operator takes to load."""

    def __init__(self, key: OperatorProcessKey, version: str, module_paths: tuple[Path, ...], timeout_s: float) -> None:
        """Start the process and wait until the operator is loaded.

        Raises:
            ReplicaError: it cannot be loaded.
        """
        self.key = key
        self.peak_memory_bytes = 0
        """Resident memory of the whole process, interpreter and imports included, at its greatest."""
        self._timeout_s = timeout_s
        self._warm = False
        self._group_ended = False
        began = time.perf_counter()
        try:
            self._process, self._connection, self._said = _start(key.cpus)
        except OSError as error:
            raise OperatorProcessError(f"no process can be started for it: {error}") from error
        request = LoadRequest(
            key.uses, version, key.knobs.as_dict(), key.cpus, tuple(p.resolve() for p in module_paths), tuple(sys.path)
        )
        try:
            loaded = self._call(request)
        except BaseException:
            self.close()
            raise
        assert isinstance(loaded, Loaded)
        self.load_s = loaded.load_s
        """Seconds to import the operator and to make it with its knobs."""
        self.startup_s = time.perf_counter() - began
        """Seconds from asking for the process until it could take a batch: interpreter, imports, `load_s`."""

    def process(self, batch: Sequence[Sequence[bytes]]) -> BatchRun:
        """Process a batch of packed inputs (for each item, one for each parent) and measure it.

        The first batch after loading is processed twice and the first time not counted: allocators, caches and
        just-in-time compilers settle on it, and a replica in service is warm.

        Raises:
            ReplicaError: the operator raised, broke its contract, took too long, or its process died.
        """
        if not self._warm:
            self._call(ProcessRequest(batch))
            self._warm = True
        done = self._call(ProcessRequest(batch))
        assert isinstance(done, Processed)
        # Threads are limited to whole CPUs, and not every library keeps to it. A scheduler that grants `cpus` CPU
        # seconds a second would let so much CPU time take at least this long.
        return BatchRun(done.outputs, max(done.elapsed_s, done.cpu_s / self.key.cpus))

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def memory_bytes(self) -> int:
        """Resident memory now; 0 when the process has ended."""
        return resident_bytes(self._process.pid)

    def close(self) -> None:
        """End the process and all that it started, and wait until it has ended. May be called more than once."""
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        self._kill()
        self._said.close()

    def _call(self, request: LoadRequest | ProcessRequest) -> Loaded | Processed:
        try:
            self._connection.send(request)
            if not self._connection.poll(self._timeout_s):
                self._kill()
                raise OperatorProcessError(f"no answer within {self._timeout_s:g} s")
            reply: Loaded | Processed | Failed = self._connection.recv()
        except (EOFError, OSError) as error:
            raise OperatorProcessError(self._obituary()) from error
        except BaseException:  # an interrupt too: an answer that nobody waits for would be taken for the next one's
            self._kill()
            raise
        if isinstance(reply, Failed):
            raise OperatorProcessError(reply.reason)
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_resident_bytes(self._process.pid))
        return reply

    def _obituary(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE_S)
        code = self._kill()
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _LAST_WORDS_BYTES))
        words = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its process {how}" + (f"; its last words: {words[-1].strip()}" if words else "")

    def _kill(self) -> int:
        """End what still runs of the process and of all that it started; gives the exit code of the process."""
        if not self._group_ended:  # once: later the group's number may be another's
            with suppress(ProcessLookupError, PermissionError):  # nothing is left of it
                os.killpg(self._process.pid, signal.SIGKILL)
            self._group_ended = True
        return self._process.wait()


def _start(cpus: float) -> tuple[subprocess.Popen[bytes], Connection, IO[bytes]]:
    """A worker, the connection to it, and the file of what it says; nothing stays open where it cannot be started.

    Raises:
        OSError: as the system refuses files, sockets or the process.
    """
    with ExitStack() as opened:
        said = opened.enter_context(tempfile.TemporaryFile())
        ours, theirs = socket.socketpair()
        opened.callback(ours.close)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "circinus.profiling.measurement.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                env=_environment(cpus),
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for the planner, which ends this process in its own time; and what the operator starts
                # can be ended with it.
                start_new_session=True,
            )
        opened.pop_all()
    return process, Connection(ours.detach()), said


def _environment(cpus: float) -> dict[str, str]:
    """The planner's environment with the numeric libraries held to as many threads as the replica has CPUs."""
    return {**os.environ, **thread_limits(cpus)}


_MEMORY_SHARE = 0.5


class OperatorProcessPool:
    """Replicas by key; the least recently used are closed when together they take too much memory."""

    def __init__(
        self, load: Callable[[OperatorProcessKey], OperatorProcess], memory_limit_bytes: float | None = None
    ) -> None:
        """Begin with none.

        Args:
            load: makes a replica.
            memory_limit_bytes: resident memory that all may take together, one in use excepted; by default half of
                what the machine has available now.
        """
        self._load = load
        self._limit_bytes = memory_limit_bytes if memory_limit_bytes is not None else _MEMORY_SHARE * available_bytes()
        self._loaded: OrderedDict[OperatorProcessKey, OperatorProcess] = OrderedDict()

    def get(self, key: OperatorProcessKey) -> OperatorProcess:
        """The replica, loaded if it is not. Others may be closed to make room for it.

        Raises:
            ReplicaError: it cannot be loaded.
        """
        present = self._loaded.get(key)
        if present is not None:
            self._loaded.move_to_end(key)
            return present
        replica = self._load(key)
        self._loaded[key] = replica
        self._make_room()
        return replica

    def discard(self, key: OperatorProcessKey) -> None:
        """Close a replica that failed: what it is in now is unknown."""
        replica = self._loaded.pop(key, None)
        if replica is not None:
            replica.close()

    def close(self) -> None:
        """Close all."""
        for key in list(self._loaded):
            self.discard(key)

    def __len__(self) -> int:
        return len(self._loaded)

    def _make_room(self) -> None:
        taken = {key: replica.memory_bytes() for key, replica in self._loaded.items()}
        while len(self._loaded) > 1 and sum(taken.values()) > self._limit_bytes:
            oldest = next(iter(self._loaded))
            self.discard(oldest)
            del taken[oldest]
