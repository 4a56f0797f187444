"""Machines and the relative speeds of operators on them."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from circinus.specification import HardwareClass
from circinus.statistics.interval import Interval


@dataclass(frozen=True)
class ClassBatchRatios:
    """Batch time ratios of one operator with its knob values on one hardware class, from an imported table."""

    ratio: Mapping[tuple[float, int], float]
    """(CPUs, batch size) -> time of a full batch relative to one item on the fewest CPUs of the class; every allowed
    allocation."""
    measured: frozenset[tuple[float, int]]
    """Allocations that the table has; others are bounded by these."""
    origin: str
    """Source of the table."""


@dataclass(frozen=True)
class MeasuredSpeed:
    """Measured speed of one operator with its knob values on one hardware class, relative to the profile."""

    speed: Interval
    """Profile time divided by time on the class: the median over items, with distribution-free bounds."""
    items: int
    """Number of compared items; 0 if the speed follows from an imported table."""
    startup_s: float | None = None
    """Seconds from requesting a replica on the class until it is ready; None if none was started."""
    batches: ClassBatchRatios | None = None
    """Batch time ratios on the class; None where those of the profile apply."""


@dataclass(frozen=True)
class Speeds:
    """Relative speeds of one operator with its knob values, by hardware class."""

    measured: Mapping[str, MeasuredSpeed] = field(default_factory=dict)
    """Measured speeds by the name of the class; unmeasured classes are missing."""

    def expected(self, hardware: HardwareClass) -> float:
        """Return the measured speed, else the declared one."""
        measured = self.measured.get(hardware.name)
        return hardware.speed if measured is None else measured.speed.value

    def guaranteed(self, hardware: HardwareClass) -> float:
        """Return the lower bound of the speed, which guarantees are computed with."""
        measured = self.measured.get(hardware.name)
        return hardware.guaranteed_speed if measured is None else measured.speed.lower

    def batches(self, hardware: HardwareClass) -> ClassBatchRatios | None:
        """Return the batch time ratios of the class itself; None where those of the profile apply."""
        measured = self.measured.get(hardware.name)
        return None if measured is None else measured.batches


DECLARED = Speeds()
"""Speeds without any measurement: the declared ones apply."""


@dataclass(frozen=True)
class Machine:
    """Hardware that service times depend on; measurements of one machine are not valid for another."""

    cpu_model: str
    cores: int
    """Logical cores of the whole machine, even if a process may use only some of them."""

    def __str__(self) -> str:
        return f"{self.cpu_model}, {self.cores} cores"


@lru_cache(maxsize=1)
def current_machine() -> Machine:
    """Return the machine that this process runs on."""
    return Machine(_cpu_model(), os.cpu_count() or 1)


def cgroup_limits(
    mounted: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> tuple[float, float]:
    """Return the (CPUs, bytes of memory) that the cgroups (version 2) of this process allow; infinity without a limit.

    The minimum of its own cgroup and all ancestors (Linux, Documentation/admin-guide/cgroup-v2.rst).
    """
    try:
        entries = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf, math.inf
    own = [mounted / entry.removeprefix("0::").lstrip("/") for entry in entries if entry.startswith("0::")]
    groups = [group for path in own for group in (path, *path.parents) if group.is_relative_to(mounted)]
    cpus, memory_bytes = [math.inf], [math.inf]
    for group in groups:
        with suppress(OSError, ValueError):  # `max` stands for no limit
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
            cpus.append(float(int(quota) / int(period)))
        with suppress(OSError, ValueError):
            memory_bytes.append(float(int((group / "memory.max").read_text(encoding="utf-8"))))
    return min(cpus), min(memory_bytes)


def available_cpus() -> float:
    """Return the number of CPUs that this process may use, by its affinity and its cgroups."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return float(min(cpus, cgroup_limits()[0]))


def busy_share() -> float:
    """Return the mean share of the machine's CPUs in use during the next fifth of a second."""
    import psutil

    return float(psutil.cpu_percent(interval=0.2)) / 100.0


def machine_mismatch(machine: Machine | None) -> str | None:
    """Return why times measured on a machine (None: unrecorded) do not apply to the current one, or None if they do."""
    current = current_machine()
    if machine == current:
        return None
    return (
        f"service times were measured on {'an unrecorded machine' if machine is None else machine}; this machine is "
        f"{current}. Run `circinus profile` on this machine, or declare its speed"
    )


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown CPU"
