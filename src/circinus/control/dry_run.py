"""Engine adapter that observes a running engine without changing it."""

from __future__ import annotations

from dataclasses import replace

from circinus.errors import ServingError
from circinus.serving import DesiredState, Engine, EngineStatus, Request, Response
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import replica_keys


class DryRunEngine:
    """`Engine` that records applied states as if deployed, and otherwise reports the status of a running engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fingerprint = ""
        """Fingerprint of the state that would be deployed."""
        self.why = ""
        """Difference between the running and the desired state at the last apply."""

    async def apply(self, desired: DesiredState) -> None:
        """Record the desired state and describe its difference to the running one."""
        self.why = describe_state_diff(await self._engine.status(), desired)
        self._fingerprint = state_fingerprint(desired)

    async def submit(self, request: Request) -> Response:
        """Raise a ServingError; a dry run accepts no requests."""
        raise ServingError("a dry run accepts no requests", code="engine.dry_run")

    async def status(self) -> EngineStatus:
        """Return the status of the running engine, with the recorded state as the deployed one."""
        status = await self._engine.status()
        return replace(status, state=self._fingerprint or status.state)

    async def close(self) -> None:
        """Do nothing, because nothing was started."""


def describe_state_diff(status: EngineStatus, desired: DesiredState) -> str:
    """Return a description of the difference between the running and the desired state, given that they differ."""
    if not status.state:
        return "the engine runs nothing"
    current = replica_keys(entry.deployment for entry in status.deployments)
    target = replica_keys((entry.deployment for entry in desired.deployments), current)
    replicas = {current[entry.deployment]: entry.target_replicas for entry in status.deployments}
    desired_replicas = {target[entry.deployment]: entry.replicas for entry in desired.deployments}
    served, routed = {route.query for route in desired.routes}, set(status.routes)
    counts = (
        ("more replicas", sum(max(0, desired_replicas[d] - replicas.get(d, 0)) for d in desired_replicas)),
        ("fewer replicas", sum(max(0, replicas[d] - desired_replicas.get(d, 0)) for d in replicas)),
        ("more queries", len(served - routed)),
        ("fewer queries", len(routed - served)),
    )
    differences = [f"the engine runs in mode {status.mode}"] if status.mode is not desired.mode else []
    differences += [f"{count} {label}" for label, count in counts if count]
    return ", ".join(differences) or (
        "replicas and queries are equal; routing, admission, audits or code versions differ"
    )
