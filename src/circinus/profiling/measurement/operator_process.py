"""Processes with one loaded operator each, which are measured."""

from __future__ import annotations

import math
import resource
import select
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from circinus.operators.executor_process import ExecutorProcess, OperatorProcessError
from circinus.operators.fork_server_client import ForkServerClient
from circinus.operators.host import BatchRun
from circinus.operators.protocol import ONE, Emission
from circinus.profiling.settings import PROFILING
from circinus.specification import KnobValues

_FILES_PER_PROCESS = 8
"""Open files of this process for each process of an operator (a connection, a lifeline, output), with a reserve."""

_HEADER_BYTES = 64
"""Bytes of a frame's header, and more than those of the length of a payload."""
_MAX_AHEAD, _AHEAD_S = 32, 0.02
"""Batches without a reply, and the seconds that they may take."""
_AHEAD_BYTES = 16384 if sys.platform == "linux" else 2048
"""Bytes of batches that a connection takes whole where it is writable: Linux reports an empty buffer of 200 kB as
writable until a quarter is in use, others where 2 kB are free."""
_MIN_PAUSE_S = 1e-4
"""Shortest pause, as systems wake up about half as late."""

_Request = tuple[int, Sequence[bytes]]
"""(number of items of a batch, pickled inputs)"""


@dataclass(frozen=True)
class OperatorProcessKey:
    """Identity of a process: replicas with the same key are interchangeable."""

    uses: str
    version: str
    knobs: KnobValues
    cpus: float
    """CPUs that the operator is created with."""
    emission: Emission = ONE


class OperatorProcess(ExecutorProcess):
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
        self.elapsed_s = 0.0
        """Seconds of all runs, with those of warm-ups."""
        self._warm: set[tuple[str, int]] = set()
        self._cold_s, self._warm_s = math.inf, 0.0
        self._max_ahead = 1
        paths = tuple(path.resolve() for path in module_paths)
        arguments = key.uses, key.version, key.knobs.as_dict(), key.cpus, paths, key.emission
        super().__init__(processes, *arguments, name=key.uses, cpus=key.cpus, timeout_s=timeout_s, output=output)
        self._writable = select.poll()
        self._writable.register(self._process.connection, select.POLLOUT)

    def process_each(
        self, batches: Sequence[Sequence[Sequence[bytes]]], cpus: float | None = None, source: str = ""
    ) -> Iterator[BatchRun]:
        """Process and time batches of pickled inputs (for each item, one for each parent), in order.

        The first batch after loading is processed twice, and the first run is not timed: allocators, caches and
        just-in-time compilers warm up on it, and a replica in service is warm. They may depend on the form of the
        inputs: if the first run took much longer than its repetition, the first batch of a call is processed twice for
        each further source or size, too. Quick batches are sent ahead, and their replies are read together: each
        exchange with the process takes a tenth of a millisecond, and on a busy machine it may wait for a CPU longer
        than that.

        Args:
            batches: the batches.
            cpus: number of CPUs that times are for, by default its own.
            source: key of what made the inputs, such as the configuration upstream.

        Raises:
            OperatorProcessError: the operator raised, broke its contract or timed out on the batch whose turn it is, or
                its process died. Batches behind it are dropped.
        """
        unsent: deque[_Request] = deque(
            (len(batch), [value for inputs in batch for value in inputs]) for batch in batches
        )
        if unsent and (source, unsent[0][0]) not in self._warm:
            self._warm_up(unsent[0])
            self._warm.add((source, unsent[0][0]))
        ahead = 0
        last_s = deque([0.0, 0.0], maxlen=2)
        try:
            while unsent or ahead:
                while unsent and ahead <= self._max_ahead // 2:
                    if ahead and not self._is_writable:  # both ends could wait to write
                        break
                    together = self._together(unsent, self._max_ahead - ahead, is_first=not ahead)
                    if not together:
                        break
                    ahead += len(together)
                    try:
                        self._send(together)
                    except ConnectionError:
                        unsent.clear()  # the process ended; replies to batches before its last one may be left
                if ahead > 1 and not self._frames.has_received:
                    self._pause(ahead / 2 * min(last_s))
                ahead -= 1
                (_, times, self.peak_memory_bytes, branches), outputs = self._receive()
                self.elapsed_s += times.elapsed_s
                self._warm_s = self._warm_s or times.own_s
                last_s.append(times.own_s)
                self._max_ahead = min(1 + int(_AHEAD_S / max(times.elapsed_s, 1e-9)), _MAX_AHEAD)
                service_s = times.service_s(self.key.cpus if cpus is None else cpus)
                yield BatchRun(tuple(map(bytes, outputs)), service_s, times, branches)
        finally:
            while ahead and self.alive:
                ahead -= 1
                with suppress(OperatorProcessError):
                    self._receive()

    def memory_bytes(self) -> int:
        """Return the current resident memory; 0 after the end of the process."""
        import psutil

        try:
            return int(psutil.Process(self._id).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    def _warm_up(self, batch: _Request) -> None:
        """Process a batch without counting it, unless first runs are known to take no longer.

        Raises:
            OperatorProcessError: see `process_each`.
        """
        if self._cold_s <= PROFILING.slow_start_ratio * self._warm_s:
            return
        with suppress(ConnectionError):  # the receiver gives the reason
            self._send([batch])
        (_, times, *_), _ = self._receive()
        self.elapsed_s += times.elapsed_s
        if not self._warm_s:
            self._cold_s = times.own_s

    @property
    def _is_writable(self) -> bool:
        """Whether the connection takes `_AHEAD_BYTES` at once, without waiting for the process to read."""
        return bool(self._writable.poll(0))

    def _together(self, unsent: deque[_Request], count: int, *, is_first: bool) -> Sequence[_Request]:
        """Take at most `count` batches that the connection takes together, or a first one of any size."""
        together, total_bytes = list[_Request](), 0
        while unsent and len(together) < count:
            inputs = unsent[0][1]
            total_bytes += sum(map(len, inputs)) + _HEADER_BYTES * (1 + len(inputs))
            if total_bytes > _AHEAD_BYTES and not (is_first and not together):
                break
            together.append(unsent.popleft())
        return together

    def _send(self, batches: Sequence[_Request]) -> None:
        """Send batches.

        Raises:
            ConnectionError: the process ended.
            OperatorProcessError: it does not read.
        """
        with self._ending_on_errors():
            if len(batches) == 1:
                self._frames.send(*batches[0])
            else:
                self._frames.send_together(batches)

    def _pause(self, pause_s: float) -> None:
        """Let the process answer several batches before this one is woken up."""
        if pause_s > _MIN_PAUSE_S:
            with self._ending_on_errors():
                time.sleep(min(pause_s, _AHEAD_S / 2))


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
        for replica in self._loaded.values():
            replica.request_exit()
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
