"""Processes with one loaded operator each, controlled by the planner."""

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

from circinus.errors import OperatorError
from circinus.operators.host import BatchRun, thread_limits
from circinus.operators.registry import NotGuardedError
from circinus.profiling.measurement.worker import Loaded, LoadRequest, ProcessRequest
from circinus.specification import KnobValues


def resident_bytes(pid: int) -> int:
    """Return the current resident memory of a process; 0 after its end."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def peak_resident_bytes(pid: int) -> int:
    """Return the peak resident memory of a process since it started its program.

    Linux reports it in /proc. `getrusage` is unsuitable: a child inherits its parent's maximum through fork and exec.
    Other systems fall back to the current resident memory.
    """
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resident_bytes(pid)


def available_bytes() -> int:
    """Return the memory available to new processes without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


_LAST_OUTPUT_BYTES = 2000
_EXIT_TIMEOUT_S = 2.0


class OperatorProcessError(Exception):
    """Failure of an operator: not loadable, an exception, or a crash of its process. The message is the reason only."""


@dataclass(frozen=True)
class OperatorProcessKey:
    """Identity of a process: replicas with the same key are interchangeable."""

    uses: str
    knobs: KnobValues
    cpus: float


class OperatorProcess:
    """Process with one loaded operator; the constructor waits for the load."""

    def __init__(self, key: OperatorProcessKey, version: str, module_paths: tuple[Path, ...], timeout_s: float) -> None:
        """Start the process, and wait until the operator is loaded.

        Raises:
            OperatorProcessError: the operator cannot be loaded.
            NotGuardedError: importing the operator calls the workspace.
        """
        self.key = key
        self.peak_memory_bytes = 0
        """Peak resident memory of the whole process, including interpreter and imports."""
        self._timeout_s = timeout_s
        self._warm = False
        self._group_ended = False
        started_s = time.perf_counter()
        try:
            self._process, self._connection, self._output = _start(key.cpus)
        except OSError as error:
            raise OperatorProcessError(f"its process cannot be started: {error}") from error
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
        """Seconds to import the operator and to create it with its knob values."""
        self.startup_s = time.perf_counter() - started_s
        """Seconds from starting the process until it is ready: interpreter, imports, `load_s`."""

    def process(self, batch: Sequence[Sequence[bytes]]) -> BatchRun:
        """Process and time a batch of pickled inputs (for each item, one for each parent).

        The first batch after loading is processed twice, and the first run is not timed: allocators, caches and
        just-in-time compilers warm up on it, and a replica in service is warm.

        Raises:
            OperatorProcessError: the operator raised, broke its contract, timed out, or its process died.
        """
        if not self._warm:
            self._call(ProcessRequest(batch))
            self._warm = True
        run = self._call(ProcessRequest(batch))
        assert isinstance(run, BatchRun)
        return run

    @property
    def alive(self) -> bool:
        """True if the process is running."""
        return self._process.poll() is None

    def memory_bytes(self) -> int:
        """Return the current resident memory; 0 after the end of the process."""
        return resident_bytes(self._process.pid)

    def close(self) -> None:
        """Stop the process and its process group, and wait for its end. Idempotent."""
        self._connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_TIMEOUT_S)
        self._kill()
        self._output.close()

    def _call(self, request: LoadRequest | ProcessRequest) -> Loaded | BatchRun:
        try:
            self._connection.send(request)
            if not self._connection.poll(self._timeout_s):
                self._kill()
                raise OperatorProcessError(f"timed out after {self._timeout_s:g} s")
            reply: Loaded | BatchRun | OperatorError = self._connection.recv()
        except (EOFError, OSError) as error:
            raise OperatorProcessError(self._exit_reason()) from error
        except BaseException:  # also an interrupt: the late reply would be taken for the reply to the next request
            self._kill()
            raise
        if isinstance(reply, NotGuardedError):  # concerns every configuration, so that it ends the measurement
            raise reply
        if isinstance(reply, OperatorError):
            raise OperatorProcessError(str(reply))
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak_resident_bytes(self._process.pid))
        return reply

    def _exit_reason(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_TIMEOUT_S)
        code = self._kill()
        end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        self._output.seek(max(0, self._output.seek(0, os.SEEK_END) - _LAST_OUTPUT_BYTES))
        lines = [line for line in self._output.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its process {end}" + (f"; last output: {lines[-1].strip()}" if lines else "")

    def _kill(self) -> int:
        """Kill the process group, and return the exit code of the process."""
        if not self._group_ended:  # only once, as the system may reuse the group's id
            with suppress(ProcessLookupError, PermissionError):  # the group has ended already
                os.killpg(self._process.pid, signal.SIGKILL)
            self._group_ended = True
        return self._process.wait()


def _start(cpus: float) -> tuple[subprocess.Popen[bytes], Connection, IO[bytes]]:
    """Start a worker; return its process, the connection to it, and its output file.

    Raises:
        OSError: the system refuses files, sockets or the process; nothing stays open.
    """
    with ExitStack() as opened:
        output = opened.enter_context(tempfile.TemporaryFile())
        ours, theirs = socket.socketpair()
        opened.callback(ours.close)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "circinus.profiling.measurement.worker", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=_environment(cpus),
                pass_fds=[theirs.fileno()],
                # A session of its own: Ctrl-C reaches only the planner, which stops this process itself, together
                # with all processes that the operator started.
                start_new_session=True,
            )
        opened.pop_all()
    return process, Connection(ours.detach()), output


def _environment(cpus: float) -> dict[str, str]:
    """Return the planner's environment, with numeric libraries limited to the replica's CPUs."""
    return {**os.environ, **thread_limits(cpus)}


_MEMORY_SHARE = 0.5


class OperatorProcessPool:
    """Processes by key; the least recently used are closed when all together exceed the memory limit."""

    def __init__(
        self, load: Callable[[OperatorProcessKey], OperatorProcess], memory_limit_bytes: float | None = None
    ) -> None:
        """Create an empty pool.

        Args:
            load: factory of processes.
            memory_limit_bytes: limit of the total resident memory, except for the process in use; default: half of the
                memory available now.
        """
        self._load = load
        self._limit_bytes = memory_limit_bytes if memory_limit_bytes is not None else _MEMORY_SHARE * available_bytes()
        self._loaded: OrderedDict[OperatorProcessKey, OperatorProcess] = OrderedDict()

    def get(self, key: OperatorProcessKey) -> OperatorProcess:
        """Return the process, loading it if necessary, which may close others.

        Raises:
            OperatorProcessError: the operator cannot be loaded.
        """
        present = self._loaded.get(key)
        if present is not None:
            self._loaded.move_to_end(key)
            return present
        replica = self._load(key)
        self._loaded[key] = replica
        self._evict()
        return replica

    def discard(self, key: OperatorProcessKey) -> None:
        """Close a failed process, whose state is undefined."""
        replica = self._loaded.pop(key, None)
        if replica is not None:
            replica.close()

    def close(self) -> None:
        """Close all processes."""
        for key in list(self._loaded):
            self.discard(key)

    def __len__(self) -> int:
        return len(self._loaded)

    def _evict(self) -> None:
        memory_bytes = {key: replica.memory_bytes() for key, replica in self._loaded.items()}
        while len(self._loaded) > 1 and sum(memory_bytes.values()) > self._limit_bytes:
            oldest = next(iter(self._loaded))
            self.discard(oldest)
            del memory_bytes[oldest]
