"""The engine that a workspace deploys on: local processes, or a Ray cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from circinus.serving import Engine
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.lease import ClusterLease
    from circinus.serving.ray.settings import RaySettings


def state_file_of(chosen: Path | None, run_dir: Path) -> Path:
    """Return the state file of an engine's controller: `chosen`, or the default beside the run directory."""
    return chosen or run_dir.with_name(f"{run_dir.name}-control.sqlite")


def current_controller(chosen: EngineOptions) -> str:
    """Return the controller that holds an engine's lease, as `process 12 on host`, or "" if none is visible.

    The controller of a local engine is visible only if it uses the default state file.
    """
    import time

    from circinus.control.state_store import ControlStateStore
    from circinus.errors import ServingError

    with suppress(ServingError):
        if chosen.kind == "ray":
            return chosen.ray_lease().holder()
        records = ControlStateStore.open_existing(state_file_of(None, chosen.run_dir))
        try:
            return records.holder(time.time())
        finally:
            records.close()
    return ""


EngineKind = Literal["local", "ray"]


@dataclass(frozen=True)
class EngineOptions:
    """Address of an engine: a run directory of this machine, or a Ray cluster."""

    kind: EngineKind
    run_dir: Path
    """Run directory of the local engine."""
    address: str
    """Address of the Ray cluster."""
    http: tuple[str, int] | None = None
    """HTTP entry (host, port) of a Ray cluster; see `RaySettings`."""

    def __str__(self) -> str:
        """Return the engine's name in messages."""
        return f"the engine in {self.run_dir}" if self.kind == "local" else f"the Ray cluster at {self.address}"

    @property
    def options(self) -> str:
        """Options that make another verb use this engine."""
        return "" if self.kind == "local" else f" --engine ray --address {self.address}"

    def ray(self) -> RayEngine:
        """Return the engine of the Ray cluster."""
        from circinus.serving.ray.engine import RayEngine

        return RayEngine(self._ray_settings())

    def ray_lease(self) -> ClusterLease:
        """Return the lease that one controller of the Ray cluster holds at a time."""
        from circinus.serving.ray.lease import ClusterLease

        return ClusterLease(self._ray_settings())

    def _ray_settings(self) -> RaySettings:
        from circinus.serving.ray.settings import RaySettings

        return RaySettings(address=self.address, http=self.http)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Engine]:
        """Connect to the running engine; it keeps running afterwards.

        Raises:
            ServingError: there is none.
        """
        from circinus.serving.local.client import connect

        engine = connect(self.run_dir) if self.kind == "local" else self.ray()
        try:
            yield engine
        finally:
            await engine.disconnect()
