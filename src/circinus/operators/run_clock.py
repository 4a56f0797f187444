"""Clock of an operator's runs, which tells the operator's own time from what other programs took away meanwhile."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

_STATISTICS = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True)
class RunTimes:
    """Times of one run."""

    elapsed_s: float
    cpu_s: float
    """CPU seconds of all threads."""
    wait_s: float
    """Seconds in which the run was ready and had no CPU: other programs or virtual machines had it."""

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


class RunClock:
    """Clock of the calling thread that starts with its construction.

    Linux counts how long a thread waited in a run queue (`/proc/thread-self/schedstat`). A thread without voluntary
    context switches also waited whenever it did not compute, which covers the time that a hypervisor took away, and
    systems without such counts. Waits of other threads and of child processes stay in the time: whether the run had to
    wait for them is unknown.
    """

    def __init__(self) -> None:
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
        return RunTimes(elapsed_s, cpu_s, min(max(idle_s, _run_queue_s() - self._queue_s, 0.0), elapsed_s))


def _run_queue_s() -> float:
    """Return the seconds of the thread in a run queue; 0 where the system does not tell."""
    try:
        return int(_STATISTICS.read_text(encoding="ascii").split()[1]) * 1e-9
    except OSError:
        return 0.0


def _voluntary_switches() -> int:
    return resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_nvcsw
