"""Processes with one loaded operator each, which are measured."""

from __future__ import annotations

import math
import resource
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from circinus.operators.fork_server_client import ForkServerClient, ProcessExit
from circinus.operators.framing import BlockingFrames, Frame
from circinus.operators.host import BatchRun, ReplyType
from circinus.operators.process_output import open_output
from circinus.operators.registry import NotGuardedError
from circinus.profiling.settings import PROFILING
from circinus.specification import KnobValues

_FILES_PER_PROCESS = 8
"""Open files of this process for each process of an operator (a connection, a lifeline, output), with a reserve."""


class OperatorProcessError(Exception):
    """Failure of an operator: not loadable, an exception, or a crash of its process. The message is the reason only."""


@dataclass(frozen=True)
class OperatorProcessKey:
    """Identity of a process: replicas with the same key are interchangeable."""

    uses: str
    version: str
    knobs: KnobValues
    cpus: float
    """CPUs that the operator is created with."""


class OperatorProcess:
    """Process with one loaded operator; the constructor waits for the load."""

    def __init__(
        self,
        processes: ForkServerClient,
        key: OperatorProcessKey,
        module_paths: tuple[Path, ...],
        timeout_s: float,
        output: Path | None = None,
    ) -> None:
        """Start the process, and wait until the operator is loaded.

        Args:
            output: folder of the operator's output; by default a temporary file.

        Raises:
            OperatorProcessError: the operator cannot be loaded.
            NotGuardedError: importing the operator calls the workspace.
        """
        self.key = key
        self.peak_memory_bytes = 0
        """Peak resident memory of the whole process, including interpreter and imports."""
        self._timeout_s = timeout_s
        self._warm = False
        paths = tuple(path.resolve() for path in module_paths)
        try:
            self._process = processes.spawn(
                *(key.uses, key.version, key.knobs.as_dict(), key.cpus, paths),
                cpus=key.cpus,
                output=open_output(output, key.uses),
            )
        except OSError as error:
            raise OperatorProcessError(f"its process cannot be started: {error}") from error
        self._frames = BlockingFrames(self._process.connection)
        try:
            (self._id, self.load_s), _ = self._call()
        except BaseException:
            self.close()
            raise
        self.startup_s = time.monotonic() - self._process.requested_s
        """Seconds from the request for the process until it is ready, including `load_s`: the seconds to import the
        operator and to create it with its knob values."""

    def process(self, batch: Sequence[Sequence[bytes]], cpus: float | None = None) -> BatchRun:
        """Process and time a batch of pickled inputs (for each item, one for each parent).

        Times are those with `cpus` CPUs, by default the process's own.

        The first batch after loading is processed twice, and the first run is not timed: allocators, caches and
        just-in-time compilers warm up on it, and a replica in service is warm.

        Raises:
            OperatorProcessError: the operator raised, broke its contract, timed out, or its process died.
        """
        if not self._warm:
            self._call(batch)
            self._warm = True
        (_, times, self.peak_memory_bytes), outputs = self._call(batch)
        return BatchRun(tuple(map(bytes, outputs)), times.service_s(self.key.cpus if cpus is None else cpus), times)

    @property
    def alive(self) -> bool:
        """True unless the end of the process has been noticed."""
        return self._process.exit is None

    @property
    def was_bystander(self) -> bool:
        """True if the process ended together with all others, so that its operator cannot be the cause."""
        return self._process.exit is not None and not self._process.exit.is_isolated

    def memory_bytes(self) -> int:
        """Return the current resident memory; 0 after the end of the process."""
        import psutil

        try:
            return int(psutil.Process(self._id).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def close(self) -> None:
        """Stop the process and all that it started, and wait for its end. Idempotent."""
        self._end(PROFILING.exit_timeout_s)

    def _call(self, batch: Sequence[Sequence[bytes]] | None = None) -> Frame:
        """Return the reply to a batch, or the one to the request for the process."""
        try:
            self._process.connection.settimeout(self._timeout_s)
            if batch is not None:
                self._frames.send(len(batch), [value for inputs in batch for value in inputs])
            frame = self._frames.receive()
        except TimeoutError as error:
            self._end(0.0)
            raise OperatorProcessError(f"timed out after {self._timeout_s:g} s") from error
        except OSError as error:
            raise OperatorProcessError(self._exit_reason()) from error
        except BaseException:  # also an interrupt: the late reply would be taken for the reply to the next request
            self._end(0.0)
            raise
        if frame is None:
            raise OperatorProcessError(self._exit_reason())
        (reply_type, content), outputs = frame
        if reply_type == ReplyType.FAILED:
            # An unguarded module concerns every configuration, so that it ends the measurement.
            raise content if isinstance(content, NotGuardedError) else OperatorProcessError(str(content))
        return content, outputs

    def _end(self, timeout_s: float) -> ProcessExit:
        self._process.connection.close()
        return self._process.wait(timeout_s)

    def _exit_reason(self) -> str:
        return f"its process {self._end(PROFILING.exit_timeout_s).description}"


class OperatorProcessPool:
    """Processes by key; the least recently used are closed when all together exceed the limits."""

    def __init__(
        self, load: Callable[[OperatorProcessKey, float], OperatorProcess], memory_limit_bytes: float | None = None
    ) -> None:
        """Create an empty pool.

        Args:
            load: (key, timeout in seconds) -> process.
            memory_limit_bytes: limit of the total resident memory, without the process in use; by default half of the
                memory available now. The number of processes is limited by a share of the files that may be open.
        """
        import psutil

        self._load = load
        if memory_limit_bytes is None:
            memory_limit_bytes = PROFILING.memory_share * psutil.virtual_memory().available
        self._limit_bytes = memory_limit_bytes
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        is_limited = files != resource.RLIM_INFINITY
        self._max_processes = max(1, files // _FILES_PER_PROCESS) if is_limited else math.inf
        self._loaded: OrderedDict[OperatorProcessKey, OperatorProcess] = OrderedDict()

    def get(self, key: OperatorProcessKey, timeout_s: float) -> OperatorProcess:
        """Return the process, loading it if necessary, which may close others.

        Raises:
            OperatorProcessError: the operator cannot be loaded.
        """
        present = self._loaded.get(key)
        if present is not None:
            self._loaded.move_to_end(key)
            return present
        while len(self._loaded) >= self._max_processes:
            self.discard(next(iter(self._loaded)))
        replica = self._load(key, timeout_s)
        self._loaded[key] = replica
        self._evict()
        return replica

    def discard(self, key: OperatorProcessKey) -> None:
        """Close a failed process, whose state is undefined."""
        replica = self._loaded.pop(key, None)
        if replica is not None:
            replica.close()

    def close(self) -> None:
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
