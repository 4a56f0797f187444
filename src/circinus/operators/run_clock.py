"""Clock of an operator's runs, which tells the operator's own time from what other programs took away meanwhile."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

_STATISTICS = "/proc/thread-self/schedstat"
_PRESSURE = "/proc/pressure/cpu"
_CPUS = os.cpu_count() or 1
_MIN_WORK_SHARE = 0.1
"""Minimum share of an interruption that workers compute, on each of their CPUs, for it to be their work."""


class RunTimes(NamedTuple):
    """Times of one run. Its workers are the other threads and the child processes that compute for it."""

    elapsed_s: float
    cpu_s: float
    """CPU seconds of all threads."""
    wait_s: float
    """Seconds in which the run was ready and had no CPU: other programs or virtual machines had it."""
    worker_wait_s: float = 0.0
    """Estimated seconds in which the run waited for workers, and these for a CPU. They stay in `own_s`."""

    @property
    def own_s(self) -> float:
        """Seconds that the run would have taken if it had never waited for a CPU."""
        return self.elapsed_s - self.wait_s

    def service_s(self, cpus: float) -> float:
        """Return the seconds of the run with `cpus` CPUs.

        Threads are limited to whole CPUs, and some libraries ignore the limit. Under a scheduler that grants `cpus` CPU
        seconds per second, this much CPU time would take at least this long.
        """
        return max(self.own_s, self.cpu_s / cpus)

    @property
    def waited_share(self) -> float:
        """Share of the elapsed time in which the run waited for a CPU."""
        return self.wait_s / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def worker_waited_share(self) -> float:
        """Share of the elapsed time in which workers waited for a CPU."""
        return self.worker_wait_s / self.elapsed_s if self.elapsed_s else 0.0

    @classmethod
    def total(cls, runs: Iterable[RunTimes]) -> RunTimes:
        """Return the times of several runs together."""
        return cls(*(sum(column) for column in zip(NO_TIMES, *runs, strict=True)))


NO_TIMES = RunTimes(0.0, 0.0, 0.0)
"""Times of no run."""


class RunClock:
    """Clock of the calling thread that starts with its construction.

    Linux counts how long a thread waited in a run queue (`/proc/thread-self/schedstat`). A thread without voluntary
    context switches also waited whenever it did not compute, which covers the time that a hypervisor took away, and
    systems without such counts.

    Counts of a process end with it, so that waits of workers are estimated: the thread was interrupted for longer than
    its workers computed, and meanwhile threads of the machine waited in run queues (`/proc/pressure/cpu`). Workers may
    have waited for a network or for each other, too. Hence the estimate marks a run, and is not left out of its time.
    """

    def __init__(self, cpus: float = 1.0, *, with_workers: bool = True) -> None:
        """Start the clock of a run.

        Args:
            cpus: CPUs that the run may compute on.
            with_workers: whether waits of workers are estimated, which takes 8 us, and more with many threads.
        """
        self._cpus = max(1.0, min(cpus, _CPUS))
        self._with_workers = with_workers
        if with_workers:
            self._pressure_s, self._children_s = _pressure_s(), _children_cpu_s()
        self._queue_s = _run_queue_s()
        self._switches = _voluntary_switches()
        self._thread_s = time.thread_time()
        self._cpu_s = time.process_time()
        self._start_s = time.perf_counter()

    def stop(self) -> RunTimes:
        """Return the times since the start."""
        elapsed_s, cpu_s = time.perf_counter() - self._start_s, time.process_time() - self._cpu_s
        thread_s = time.thread_time() - self._thread_s
        idle_s = elapsed_s - thread_s if _voluntary_switches() == self._switches else 0.0
        wait_s = min(max(idle_s, _run_queue_s() - self._queue_s, 0.0), elapsed_s)
        if not self._with_workers:
            return RunTimes(elapsed_s, cpu_s, wait_s)
        return RunTimes(elapsed_s, cpu_s, wait_s, self._worker_wait_s(elapsed_s - thread_s - wait_s, cpu_s - thread_s))

    def _worker_wait_s(self, interruption_s: float, threads_s: float) -> float:
        """Return how long workers waited for a CPU while the calling thread waited for them.

        Args:
            interruption_s: seconds in which the calling thread neither computed nor waited for a CPU.
            threads_s: CPU seconds of the other threads.
        """
        work_s = (threads_s + _children_cpu_s() - self._children_s) / self._cpus
        if work_s < _MIN_WORK_SHARE * interruption_s:
            return 0.0
        return max(min(interruption_s - work_s, _pressure_s() - self._pressure_s), 0.0)


class _OpenFile:
    """File of the system that stays open: reading it again takes 1 to 3 us, and 8 with opening it."""

    descriptor = -1

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.descriptor)

    def read(self) -> bytes:
        return os.pread(self.descriptor, 1 << 12, 0)


_open_files = threading.local()
"""Open files by path, whose content is that of the thread which opened them."""
os.register_at_fork(after_in_child=lambda: vars(_open_files).clear())


def _read_again(path: str) -> bytes:
    files: dict[str, _OpenFile] = vars(_open_files)
    file = files.get(path)
    if file is None:
        file = files[path] = _OpenFile(path)
    return file.read()


def _run_queue_s() -> float:
    """Return the seconds of the thread in a run queue; 0 where the system does not tell."""
    try:
        return int(_read_again(_STATISTICS).split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):  # or the operator has closed the file
        return 0.0


def _voluntary_switches() -> int:
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw


def _pressure_s() -> float:
    """Return the seconds in which a thread of the machine waited in a run queue; 0 where the system does not count."""
    try:
        some, *_ = _read_again(_PRESSURE).splitlines()  # some avg10=0.00 avg60=0.00 avg300=0.00 total=<microseconds>
        return int(some.rpartition(b"=")[2]) * 1e-6
    except (OSError, ValueError):  # or the operator has closed the file
        return 0.0


def _children_cpu_s() -> float:
    """Return the CPU seconds of all child processes, ended and present."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    present = _descendants(os.getpid()) if _has_children() else ()
    return ended.ru_utime + ended.ru_stime + sum(map(_process_cpu_s, present))


def _has_children() -> bool:
    """Return whether there is a child process, in 1 us where listing them takes 40; False where systems do not tell."""
    if not hasattr(os, "waitid"):
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _process_cpu_s(process: int) -> float:
    try:
        return time.clock_gettime(~process << 3 | 2)  # clock_getcpuclockid(3), which Python lacks
    except OSError:  # it has ended
        return 0.0


def _descendants(process: int) -> Iterator[int]:
    """Yield the processes below a process, where the system tells."""
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            for child in map(int, _read(f"/proc/{process}/task/{thread}/children").split()):
                yield child
                yield from _descendants(child)
    except OSError:  # it has ended, or the system does not tell
        return


def _read(path: str) -> bytes:
    """Return the content of a file of the system, in a third of the time that a file object takes."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 1 << 16)
    finally:
        os.close(file)
