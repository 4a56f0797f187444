"""Capacity of this machine, and checks of desired states against it."""

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
    """CPUs, memory and GPUs that an engine may use."""

    cpus: float
    memory_bytes: float
    gpus: int

    @classmethod
    def of_this_machine(cls) -> MachineCapacity:
        """Return the capacity of this machine within the CPU affinity and cgroup limits of this process."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        limit_cpus, limit_bytes = cgroup_limits()
        return cls(min(cpus, limit_cpus), min(memory_bytes, limit_bytes), len(glob("/dev/nvidia[0-9]*")))


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


def can_emulate(relative_speed: float) -> bool:
    """Return whether the mode `real` can emulate hardware of this speed relative to the profiled machine."""
    return relative_speed <= 1


def require_capacity(desired: DesiredState, machine: MachineCapacity) -> None:
    """Raise an error if the mode is `real` and the machine is too small or too slow for the state.

    Measured times would be meaningless otherwise. Both the replicas and the pools in use must fit: a pool larger than
    the machine promises capacity that does not exist.

    Raises:
        ServingError: the state does not fit, or a pool in use is faster than the profiled machine.
    """
    if desired.mode is not Mode.REAL:
        return
    for target in desired.deployments:
        if not can_emulate(target.relative_speed):
            raise ServingError(
                f"the hardware is {target.relative_speed:g} times as fast as the profiled machine, "
                "which mode real cannot emulate",
                code="pool.too_fast",
                location=f"pool {target.deployment.pool}",
                hint="Use mode replay.",
            )
    used = {target.deployment.pool for target in desired.deployments}
    pools = [pool for pool in desired.infrastructure.pools if pool.name in used]
    pools_named = f"the pools in use ({', '.join(pool.name for pool in pools)}) have"
    _require_fit("the replicas are given", "CPUs", sum(d.replicas * d.cpus for d in desired.deployments), machine.cpus)
    _require_fit(pools_named, "CPUs", sum(pool.nodes * pool.cpus for pool in pools), machine.cpus)
    _require_fit(pools_named, "GPUs", sum(pool.nodes * pool.gpus for pool in pools), machine.gpus)
    memory_gib = machine.memory_bytes / _GIB
    given_gib = sum(d.replicas * d.memory_bytes for d in desired.deployments) / _GIB
    _require_fit("the replicas are given", "GiB of memory", given_gib, memory_gib)
    pools_gib = sum(pool.nodes * pool.memory_bytes for pool in pools) / _GIB
    _require_fit(pools_named, "GiB of memory", pools_gib, memory_gib)


def _require_fit(subject: str, unit: str, required: float, available: float) -> None:
    if required > available * (1 + 1e-9):
        raise ServingError(
            f"{subject} {required:.4g} {unit} and this machine has {available:.4g}",
            code="engine.machine_too_small",
            location="mode real",
            hint="Use mode replay, which answers from recordings.",
        )
