"""An engine that is looked at and not changed."""

from __future__ import annotations

from dataclasses import replace

from circinus.errors import ServingError
from circinus.serving import DesiredState, Engine, EngineStatus, Request, Response
from circinus.serving.state_file import desired_fingerprint


class DryEngine:
    """`Engine` that takes what it is told for done, and tells what another one runs."""

    def __init__(self, engine: Engine) -> None:
        """One that runs."""
        self._engine = engine
        self._told = ""
        """Fingerprint of the state that would be in force."""

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`, in words only."""
        self._told = desired_fingerprint(desired)

    async def submit(self, request: Request) -> Response:
        """Nobody may."""
        raise ServingError("an engine that is only looked at takes no requests")

    async def status(self) -> EngineStatus:
        """As `Engine.status`, as if what was told were in force."""
        status = await self._engine.status()
        return replace(status, state=self._told or status.state)

    async def close(self) -> None:
        """Nothing was started."""
