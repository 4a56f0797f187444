"""The application of one site's router."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from circinus.errors import ServingError
from circinus.serving.engine import AuditBatch
from circinus.serving.pickled_response import PickledResponse
from circinus.serving.ray.dispatcher import ReplicaLostError
from circinus.serving.ray.http_ingress import HttpIngress
from circinus.serving.ray.router_protocol import RouterConfig, RouterMessage, RouterStatus, config_from_dict
from circinus.serving.ray.settings import REPLICA, ROUTER, router_name
from circinus.serving.ray.site_router import SiteRouterCore
from circinus.serving.replicas.replica_protocol import BatchItem, BatchResult, Payload

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class WarmupCalls:
    """Calls everybody once.

    The first call to a deployment of Ray Serve finds out where its replicas are and connects to one: some round trips
    to the cluster's head, which a request had better not wait for.
    """

    def __init__(self, call: Callable[[str], Awaitable[object]], patience_s: float) -> None:
        """Nobody was called yet.

        Args:
            call: calls one by name; may raise anything.
            patience_s: how long to wait for those that do not answer.
        """
        self._call = call
        self._patience_s = patience_s
        self._known: set[str] = set()

    async def make(self, names: Iterable[str]) -> None:
        """Call those that have never answered, all at once; who does not answer now is called again next time."""
        waiting = {asyncio.ensure_future(self._call(name)): name for name in set(names) - self._known}
        if not waiting:
            return
        await asyncio.wait(waiting, timeout=self._patience_s)
        for call in waiting:
            call.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        self._known |= {
            name for name, answer in zip(waiting.values(), ended, strict=True) if not isinstance(answer, BaseException)
        }


_FIRST_CALLS_S = 3.0
"""Less than who tells a router to switch waits for it."""


class SiteRouter:
    """`Switchboard` over Ray Serve, and the HTTP entry of its site."""

    def __init__(self, site: str) -> None:
        """Of a site; it knows no routes until it is configured."""
        self._site = site
        self._board: SiteRouterCore | None = None
        self._switches = 0
        self._entry: HttpIngress | None = None
        self._replicas, self._sites = ServeReplicaClient(), ServeRouterClient()
        self._replica_calls = WarmupCalls(self._replicas.greet, _FIRST_CALLS_S)
        self._site_calls = WarmupCalls(self._sites.greet, _FIRST_CALLS_S)

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Ray Serve: after a start, and when the configuration changed."""
        self._switches += 1
        self._switchboard().configure(config_from_dict(config))

    async def switch(self, config: RouterConfig) -> None:
        """The same for who cannot wait until Ray Serve comes to it, as soon as whoever is new was called once."""
        self._switches += 1
        number = self._switches
        await asyncio.gather(
            self._replica_calls.make(wanted.application for wanted in config.deployments),
            self._site_calls.make(config.peers),
        )
        if number == self._switches:  # what was told later is in force by then
            self._switchboard().configure(config)

    async def submit(
        self, query: str, item_key: str, value: bytes | None, input_bytes: float, left_s: float | None = None
    ) -> PickledResponse:
        """As `Switchboard.submit`."""
        return await self._switchboard().submit(query, item_key, value, input_bytes, left_s)

    async def __call__(self, request: Request) -> Response:
        """HTTP."""
        board = self._switchboard()
        if self._entry is None:
            self._entry = HttpIngress(board, asyncio.get_running_loop())
        return await self._entry.answer(request)

    async def warm_up(self) -> None:
        """Answer, and do nothing."""

    async def receive(self, parcel: RouterMessage) -> None:
        """As `Switchboard.receive`."""
        self._switchboard().receive(parcel)

    async def fail(self, number: str, reason: str) -> None:
        """As `Switchboard.fail`."""
        self._switchboard().fail(number, reason)

    async def abandon(self, applications: Sequence[str], why: str) -> None:
        """As `Switchboard.abandon`."""
        self._switchboard().fail_requests(applications, why)

    async def observe(self) -> RouterStatus:
        """As `Switchboard.observe`."""
        return self._switchboard().observe()

    async def drain_audits(self) -> AuditBatch:
        """As `Switchboard.audits`."""
        return self._switchboard().drain_audits()

    def _switchboard(self) -> SiteRouterCore:
        if self._board is None:
            prefix = f"{self._site}-{uuid.uuid4().hex[:12]}"
            self._board = SiteRouterCore(self._site, prefix, self._replicas, self._sites, asyncio.get_running_loop())
        return self._board


class _Handles:
    """Handles to the only deployment of each application, made when they are first needed."""

    def __init__(self, deployment: str) -> None:
        self._deployment = deployment
        self._known: dict[str, Any] = {}

    def __getitem__(self, application: str) -> Any:
        from ray import serve

        if application not in self._known:
            self._known[application] = serve.get_deployment_handle(self._deployment, app_name=application)
        return self._known[application]


class ServeReplicaClient:
    """`ReplicaCalls` through handles of Ray Serve."""

    def __init__(self) -> None:
        self._handles = _Handles(REPLICA)

    async def greet(self, application: str) -> None:
        """Call any replica of an application."""
        await self._handles[application].startup_s.remote()

    async def process(
        self, application: str, items: Sequence[BatchItem], payloads: Sequence[Payload]
    ) -> tuple[BatchResult, Sequence[Payload]]:
        """As `ReplicaCalls.process`."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            found: tuple[BatchResult, Sequence[Payload]] = await self._handles[application].process.remote(
                list(items), [bytes(packed) for packed in payloads]
            )
        except RayTaskError as error:  # it lives, and failed
            raise ServingError(str(getattr(error, "cause", error)), code="replica.failed") from error
        except (RayError, RayServeException) as error:
            raise ReplicaLostError(
                f"{type(error).__name__}: {str(error).strip().splitlines()[0]}", code="replica.lost"
            ) from error
        return found


class ServeRouterClient:
    """`SiteCalls` through handles of Ray Serve."""

    def __init__(self) -> None:
        self._handles = _Handles(ROUTER)

    async def greet(self, site: str) -> None:
        """Call the router of a site."""
        await self._handles[router_name(site)].warm_up.remote()

    async def deliver(self, site: str, parcel: RouterMessage) -> None:
        """As `SiteCalls.deliver`."""
        try:
            await self._handles[router_name(site)].receive.remote(parcel)
        except Exception as error:  # Ray's, Serve's and gRPC's have nothing in common
            raise ServingError(
                f"{type(error).__name__}: {error}", code="router.unreachable", location=f"site {site}"
            ) from error

    async def report(self, site: str, number: str, reason: str) -> None:
        """As `SiteCalls.report`."""
        with suppress(Exception):  # it fails there by its deadline
            await self._handles[router_name(site)].fail.remote(number, reason)


def build_router_application(args: Mapping[str, Any]) -> Any:
    """What Ray Serve builds from the arguments that `circinus.serving.ray.serve_config` writes."""
    from ray import serve

    return serve.deployment(SiteRouter, name=ROUTER).bind(args["site"])
