"""Load of the machine during a load test: CPU time of the test with its engine, and of all other programs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

_FULL_SHARE = 0.8
"""Share of the CPUs from which processes have to wait for one."""
_MIN_OTHERS_CPUS = 0.25
"""Mean CPUs of other programs below which the test itself fills the machine."""


@dataclass(frozen=True)
class MachineLoad:
    """Mean number of busy CPUs of the machine during a load test."""

    cpus: int
    own_cpus: float
    """CPUs that the load test, the engine and its replicas used."""
    others_cpus: float
    """CPUs that other programs used, and that the hypervisor gave to other machines."""

    @property
    def busy(self) -> bool:
        """True if other programs were in the way: nearly all CPUs were busy, and not by the test alone."""
        return self.others_cpus >= _MIN_OTHERS_CPUS and self.own_cpus + self.others_cpus >= _FULL_SHARE * self.cpus


class MachineMonitor:
    """Monitor of this machine's CPUs from its creation on."""

    def __init__(self, processes: Iterable[int]) -> None:
        """Start to measure.

        Args:
            processes: ids of processes that belong to the load test, with all their descendants.
        """
        self._processes = tuple(processes)
        self._start = time.monotonic(), _busy_s(), _spent_s(self._processes)

    def load(self) -> MachineLoad:
        """Return the load since the start."""
        import psutil

        start_s, busy_s, own_s = self._start
        elapsed_s = max(time.monotonic() - start_s, 1e-9)
        own = _spent_s(self._processes) - own_s
        all_cpus, own_cpus = (_busy_s() - busy_s) / elapsed_s, max(0.0, own / elapsed_s)
        return MachineLoad(psutil.cpu_count() or 1, own_cpus, max(0.0, all_cpus - own_cpus))


def _busy_s() -> float:
    """Return the CPU seconds of all programs since the machine started, with those that the hypervisor took away."""
    import psutil

    times = psutil.cpu_times()
    idle = ("idle", "iowait", "guest", "guest_nice")  # user and nice time include that of guests
    return float(sum(seconds for name, seconds in times._asdict().items() if name not in idle))


def _spent_s(roots: Iterable[int]) -> float:
    """Return the CPU seconds of some processes and their descendants, with those that have ended under a living one."""
    import psutil

    spent_s = 0.0
    for root in roots:
        try:
            processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for process in processes:
            try:
                spent_s += sum(process.cpu_times()[:4])  # user, system, and both of children that have ended
            except psutil.Error:  # it has just ended
                continue
    return spent_s
