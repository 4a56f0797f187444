"""Ray Serve application of a site's router."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from circinus.errors import ServingError
from circinus.operators.pickling import Payload
from circinus.serving.engine import AuditBatch
from circinus.serving.http_answers import HttpRefusalError, require_local_site
from circinus.serving.http_requests import HttpRequests
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.application_replicas import ReplicaLostError
from circinus.serving.ray.replica_presence import observers
from circinus.serving.ray.settings import REPLICA, ROUTER, router_name
from circinus.serving.ray.site_router import RouterConfig, RouterStatus, SiteRouterCore, config_from_dict
from circinus.serving.replicas.replica_protocol import BatchItem, BatchResult
from circinus.serving.router.request_messages import PickledResponse, RouterMessage
from circinus.serving.settings import SERVING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


class WarmupCalls:
    """Warm-up of Ray Serve handles, so that requests do not pay for replica discovery.

    The first call of a deployment looks up its replicas and connects to one, which takes several round trips to the
    head.
    """

    def __init__(self, call: Callable[[str], Awaitable[object]], timeout_s: float) -> None:
        """Start without warm handles.

        Args:
            call: calls an application by name; may raise any error.
            timeout_s: timeout.
        """
        self._call = call
        self._timeout_s = timeout_s
        self._warm: set[str] = set()

    async def make(self, names: Iterable[str]) -> None:
        """Call the applications that never responded, concurrently; failed ones are called again next time."""
        calls = {asyncio.ensure_future(self._call(name)): name for name in set(names) - self._warm}
        if not calls:
            return
        await asyncio.wait(calls, timeout=self._timeout_s)
        for call in calls:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        self._warm |= {
            name for name, result in zip(calls.values(), results, strict=True) if not isinstance(result, BaseException)
        }


_WARMUP_S = 3.0
"""Shorter than the timeout of a router's `switch`."""


class SiteRouter:
    """`SiteRouterCore` over Ray Serve, and the HTTP ingress of its site."""

    def __init__(self, site: str) -> None:
        """Create a router without routes, until it is configured."""
        self._site = site
        self._switches = 0
        self._number = 0
        """Number of the latest configuration, also while a switch to it waits for warm-up calls."""
        self._replicas, self._sites = ServeReplicaClient(), ServePeerClient()
        self._replica_calls = WarmupCalls(self._replicas.greet, _WARMUP_S)
        self._site_calls = WarmupCalls(self._sites.greet, _WARMUP_S)
        self._calls: set[asyncio.Future[None]] = set()

    @cached_property
    def _core(self) -> SiteRouterCore:
        prefix = f"{self._site}-{uuid.uuid4().hex[:12]}"
        loop = asyncio.get_running_loop()
        core = SiteRouterCore(self._site, prefix, self._replicas, self._sites, loop)
        observers.append(lambda *presence: loop.call_soon_threadsafe(core.set_presence, *presence))
        return core

    @cached_property
    def _http(self) -> HttpRequests:
        return HttpRequests(self._core, asyncio.get_running_loop())

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Apply a configuration from Ray Serve, after a start or a change.

        Ray Serve may deliver it after a switch to the configuration of the next change; then it is ignored, unless it
        is of a manifest, which has number 0.
        """
        delivered = config_from_dict(config)
        if delivered.number == 0 or delivered.number >= self._number:
            self._switches += 1
            self._number = delivered.number
            self._configure(delivered)
            if delivered.observed_applications > delivered.deployments.keys():
                # Handles report an application's replicas once it was called.
                calls = asyncio.ensure_future(self._replica_calls.make(delivered.observed_applications))
                self._calls.add(calls)
                calls.add_done_callback(self._calls.discard)

    async def switch(self, config: RouterConfig) -> None:
        """Apply a configuration at once, after warm-up calls of its new applications and peers."""
        self._switches += 1
        switch, self._number = self._switches, config.number
        await asyncio.gather(
            self._replica_calls.make(config.observed_applications),
            self._site_calls.make(config.peers),
        )
        if switch == self._switches:  # a later switch is already in force
            self._configure(config)

    def _configure(self, config: RouterConfig) -> None:
        self._http.tokens = HttpTokens.parse(config.tokens, f"site {config.site}") if config.tokens else HttpTokens()
        self._core.configure(config)

    async def submit(self, query: str, item_key: str, value: bytes | None, input_bytes: float) -> PickledResponse:
        """Forward to `SiteRouterCore.submit`."""
        return await self._core.submit(query, item_key, value, input_bytes, SERVING.default_deadline_s)

    async def __call__(self, request: Request) -> Response:
        """Handle an HTTP request."""
        from starlette.responses import Response

        try:
            require_local_site(request.headers)
            answer = await self._http.answer(request.method, request.url.path, request.headers, request.stream)
        except HttpRefusalError as error:
            answer = error.answer
        headers = {**answer.headers, "content-type": answer.content_type}
        return Response(answer.body, status_code=answer.status, headers=headers)

    async def warm_up(self) -> None:
        """Respond without any effect."""

    async def accept(self, message: RouterMessage, age_s: float, padding: bytes) -> None:
        """Forward to `SiteRouterCore.accept`."""
        self._core.accept(message, age_s)

    async def fail(self, request_id: str, reason: str, code: str) -> None:
        """Forward to `SiteRouterCore.fail`."""
        self._core.fail(request_id, reason, code)

    async def abandon(self, applications: Sequence[str] | None, reason: str) -> None:
        """Forward to `SiteRouterCore.fail_requests`."""
        self._core.fail_requests(applications, reason)

    async def observe(self) -> RouterStatus:
        """Forward to `SiteRouterCore.observe`."""
        return self._core.observe()

    async def drain_audits(self) -> AuditBatch:
        """Implement `AuditableEngine.drain_audits` for requests that entered here."""
        return self._core.audits.drain()


@cache
def _handle(deployment: str, application: str) -> Any:
    """Return the handle of this process to the only deployment of an application."""
    from ray import serve

    return serve.get_deployment_handle(deployment, app_name=application)


class ServeReplicaClient:
    """`ReplicaClient` over handles of Ray Serve."""

    async def greet(self, application: str) -> None:
        """Call any replica of an application."""
        await _handle(REPLICA, application).ready.remote()

    async def process(
        self, application: str, items: Sequence[BatchItem], payloads: Sequence[Payload], limit_s: float | None
    ) -> tuple[BatchResult, Sequence[Payload]]:
        """Implement `ReplicaClient.process`."""
        from ray.exceptions import RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        try:
            response: tuple[BatchResult, Sequence[Payload]] = await _handle(REPLICA, application).process.remote(
                list(items), [bytes(packed) for packed in payloads], limit_s
            )
        except RayTaskError as error:  # the replica is alive, but failed
            raise ServingError(str(getattr(error, "cause", error)), code="replica.failed") from error
        except (RayError, RayServeException) as error:
            raise ReplicaLostError(
                f"{type(error).__name__}: {str(error).strip().splitlines()[0]}", code="replica.lost"
            ) from error
        return response


class ServePeerClient:
    """`PeerClient` over handles of Ray Serve."""

    async def greet(self, site: str) -> None:
        """Call the router of a site."""
        await _handle(ROUTER, router_name(site)).warm_up.remote()

    async def deliver(self, site: str, message: RouterMessage, age_s: float, padding: bytes) -> None:
        """Implement `PeerClient.deliver`."""
        try:
            await _handle(ROUTER, router_name(site)).accept.remote(message, age_s, padding)
        except Exception as error:  # Ray, Serve and gRPC errors share no base class
            raise ServingError(
                f"{type(error).__name__}: {error}", code="router.unreachable", location=f"site {site}"
            ) from error

    async def report(self, site: str, request_id: str, reason: str, code: str) -> None:
        """Implement `PeerClient.report`."""
        with suppress(Exception):  # the request fails there at its deadline
            await _handle(ROUTER, router_name(site)).fail.remote(request_id, reason, code)


def build_router_application(args: Mapping[str, Any]) -> Any:
    """Build the application from the arguments that `circinus.serving.ray.serve_config` writes."""
    from ray import serve

    return serve.deployment(SiteRouter, name=ROUTER).bind(args["site"])
