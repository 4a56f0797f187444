"""Clock of an operator's runs, which tells the operator's own time from what other programs took away meanwhile."""

from __future__ import annotations

import os
import resource
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TASKS = Path("/proc/self/task")


@dataclass(frozen=True)
class RunTimes:
    """Times of one run."""

    elapsed_s: float
    cpu_s: float
    """CPU seconds of all threads, and of child processes that ended meanwhile."""
    wait_s: float
    """Seconds in which the run was ready and had no CPU: other programs or virtual machines had it."""

    @property
    def own_s(self) -> float:
        """Seconds that the run would have taken if it had never waited for a CPU."""
        return self.elapsed_s - self.wait_s

    @property
    def waited_share(self) -> float:
        """Share of the elapsed time in which the run waited for a CPU."""
        return self.wait_s / self.elapsed_s if self.elapsed_s else 0.0


class RunClock:
    """Clock that starts with its construction.

    Linux counts for each thread how long it waited in a run queue (`/proc/self/task/*/schedstat`): the thread that
    waited longest counts. A run without voluntary context switches also waited whenever it did not compute, which
    covers the time that a hypervisor took away, and systems without such counts. The waits of child processes are
    unknown.
    """

    def __init__(self) -> None:
        self._waits_s = _run_queue_waits_s()
        self._switches = _voluntary_switches()
        self._cpu_s = _cpu_s()
        self._start_s = time.perf_counter()

    def stop(self) -> RunTimes:
        """Return the times since the start."""
        elapsed_s, cpu_s = time.perf_counter() - self._start_s, _cpu_s() - self._cpu_s
        idle_s = elapsed_s - cpu_s if _voluntary_switches() == self._switches else 0.0
        waits_s = (wait_s - self._waits_s.get(thread, 0.0) for thread, wait_s in _run_queue_waits_s().items())
        return RunTimes(elapsed_s, cpu_s, min(max(idle_s, *waits_s, 0.0), elapsed_s))


def _run_queue_waits_s() -> dict[str, float]:
    """Return thread id -> seconds in a run queue; empty where the system does not tell."""
    try:
        threads = os.listdir(_TASKS)
    except OSError:
        return {}
    waits_s = {}
    for thread in threads:
        with suppress(OSError):  # it has just ended
            waits_s[thread] = int((_TASKS / thread / "schedstat").read_text(encoding="ascii").split()[1]) * 1e-9
    return waits_s


def _voluntary_switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
