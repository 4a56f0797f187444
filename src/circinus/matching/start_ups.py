"""How long a further replica of a deployment takes to start, as profiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from circinus.matching.plan_set import SizedDeployment
from circinus.profiling import PipelineProfile
from circinus.spec import Infrastructure, KnobValues


def with_start_ups(
    deployments: Sequence[SizedDeployment], profiles: Mapping[str, PipelineProfile], infrastructure: Infrastructure
) -> tuple[SizedDeployment, ...]:
    """The deployments with the seconds that a further replica of each takes, by its operator, knobs and pool.

    Start-ups scale with the speed of a pool's hardware as service times do: with the one that it surely has.

    Args:
        deployments: as sized.
        profiles: pipeline name -> what was measured of it; a deployment that none tells of keeps what it says.
        infrastructure: the pools.
    """
    profiled: dict[tuple[str, str, KnobValues], float] = {}
    for name, profile in profiles.items():
        for configuration in profile.configurations:
            for operator, found in configuration.operators.items():
                key = name, operator, found.prefix[operator]
                if found.startup_s is not None:
                    profiled[key] = max(profiled.get(key, 0.0), found.startup_s)
    told = []
    for sized in deployments:
        deployment = sized.deployment
        startup_s = profiled.get((deployment.pipeline, deployment.operator, deployment.knobs))
        if startup_s is not None:
            speed = infrastructure.pool(deployment.pool).hardware.promised_speed
            sized = replace(sized, startup_s=startup_s / speed)
        told.append(sized)
    return tuple(told)
