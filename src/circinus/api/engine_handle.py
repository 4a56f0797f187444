"""The engine that a workspace deploys on: local processes, or a Ray cluster.

Every workspace has a handle, therefore engines and state stores are imported where they are used.
"""

from __future__ import annotations

import re
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from circinus.api.defaults import DEFAULT_ADDRESS, EngineKind, HttpAddress
from circinus.api.quantities import choice, count, listen_address
from circinus.api.synchronous import outside_loop, run
from circinus.errors import CircinusError, ProfileError, ServingError
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    from circinus.control.state_store import Event
    from circinus.serving import EngineStatus
    from circinus.serving.http_tokens import HttpTokens
    from circinus.serving.local.client import LocalEngineClient
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.lease import ClusterLease
    from circinus.serving.ray.profiling_targets import ProfilingTargets
    from circinus.serving.ray.settings import RaySettings
    from circinus.specification import Specification

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class EngineHandle(ABC):
    """Handle of an engine, by the run directory of this machine or the address of a Ray cluster.

    Each kind of engine is a subclass, listed in `EngineKind`.

    Example:
        >>> workspace.engine.kind
        'local'
        >>> with workspace.deploy(plan, mode="replay"):
        ...     workspace.engine.status().healthy
        True
        >>> workspace.engine.close()  # the `with` block has ended it already
        False
    """

    kind: ClassVar[EngineKind]
    on_this_machine: ClassVar[bool]
    """True if this machine stands for all pools, and so must have their capacity."""

    run_dir: Path = DEFAULT_RUN_FOLDER
    """Run directory of the local engine; the controllers of all engines keep their state beside it."""
    address: str = DEFAULT_ADDRESS
    """Address of the Ray cluster."""
    http: HttpAddress = None
    """Address for HTTP requests: of the local engine, or of every node of a Ray cluster."""
    http_tokens: Path | None = None
    """File with the tokens of HTTP requests, instead of the environment variable `CIRCINUS_HTTP_TOKENS`."""

    @staticmethod
    def of(
        kind: str,
        run_dir: Path = DEFAULT_RUN_FOLDER,
        address: str = DEFAULT_ADDRESS,
        http: HttpAddress = None,
        http_tokens: Path | None = None,
    ) -> EngineHandle:
        """Return the handle of an engine of a kind.

        Raises:
            CircinusError: there is no such kind.
        """
        kinds: dict[str, type[EngineHandle]] = {handle.kind: handle for handle in EngineHandle.__subclasses__()}
        if http is False and kind == "ray":
            raise CircinusError(
                "Ray Serve always takes requests over HTTP",
                code="engine.http_on_ray",
                hint="Use --no-http with the local engine only.",
            )
        if http is not None and http is not False:
            listen_address(http, "http")
        return kinds[choice(kind, "engine", kinds)](run_dir, address, http, http_tokens)

    @property
    @abstractmethod
    def place(self) -> Mapping[str, object]:
        """Name of the option that tells this engine from others of its kind, and its value."""

    @property
    @abstractmethod
    def options(self) -> str:
        """Command-line options that make another verb use this engine."""

    @abstractmethod
    def client(self) -> LocalEngineClient | RayEngine:
        """Return the engine, which connects at the first call."""

    def start(self, tokens: HttpTokens | None = None) -> bool:
        """Start the engine if none runs, with the address and tokens of this handle; a running one takes these over.

        Args:
            tokens: tokens that HTTP requests to a started engine need if none are given otherwise.

        Returns:
            True if it was started and nothing is lost if it is closed again; False if it ran already or kept the tokens
            of a killed one, and on a cluster, which is never started.

        Raises:
            ServingError: it does not start.
        """
        return False

    @abstractmethod
    def close(self, on_kill: Callable[[int], None] = lambda process: None) -> bool:
        """End the engine and everything that it started, and return whether there was one.

        A local engine that does not respond is killed. On Ray, what Circinus runs on the cluster ends, and the cluster
        stays.

        Args:
            on_kill: called with the process id of an engine that was killed.

        Raises:
            ServingError: the engine does not end.
        """

    @property
    def process(self) -> int | None:
        """Id of the engine's process on this machine, if there is one."""
        return None

    def lease(self) -> ClusterLease | None:
        """Return the lease that one controller of the engine holds at a time; None: that of its state file."""
        return None

    def required_tokens(self) -> HttpTokens | None:
        """Return the tokens that HTTP requests are to need, by file or environment; None: those in force, if any.

        Raises:
            ServingError: they cannot be read, other users may read them, or a line is malformed.
        """
        from circinus.serving.http_tokens import HttpTokens

        return HttpTokens.given(self.http_tokens)

    @abstractmethod
    def deployed_http(self) -> tuple[tuple[str, int] | None, HttpTokens]:
        """Return the address (host, port) of HTTP requests, and the tokens that they need.

        Raises:
            ServingError: there is no such cluster, or the tokens cannot be read.
        """

    def http_tokens_in_force(self) -> HttpTokens:
        """Return the tokens that HTTP requests need once the engine was started."""
        required = self.required_tokens()
        return self.deployed_http()[1] if required is None else required

    def warnings(self, metrics: tuple[str, int] | None = None) -> tuple[str, ...]:
        """Return a warning for each address at which other machines need no token.

        Args:
            metrics: address of metrics.
        """
        from circinus.serving.http_answers import address_text, is_loopback

        address, tokens = self.deployed_http()
        if self.http is not None:
            address = self.http or None
        if self.required_tokens() or tokens:
            return ()
        uses = {"send requests to every query": address, "read the metrics": metrics}
        return tuple(
            f"every machine that reaches {address_text(*used)} may {use}, without a token. Pass --http-tokens FILE, or "
            "listen on 127.0.0.1."
            for use, used in uses.items()
            if used is not None and not is_loopback(used[0])
        )

    @abstractmethod
    def one_load_test(self) -> AbstractContextManager[None]:
        """Return a context that only one load test of the running engine is in at a time.

        Entering raises a ServingError if another load test runs.
        """

    def profiling_targets(self, specification: Specification, *, declared_speeds: bool) -> ProfilingTargets | None:
        """Return a node of each hardware class to profile on; None: this machine.

        Raises:
            ProfileError: a hardware class has no living node.
            ServingError: there is no such cluster.
        """
        return None

    def status(self) -> EngineStatus:
        """Return the engine's status: deployments, replicas and counters.

        Raises:
            ServingError: no engine runs.
        """

        async def ask() -> EngineStatus:
            async with self.connected() as engine:
                return await engine.status()

        return run(ask)

    def controller(self) -> str:
        """Return the controller that holds the engine's lease, as `process 12 on host`, or "" if none is visible.

        The controller of a local engine is visible only if it uses the default state file.
        """
        from circinus.control.state_store import ControlStateStore

        with suppress(ServingError):
            if (lease := self.lease()) is not None:
                return lease.holder()
            with closing(ControlStateStore.open_existing(self.state_file)) as store:
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
        from circinus.api.engine_events import select_events
        from circinus.control.state_store import ControlStateStore, EventKind

        kind = None if kind is None else choice(kind, "kind", tuple(EventKind))
        with closing(ControlStateStore.open_existing(state_file or self.state_file)) as store:
            yield from select_events(store, count(last, "last"), kind, follow=follow)

    @property
    @abstractmethod
    def state_file(self) -> Path:
        """State file of the engine's controller, unless another was chosen."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[LocalEngineClient | RayEngine]:
        """Connect to the running engine; it keeps running afterwards. Calls raise a ServingError if there is none."""
        engine = self.client()
        try:
            yield engine
        finally:
            await engine.disconnect()


class LocalHandle(EngineHandle):
    """Handle of the engine in a run directory of this machine."""

    kind = "local"
    on_this_machine = True

    def __str__(self) -> str:
        return f"the engine in {self.run_dir}"

    @property
    def place(self) -> Mapping[str, object]:
        return {"run_dir": self.run_dir}

    @property
    def options(self) -> str:
        return "" if self.run_dir == DEFAULT_RUN_FOLDER else f" --run-dir {shlex.quote(str(self.run_dir))}"

    def client(self) -> LocalEngineClient:
        from circinus.serving.local.client import LocalEngineClient

        return LocalEngineClient(self.run_dir)

    def start(self, tokens: HttpTokens | None = None) -> bool:
        from circinus.serving.engine import ENGINE_ENDED
        from circinus.serving.local.client import start_daemon
        from circinus.serving.local.run_dir import RunDirectory

        required = self.required_tokens()
        try:
            self.status()  # an engine that does not respond is not joined
            if self.http is not None or required is not None:
                self._set_http(required, self.http)
            return False
        except ServingError as error:
            if error.code not in ENGINE_ENDED:
                raise
        kept = RunDirectory(self.run_dir).http_tokens()
        start_daemon(self.run_dir)
        try:
            tokens = required or kept or tokens or None
            self._set_http(tokens, (_LOOPBACK, 0) if self.http is None else self.http)
        except ServingError:
            if not kept:
                self.close()
            raise
        return not kept  # the end of the engine would forget the tokens of a killed one

    def _set_http(self, tokens: HttpTokens | None, address: HttpAddress) -> None:
        """Set the tokens and then the address, as far as there are new ones."""

        async def listen() -> None:
            client = self.client()
            try:
                if tokens is not None:
                    await client.require_tokens(tokens)
                if address is not None:
                    await client.listen_http(address or None)
            finally:
                await client.disconnect()

        run(listen)

    def deployed_http(self) -> tuple[tuple[str, int] | None, HttpTokens]:
        from circinus.serving.local.run_dir import RunDirectory

        folder = RunDirectory(self.run_dir)
        address = folder.http_address() if folder.is_reachable() else None  # a new engine prefers this machine only
        return address, folder.http_tokens()

    def close(self, on_kill: Callable[[int], None] = lambda process: None) -> bool:
        from circinus.serving.local.client import destroy

        return outside_loop(lambda: destroy(self.run_dir, on_kill))

    @property
    def process(self) -> int | None:
        from circinus.serving.local.run_dir import RunDirectory

        return RunDirectory(self.run_dir).process()

    def one_load_test(self) -> AbstractContextManager[None]:
        from circinus.serving.local.run_dir import RunDirectory

        return RunDirectory(self.run_dir).one_load_test()

    @property
    def state_file(self) -> Path:
        return self.run_dir.with_name(f"{self.run_dir.name}-control.sqlite")


class RayHandle(EngineHandle):
    """Handle of the engine on a Ray cluster."""

    kind = "ray"
    on_this_machine = False

    def __str__(self) -> str:
        return f"the engine on the Ray cluster at {self.address}"

    @property
    def place(self) -> Mapping[str, object]:
        return {"address": self.address}

    @property
    def options(self) -> str:
        return f" --engine ray --address {shlex.quote(self.address)}"

    def client(self) -> RayEngine:
        from circinus.serving.ray.engine import RayEngine

        return RayEngine(replace(self._settings, tokens=self.required_tokens()))

    def deployed_http(self) -> tuple[tuple[str, int] | None, HttpTokens]:
        from circinus.serving.ray.cluster_observer import deployed_http

        return deployed_http(self._settings)

    def close(self, on_kill: Callable[[int], None] = lambda process: None) -> bool:
        run(self.client().close)
        return True

    def warnings(self, metrics: tuple[str, int] | None = None) -> tuple[str, ...]:
        from circinus.serving.ray.ray_connection import answers_strangers

        warnings = super().warnings(metrics)
        if not answers_strangers(self.address):
            return warnings
        return (
            *warnings,
            "the Ray cluster takes calls without a token, so whoever reaches a port of its nodes can run code there. "
            "Start Ray with RAY_AUTH_MODE=token, or see docs/security.md",
        )

    def lease(self) -> ClusterLease:
        from circinus.serving.ray.lease import ClusterLease

        return ClusterLease(self._settings)

    def one_load_test(self) -> AbstractContextManager[None]:
        from circinus.serving.ray.load_test_lock import one_load_test

        return one_load_test(self._settings)

    def profiling_targets(self, specification: Specification, *, declared_speeds: bool) -> ProfilingTargets:
        from circinus.serving.ray.cluster import Cluster
        from circinus.serving.ray.profiling_targets import find_profiling_targets

        if specification.infrastructure is None:
            raise ProfileError(
                "profiling on Ray measures the hardware of an infrastructure, and the specification has none",
                code="profile.no_infrastructure",
                hint="Add a document of kind Infrastructure.",
            )
        return find_profiling_targets(
            Cluster(self._settings),
            self.address,
            specification.infrastructure,
            specification.module_paths,
            declared_speeds=declared_speeds,
        )

    @property
    def state_file(self) -> Path:
        cluster = re.sub(r"\W+", "-", self.address)
        return self.run_dir.with_name(f"ray-{cluster.removeprefix('ray-')}-control.sqlite")

    @property
    def _settings(self) -> RaySettings:
        from circinus.serving.ray.settings import RaySettings

        return RaySettings(address=self.address, http=self.http or None)
