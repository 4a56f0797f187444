"""Start-up times, speeds and batch times of sized deployments, from profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import ge, sub

from circinus.matching.plan_set import SizedDeployment
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.specification import Allocation, HardwareClass, Infrastructure, KnobValues, Pool


def add_startup_times(
    deployments: Sequence[SizedDeployment], profiles: Mapping[str, PipelineProfile], infrastructure: Infrastructure
) -> tuple[SizedDeployment, ...]:
    """Return the deployments with times of start-ups and batches, and with their relative speed if measured.

    Start-up times that were not measured on a pool's hardware scale with its guaranteed speed, as service times do.
    Where the replica needs a further node, they include the start of the node.

    Args:
        deployments: as sized.
        profiles: pipeline name -> profile; deployments without a profile stay as they are.
        infrastructure: the pools.
    """
    profiled: dict[tuple[str, str, KnobValues], dict[int, OperatorProfile]] = {}
    for name, profile in profiles.items():
        for configuration in profile.configurations:
            for operator, p in configuration.operators.items():
                profiled.setdefault((name, operator, p.prefix[operator]), {})[id(p)] = p
    result = []
    for sized in deployments:
        deployment = sized.deployment
        measured = profiled.get((deployment.pipeline, deployment.operator, deployment.knobs), {}).values()
        hardware = infrastructure.pool(deployment.pool).hardware
        startups_s = [startup_s for p in measured if (startup_s := p.startup_on(hardware)) is not None]
        if startups_s:
            node_s = _node_startup_s(sized, deployments, infrastructure.pool(deployment.pool))
            sized = replace(sized, startup_s=max(startups_s) + node_s)
        speeds = [p.speeds.expected(hardware) for p in measured if hardware.name in p.speeds.measured]
        if speeds:
            # Rounded, because a deployment whose fields change restarts its replicas.
            sized = replace(sized, relative_speed=float(f"{min(speeds):.3g}"))
        own = [batches.ratio for p in measured if (batches := p.speeds.batches(hardware)) is not None]
        if own:
            of_cpus = sorted((size, r) for (cpus, size), r in own[0].items() if cpus == deployment.allocation.cpus)
            sized = replace(sized, batch_ratio=tuple(of_cpus))
        if measured:
            longest_s = max(_longest_batch_s(p, hardware, deployment.allocation) for p in measured)
            sized = replace(sized, max_batch_s=float(f"{longest_s:.2g}"))
        result.append(sized)
    return tuple(result)


def _longest_batch_s(profile: OperatorProfile, hardware: HardwareClass, allocation: Allocation) -> float:
    """Return the time of a full batch of the slowest item."""
    ratio = profile.batch_ratio_on(hardware).get((allocation.cpus, allocation.batch_size), allocation.batch_size)
    return float(ratio * profile.slowdown(hardware) * profile.longest_run_s.max(initial=0.0))


def _node_startup_s(sized: SizedDeployment, deployments: Sequence[SizedDeployment], pool: Pool) -> float:
    """Return the time until a node has room for a further replica: 0 if one runs."""
    if not (pool.is_elastic and pool.node_startup_s):
        return 0.0
    free: dict[int, list[float]] = {}
    for other in deployments:
        for node in other.nodes if other.deployment.pool == pool.name else ():
            left = free.setdefault(node, list(pool.amounts))
            left[:] = map(sub, left, other.demand.amounts)
    fits = any(all(map(ge, left, sized.demand.amounts)) for left in free.values())
    return 0.0 if fits or len(free) < pool.base_nodes else pool.node_startup_s
