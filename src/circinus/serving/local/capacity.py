"""Whether this machine can run what is asked of it."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState, Mode

_GIB = 2**30


@dataclass(frozen=True)
class MachineCapacity:
    """What there is to compute with."""

    cpus: float
    memory_bytes: float
    gpus: int

    @classmethod
    def here(cls) -> MachineCapacity:
        """This machine, as far as this process may use it: its affinity and the limits of its control groups."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit_cpus, limit_bytes = cgroup_limits()
        return cls(min(cpus, limit_cpus), min(memory_bytes, limit_bytes), len(glob("/dev/nvidia[0-9]*")))


def cgroup_limits(
    mounted: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> tuple[float, float]:
    """(CPUs, bytes of memory) that this process' control groups (version 2) allow it; infinite where nothing is said.

    The least of its own group and of all groups around it (Linux, Documentation/admin-guide/cgroup-v2.rst).
    """
    try:
        entries = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return math.inf, math.inf
    own = [mounted / entry.removeprefix("0::").lstrip("/") for entry in entries if entry.startswith("0::")]
    groups = [group for path in own for group in (path, *path.parents) if group.is_relative_to(mounted)]
    cpus, memory_bytes = [math.inf], [math.inf]
    for group in groups:
        with suppress(OSError, ValueError):  # `max` says that there is no limit
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
            cpus.append(float(int(quota) / int(period)))
        with suppress(OSError, ValueError):
            memory_bytes.append(float(int((group / "memory.max").read_text(encoding="utf-8"))))
    return min(cpus), min(memory_bytes)


def can_emulate(relative_speed: float) -> bool:
    """Whether the mode `real` can be hardware that is so many times as fast as what was profiled on."""
    return relative_speed <= 1


def require_capacity(desired: DesiredState, machine: MachineCapacity) -> None:
    """Refuse, in the mode `real`, what `machine` cannot be or hold: measured times would mean nothing.

    Both what the replicas are given and the pools they run in must fit, for a pool that is larger than the machine
    promises room that is not there.

    Raises:
        ServingError: it does not fit, or a pool in use is faster than the machine that was profiled.
    """
    if desired.mode is not Mode.REAL:
        return
    for wanted in desired.deployments:
        if not can_emulate(wanted.relative_speed):
            raise ServingError(
                f"its hardware is {wanted.relative_speed:g} times as fast as the profiled one, "
                "and mode real can slow this machine down but not speed it up",
                code="pool.too_fast",
                location=f"pool {wanted.deployment.pool}",
                hint="Use mode replay.",
            )
    used = {wanted.deployment.pool for wanted in desired.deployments}
    pools = [pool for pool in desired.infrastructure.pools if pool.name in used]
    pools_named = f"the pools in use ({', '.join(pool.name for pool in pools)}) have"
    _compare("the replicas are given", "CPUs", sum(d.replicas * d.cpus for d in desired.deployments), machine.cpus)
    _compare(pools_named, "CPUs", sum(pool.nodes * pool.cpus for pool in pools), machine.cpus)
    _compare(pools_named, "GPUs", sum(pool.nodes * pool.gpus for pool in pools), machine.gpus)
    memory_gib = machine.memory_bytes / _GIB
    given_gib = sum(d.replicas * d.memory_bytes for d in desired.deployments) / _GIB
    _compare("the replicas are given", "GiB of memory", given_gib, memory_gib)
    pools_gib = sum(pool.nodes * pool.memory_bytes for pool in pools) / _GIB
    _compare(pools_named, "GiB of memory", pools_gib, memory_gib)


def _compare(what: str, unit: str, found: float, there: float) -> None:
    if found > there * (1 + 1e-9):
        raise ServingError(
            f"{what} {found:.4g} {unit} and this machine has {there:.4g}",
            code="engine.machine_too_small",
            location="mode real",
            hint="Use mode replay, which answers from recordings.",
        )
