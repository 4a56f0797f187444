"""What one replica takes from a node."""

from __future__ import annotations

from circinus.estimation.estimate import ReplicaDemand
from circinus.spec import OperatorSpec, Pool

_ROUNDING = 1e-9


def replica_demand(operator: OperatorSpec, pool: Pool, cpus: float, memory_bytes: float) -> ReplicaDemand:
    """What one replica of `operator` with `cpus` CPUs takes from one node of `pool`.

    Args:
        operator: says which GPUs it needs.
        pool: says what a node has and costs.
        cpus: CPUs of the replica.
        memory_bytes: its peak memory, as profiled.
    """
    shares = (
        cpus / pool.cpus,
        memory_bytes / pool.memory_bytes if pool.memory_bytes else 0.0,
        operator.gpus / pool.gpus if pool.gpus else 0.0,
        operator.gpu_memory_bytes / pool.gpu_memory_bytes if pool.gpu_memory_bytes else 0.0,
    )
    return ReplicaDemand(
        cpus=cpus,
        memory_bytes=memory_bytes,
        gpus=operator.gpus,
        gpu_memory_bytes=operator.gpu_memory_bytes,
        cost_usd_per_h=pool.price_usd_per_h * max(shares),
    )


def replicas_per_node(demand: ReplicaDemand, pool: Pool) -> int:
    """How many replicas of one deployment a node of `pool` holds; 0: it does not fit."""
    amounts = (
        (demand.cpus, pool.cpus),
        (demand.memory_bytes, pool.memory_bytes),
        (demand.gpus, pool.gpus),
        (demand.gpu_memory_bytes, pool.gpu_memory_bytes),
    )
    return min(int(available / needed + _ROUNDING) for needed, available in amounts if needed > 0)
