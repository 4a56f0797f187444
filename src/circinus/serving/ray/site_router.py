"""Router of one site: its configuration and status, transport to other sites, and the replicas at its site."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextvars import Context
from dataclasses import dataclass
from operator import not_
from typing import Annotated, Any, Protocol

from pydantic import Field, TypeAdapter

from circinus.serving.engine import DeploymentStatus, DesiredDeployment, QueryStatus, SplitStatus
from circinus.serving.ray.application_replicas import ApplicationReplicas, ReplicaClient
from circinus.serving.router.compiled_route import CompiledRoute, RouteTransfer
from circinus.serving.router.request_messages import RequestContext, RouterMessage
from circinus.serving.router.router_core import UNREACHABLE, RouterCore


@dataclass(frozen=True)
class RouterConfig:
    """Configuration of the router of one site."""

    site: str
    mode: str
    state: str
    """`state_fingerprint` of the state in force."""
    deployments: Mapping[str, DesiredDeployment]
    """Deployments of the site by application."""
    routes: tuple[CompiledRoute, ...]
    """Routes of the queries whose source is this site; several parts of a split one, in their order."""
    peers: tuple[str, ...] = ()
    """Other sites that receive outputs of this one."""
    number: int = 0
    """Position in the order of the deployed configurations: each change has a larger number."""
    tokens: Annotated[str, Field(exclude_if=not_)] = ""
    """`HttpTokens.text` of the tokens that requests over HTTP need; empty if they need none."""

    @property
    def observed_applications(self) -> frozenset[str]:
        """Applications whose replicas the router needs to know: those of its site, and of its split routes."""
        split = (route.applications for route in self.routes if route.share < 1.0)
        return frozenset(self.deployments).union(*split)


@dataclass(frozen=True)
class RouterStatus:
    """Status of one router."""

    config: RouterConfig | None
    deployments: Mapping[str, DeploymentStatus]
    """Statuses by application, without what only Ray Serve knows: ready replicas and start-up times."""
    under_way: Mapping[str, int]
    """Application -> number of unanswered requests that entered here and may need it."""
    queries: tuple[QueryStatus, ...]
    """Counters of the queries whose requests enter here."""
    splits: tuple[SplitStatus, ...] = ()
    """Shares of the split routes that enter here."""


_CONFIG = TypeAdapter(RouterConfig)


def config_to_dict(config: RouterConfig) -> dict[str, Any]:
    """Encode a configuration for Ray Serve."""
    content: dict[str, Any] = _CONFIG.dump_python(config, mode="json")
    return content


def config_from_dict(content: Mapping[str, Any]) -> RouterConfig:
    """Decode a configuration; inverse of `config_to_dict`."""
    return _CONFIG.validate_python(content, strict=False)


class PeerClient(Protocol):
    """Client of the routers of other sites."""

    async def deliver(self, site: str, message: RouterMessage, age_s: float, padding: bytes) -> None:
        """Call `SiteRouterCore.accept` of another site.

        Args:
            site: the other site.
            message: the value.
            age_s: seconds since the request entered.
            padding: stands in for a value that a replay does not have, so that the transfer takes as long as recorded.

        Raises:
            ServingError: the router cannot be reached.
        """
        ...

    async def report(self, site: str, request_id: str, reason: str, code: str) -> None:
        """Report a failed request to the router where it entered; ignored if that router is gone."""
        ...


class SiteRouterCore(RouterCore):
    """`RouterCore` of one site, without Ray."""

    def __init__(
        self, site: str, prefix: str, replicas: ReplicaClient, peers: PeerClient, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Create a router without routes or deployments.

        Args:
            site: the site.
            prefix: as for `RouterCore`.
            replicas: transport of batches to replicas.
            peers: client of the other sites.
            loop: event loop of all calls.
        """
        super().__init__(prefix, loop)
        self._site = site
        self._client = replicas
        self._peers = peers
        self._config: RouterConfig | None = None
        self._replicas: dict[str, ApplicationReplicas] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reported: dict[str, float] = {}
        """Request of another site that ended here -> time of its deadline, oldest report first."""

    def configure(self, config: RouterConfig) -> None:
        """Set routes and deployments; requests in flight stay on the route that they carry."""
        self._config = config
        routes: dict[str, list[CompiledRoute]] = {}
        for route in config.routes:
            routes.setdefault(route.query, []).append(route)
        self.routes = routes
        self._missing &= config.observed_applications
        for name, target in config.deployments.items():
            if name in self._replicas:
                self._replicas[name].configure(target)
            else:
                self._replicas[name] = ApplicationReplicas(name, target, self._client, self._loop)
                self.dispatchers[name] = self._replicas[name].dispatcher
        for name in self._replicas.keys() - config.deployments.keys():
            if self._replicas[name].is_unused:
                del self._replicas[name], self.dispatchers[name]

    def accept(self, message: RouterMessage, age_s: float) -> None:
        """Receive a value from another site, whose clock differs.

        The time of the transfer is not added to the age, except for requests that entered here.
        """
        now_s = self._loop.time()
        request = self._requests.get(message.context.request_id)
        context = message.context._replace(entered_s=now_s - age_s if request is None else request.start_s)
        self.receive(message._replace(context=context), now_s)

    def observe(self) -> RouterStatus:
        """Return the status of the router."""
        return RouterStatus(
            config=self._config,
            deployments={name: replicas.status() for name, replicas in self._replicas.items()},
            under_way=self.under_way(),
            queries=self.counters.status(),
            splits=self.splits(),
        )

    def _transmit(self, transfer: RouteTransfer, message: RouterMessage, size_bytes: float, ready_s: float) -> None:
        padding = bytes(round(size_bytes)) if message.value is None else b""
        self._start(self._deliver(transfer.site, message, padding))

    def _is_entry(self, context: RequestContext) -> bool:
        return context.route.source == self._site

    def _has_ended(self, context: RequestContext) -> bool:
        return context.request_id in self._reported or super()._has_ended(context)

    def _sweep(self) -> None:
        super()._sweep()
        while self._reported and next(iter(self._reported.values())) < self._loop.time():
            del self._reported[next(iter(self._reported))]

    def _report(self, context: RequestContext, reason: str, code: str = "query.request_failed") -> None:
        if self._is_entry(context):
            self.fail(context.request_id, reason, code)
        elif context.request_id not in self._reported:
            self._reported[context.request_id] = context.expires_s
            self._sweep()
            self._start(self._peers.report(context.route.source, context.request_id, reason, code))

    async def _deliver(self, site: str, message: RouterMessage, padding: bytes) -> None:
        age_s = self._loop.time() - message.context.entered_s
        remaining_s = max(0.0, message.context.timeout_s - age_s)
        try:
            await asyncio.wait_for(self._peers.deliver(site, message, age_s, padding), remaining_s)
        except TimeoutError:
            self._report(message.context, f"transfer to site {site} timed out")
        except Exception as error:  # any failure must fail the request; otherwise its caller waits forever
            self._report(message.context, f"transfer to site {site} failed: {error}", UNREACHABLE)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # Own context: Ray Serve cancels tasks that were created in the context of a disconnected request.
        task = self._loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
