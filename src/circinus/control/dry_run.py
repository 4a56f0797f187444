"""An engine that is looked at and not changed."""

from __future__ import annotations

from dataclasses import replace

from circinus.errors import ServingError
from circinus.serving import DesiredState, Engine, EngineStatus, Request, Response
from circinus.serving.state_serialization import state_fingerprint


class DryRunEngine:
    """`Engine` that takes what it is told for done, and tells what another one runs."""

    def __init__(self, engine: Engine) -> None:
        """One that runs."""
        self._engine = engine
        self._told = ""
        """Fingerprint of the state that would be in force."""
        self.why = ""
        """What differed the last time that it was told to apply something."""

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`, in words only."""
        self.why = describe_state_diff(await self._engine.status(), desired)
        self._told = state_fingerprint(desired)

    async def submit(self, request: Request) -> Response:
        """Nobody may."""
        raise ServingError("a dry run takes no requests", code="engine.dry_run")

    async def status(self) -> EngineStatus:
        """As `Engine.status`, as if what was told were in force."""
        status = await self._engine.status()
        return replace(status, state=self._told or status.state)

    async def close(self) -> None:
        """Nothing was started."""


def describe_state_diff(status: EngineStatus, desired: DesiredState) -> str:
    """How what runs differs from what shall, in words, given that it does."""
    if not status.state:
        return "it runs nothing"
    runs = {found.deployment: found.replicas_wanted for found in status.deployments}
    wanted = {one.deployment: one.replicas for one in desired.deployments}
    asked, routed = {route.query for route in desired.routes}, set(status.routes)
    counts = (
        ("more replicas", sum(max(0, wanted[d] - runs.get(d, 0)) for d in wanted)),
        ("fewer replicas", sum(max(0, runs[d] - wanted.get(d, 0)) for d in runs)),
        ("more queries", len(asked - routed)),
        ("fewer queries", len(routed - asked)),
    )
    words = [f"it runs in mode {status.mode}"] if status.mode is not desired.mode else []
    words += [f"{count} {what}" for what, count in counts if count]
    return ", ".join(words) or (
        "it has the same replicas and queries; only how requests are routed, let in or audited differs, or the code"
    )
