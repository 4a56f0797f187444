"""Applications that run the deployments of a desired state; interchangeable replicas have the same name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pydantic import TypeAdapter

from circinus.serving.engine import DesiredDeployment, DesiredState, Mode
from circinus.serving.replicas.replica_protocol import ReplicaSpec
from circinus.specification import Deployment, ReplicaKey, replica_keys

_DEPLOYMENT = TypeAdapter(DesiredDeployment)
_NUMBER = re.compile(r"-n(\d+)$")
"""Number of the replicas in the name of an application, which otherwise ends in a hexadecimal digest."""


@dataclass(frozen=True)
class Application:
    """Application of one deployment."""

    name: str
    target: DesiredDeployment
    spec: ReplicaSpec


def build_applications(
    desired: DesiredState, running: Mapping[str, Deployment] = MappingProxyType({}), *, emulate_speeds: bool = True
) -> tuple[Application, ...]:
    """Return an application for each deployment, named by what its replicas depend on and the batches they get.

    The number of replicas, their memory, the batch wait, the batch limit and the utilization target change in place.

    Args:
        desired: the desired state.
        running: name -> deployment of the applications that run.
        emulate_speeds: whether computing replicas emulate the speed of their pool's hardware; otherwise a changed speed
            is no reason to replace them.
    """
    applications, before = list[Application](), dict[Deployment, ReplicaKey]()
    for name, deployment in running.items():
        suffix = _NUMBER.search(name)
        ((kind, _),) = replica_keys([deployment]).values()
        before[deployment] = kind, int(suffix[1]) if suffix else 0
    keys = replica_keys((target.deployment for target in desired.deployments), before)
    for target in desired.deployments:
        deployment, replays = target.deployment, desired.mode is Mode.REPLAY
        speed = target.relative_speed if replays or emulate_speeds else 1.0
        ratio = target.batch_ratio if replays else ()
        in_use = replace(target, relative_speed=speed, batch_ratio=ratio)
        kind, number = keys[deployment]
        normalized = replace(
            in_use, deployment=kind, replicas=0, memory_bytes=0.0, batch_wait_s=0.0, batch_limit_s=None
        )
        paths = [str(path) for path in (*desired.module_paths, desired.recordings)]
        fields = _DEPLOYMENT.dump_python(normalized, mode="json", exclude={"is_spread"})
        identity = json.dumps([desired.mode, paths, fields], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
        label = re.sub(r"[^A-Za-z0-9]+", "-", f"{deployment.operator}-{deployment.pool}").strip("-")
        spec = ReplicaSpec(
            name=deployment.name,
            replays=replays,
            uses=target.uses,
            operator_version=target.operator_version,
            knobs=deployment.knobs.as_dict(),
            cpus=target.cpus,
            relative_speed=speed,
            batch_ratio=ratio,
            module_paths=desired.module_paths,
            emission=target.emission,
        )
        name = f"{label}-{digest}-n{number}" if number else f"{label}-{digest}"
        applications.append(Application(name, target, spec))
    return tuple(applications)
