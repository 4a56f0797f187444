"""How long a further replica of a deployment takes to start, and how fast it is, as profiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from circinus.matching.plan_set import SizedDeployment
from circinus.profiling import OperatorProfile, PipelineProfile
from circinus.spec import Infrastructure, KnobValues


def add_startup_times(
    deployments: Sequence[SizedDeployment], profiles: Mapping[str, PipelineProfile], infrastructure: Infrastructure
) -> tuple[SizedDeployment, ...]:
    """The deployments with the seconds that a further replica of each takes, by its operator, knobs and pool, and with
    its speed where that was measured.

    Start-ups that were not measured on a pool's hardware scale with its speed as service times do: with the one that it
    surely has.

    Args:
        deployments: as sized.
        profiles: pipeline name -> what was measured of it; a deployment that none tells of keeps what it says.
        infrastructure: the pools.
    """
    profiled: dict[tuple[str, str, KnobValues], dict[int, OperatorProfile]] = {}
    for name, profile in profiles.items():
        for configuration in profile.configurations:
            for operator, found in configuration.operators.items():
                profiled.setdefault((name, operator, found.prefix[operator]), {})[id(found)] = found
    told = []
    for sized in deployments:
        deployment = sized.deployment
        alike = profiled.get((deployment.pipeline, deployment.operator, deployment.knobs), {}).values()
        hardware = infrastructure.pool(deployment.pool).hardware
        start_ups_s = [startup_s for found in alike if (startup_s := found.startup_on(hardware)) is not None]
        if start_ups_s:
            sized = replace(sized, startup_s=max(start_ups_s))
        speeds = [found.speeds.expected(hardware) for found in alike if hardware.name in found.speeds.measured]
        if speeds:
            # Rounded: a deployment that is said to be another one starts its replicas anew.
            sized = replace(sized, relative_speed=float(f"{min(speeds):.3g}"))
        told.append(sized)
    return tuple(told)
