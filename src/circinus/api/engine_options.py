"""Which engine a verb speaks to."""

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


def current_controller(chosen: EngineOptions) -> str:
    """Who controls an engine, as `process 12 on host`; empty: nobody that can be seen from here.

    That of the local engine is known by the file beside its folder, unless the controller was told to use another one.
    """
    import time

    from circinus.cli.options import records_file
    from circinus.control.state_store import ControlStateStore
    from circinus.errors import ServingError

    with suppress(ServingError):
        if chosen.kind == "ray":
            return chosen.ray_lease().holder()
        records = ControlStateStore.open_existing(records_file(None, chosen.run_dir))
        try:
            return records.holder(time.time())
        finally:
            records.close()
    return ""


def warn_of_controller(chosen: EngineOptions) -> None:
    """Say on standard error that a change will not last, where somebody else keeps the engine at something."""
    from circinus.cli.output import progress_console

    holder = current_controller(chosen)
    if holder:
        words = f"{holder} (circinus serve) controls {chosen} and brings back what it decided; end it first"
        progress_console().print(words, style="yellow", highlight=False)


EngineKind = Literal["local", "ray"]


@dataclass(frozen=True)
class EngineOptions:
    """The engine of this machine, or of a Ray cluster."""

    kind: EngineKind
    run_dir: Path
    """Of the local engine."""
    address: str
    """Of the Ray cluster."""
    http: tuple[str, int] | None = None
    """As of `RaySettings`."""

    def __str__(self) -> str:
        """Where it is, for messages."""
        return f"the engine in {self.run_dir}" if self.kind == "local" else f"the Ray cluster at {self.address}"

    @property
    def options(self) -> str:
        """What makes another verb speak to it, too."""
        return "" if self.kind == "local" else f" --engine ray --address {self.address}"

    def ray(self) -> RayEngine:
        """The engine of the Ray cluster."""
        from circinus.serving.ray.engine import RayEngine

        return RayEngine(self._ray_settings())

    def ray_lease(self) -> ClusterLease:
        """What one controller of the Ray cluster has at a time."""
        from circinus.serving.ray.lease import ClusterLease

        return ClusterLease(self._ray_settings())

    def _ray_settings(self) -> RaySettings:
        from circinus.serving.ray.settings import RaySettings

        return RaySettings(address=self.address, http=self.http)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Engine]:
        """The engine that runs; it goes on running afterwards.

        Raises:
            ServingError: there is none.
        """
        from circinus.serving.local.client import connect

        engine = connect(self.run_dir) if self.kind == "local" else self.ray()
        try:
            yield engine
        finally:
            await engine.disconnect()
