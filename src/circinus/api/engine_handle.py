"""The engine that a workspace deploys on: local processes, or a Ray cluster.

Every workspace has a handle, therefore engines and state stores are imported where they are used.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circinus.api.defaults import DEFAULT_ADDRESS
from circinus.api.synchronous import outside_loop, run
from circinus.errors import ServingError
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    from circinus.control.state_store import ControlStateStore, Event
    from circinus.serving import Engine, EngineStatus
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.lease import ClusterLease
    from circinus.serving.ray.settings import RaySettings

_POLLING_S = 0.5
EngineKind = Literal["local", "ray"]


@dataclass(frozen=True)
class EngineHandle:
    """Handle of an engine, by the run directory of this machine or the address of a Ray cluster.

    Example:
        >>> workspace.engine.kind
        'local'
        >>> with workspace.deploy(plan, mode="replay"):
        ...     workspace.engine.status().healthy
        True
        >>> workspace.engine.close()  # the `with` block has ended it already
        False
    """

    kind: EngineKind = "local"
    run_dir: Path = DEFAULT_RUN_FOLDER
    """Run directory of the local engine."""
    address: str = DEFAULT_ADDRESS
    """Address of the Ray cluster."""
    http: tuple[str, int] | None = None
    """HTTP entry (host, port) of a Ray cluster; see `RaySettings`."""

    def __str__(self) -> str:
        """Return the engine's name in messages."""
        return f"the engine in {self.run_dir}" if self.kind == "local" else f"the Ray cluster at {self.address}"

    @property
    def options(self) -> str:
        """Command-line options that make another verb use this engine."""
        if self.kind == "ray":
            return f" --engine ray --address {shlex.quote(self.address)}"
        return "" if self.run_dir == DEFAULT_RUN_FOLDER else f" --run-dir {shlex.quote(str(self.run_dir))}"

    def status(self) -> EngineStatus:
        """Return the engine's status: deployments, replicas and counters.

        Raises:
            ServingError: no engine runs.
        """

        async def ask() -> EngineStatus:
            async with self.connected() as engine:
                return await engine.status()

        return run(ask)

    def close(self) -> bool:
        """End the engine and everything that it started, and return whether there was one.

        On Ray, what Circinus runs on the cluster ends, and the cluster stays.
        """
        from circinus.serving.local.client import destroy

        if self.kind == "ray":
            run(self.ray().close)
            return True
        return outside_loop(lambda: destroy(self.run_dir))

    def controller(self) -> str:
        """Return the controller that holds the engine's lease, as `process 12 on host`, or "" if none is visible.

        The controller of a local engine is visible only if it uses the default state file.
        """
        from circinus.control.state_store import ControlStateStore

        with suppress(ServingError):
            if self.kind == "ray":
                return self.ray_lease().holder()
            with closing(ControlStateStore.open_existing(self.state_file())) as store:
                return store.holder(time.time())
        return ""

    def events(
        self, *, last: int = 20, kind: str | None = None, follow: bool = False, state_file: Path | None = None
    ) -> Iterator[Event]:
        """Yield events of the engine's controller: the last ones, and then new ones.

        Args:
            last: number of past events.
            kind: kind of the events to yield, such as `replan`; by default all.
            follow: whether to wait for new events, without end.
            state_file: state file of the controller; by default beside the run directory.

        Raises:
            ServingError: there is no state file.
        """
        from circinus.control.state_store import ControlStateStore

        with closing(ControlStateStore.open_existing(self.state_file(state_file))) as store:
            yield from select_events(store, last, kind, follow=follow)

    def state_file(self, chosen: Path | None = None) -> Path:
        """Return the state file of the engine's controller: `chosen`, or the default beside the run directory."""
        return chosen or self.run_dir.with_name(f"{self.run_dir.name}-control.sqlite")

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


def select_events(store: ControlStateStore, last: int, kind: str | None, *, follow: bool) -> Iterator[Event]:
    """Yield the last events of a state store and, if they are followed, each later event once, without end.

    Args:
        store: state store of a controller.
        last: number of past events.
        kind: kind of the events to yield; None: all.
        follow: whether to wait for new events.
    """
    number = store.newest()  # read first, so that events added during the loop follow it
    for event in store.last(last, kind):
        number = max(number, event.number)
        yield event
    while follow:
        for event in store.events(number):
            number = event.number
            if kind in (None, event.kind):
                yield event
        time.sleep(_POLLING_S)
