"""Capacity of this machine, and checks of desired states against it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from glob import glob

from circinus.errors import ServingError
from circinus.profiling.hardware.machine import available_cpus, cgroup_limits
from circinus.serving.engine import DesiredState, Mode
from circinus.specification import Pool

_GIB = 2**30
_ROUNDING = 1e-9


@dataclass(frozen=True)
class MachineCapacity:
    """CPUs, memory and GPUs that an engine may use."""

    cpus: float
    memory_bytes: float
    gpus: int

    @classmethod
    def of_this_machine(cls) -> MachineCapacity:
        """Return the capacity of this machine within the CPU affinity and cgroup limits of this process."""
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(available_cpus(), min(memory_bytes, cgroup_limits()[1]), len(glob("/dev/nvidia[0-9]*")))


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
    nodes = {pool.name: _nodes(pool, desired) for pool in pools}
    _require_fit(pools_named, "CPUs", sum(nodes[pool.name] * pool.cpus for pool in pools), machine.cpus)
    _require_fit("the replicas are given", "CPUs", sum(d.replicas * d.cpus for d in desired.deployments), machine.cpus)
    _require_fit(pools_named, "GPUs", sum(nodes[pool.name] * pool.gpus for pool in pools), machine.gpus)
    memory_gib = machine.memory_bytes / _GIB
    given_gib = sum(d.replicas * d.memory_bytes for d in desired.deployments) / _GIB
    _require_fit("the replicas are given", "GiB of memory", given_gib, memory_gib)
    pools_gib = sum(nodes[pool.name] * pool.memory_bytes for pool in pools) / _GIB
    _require_fit(pools_named, "GiB of memory", pools_gib, memory_gib)


def _nodes(pool: Pool, desired: DesiredState) -> int:
    """Return the nodes of a pool; of an elastic one, those without which its replicas do not fit."""
    if not pool.is_elastic:
        return pool.nodes
    replicas = [target for target in desired.deployments if target.deployment.pool == pool.name]
    shares = (
        sum(target.replicas * target.cpus for target in replicas) / pool.cpus,
        sum(target.replicas * target.memory_bytes for target in replicas) / pool.memory_bytes,
    )
    return max(pool.base_nodes, math.ceil(max(shares) - _ROUNDING))


def _require_fit(subject: str, unit: str, required: float, available: float) -> None:
    if required > available * (1 + 1e-9):
        raise ServingError(
            f"{subject} {required:.4g} {unit} and this machine has {available:.4g}",
            code="engine.machine_too_small",
            location="mode real",
            hint="Use mode replay, which answers from recordings.",
        )
