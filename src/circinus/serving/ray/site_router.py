"""Core of a site's router: joins incoming values, dispatches batches to replicas, and forwards outputs."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from circinus.errors import ServingError
from circinus.serving.audit_buffer import AuditBuffer
from circinus.serving.counters import RequestCounters
from circinus.serving.engine import AuditBatch, ResponseTimings
from circinus.serving.pickled_response import PickledResponse
from circinus.serving.ray.application_replicas import ApplicationReplicas, ReplicaClient
from circinus.serving.ray.router_protocol import (
    ApplicationStatus,
    RequestContext,
    RequestTrace,
    RouterConfig,
    RouterMessage,
    RouterStatus,
)
from circinus.serving.replicas.replica_protocol import ItemResult, Payload
from circinus.serving.router.batch_queue import QueuedItem
from circinus.serving.router.compiled_route import INPUT, RESULT, CompiledRoute, CompiledStage

DEFAULT_DEADLINE_S = 300.0
"""Deadline of a request that specifies none."""
_SWEEP_S = 10.0


class NoRouteError(ServingError):
    """Request for a query without a route at this site."""


class DeadlinePassedError(ServingError):
    """Request without a response at its deadline."""


class RouterTransport(Protocol):
    """Transport of messages between routers."""

    async def deliver(self, site: str, message: RouterMessage) -> None:
        """Send a value to the router of another site.

        Raises:
            ServingError: the router cannot be reached.
        """
        ...

    async def report(self, site: str, request_id: str, reason: str) -> None:
        """Report a failed request to the router where it entered; ignored if that router is gone."""
        ...


@dataclass(eq=False)
class _Request:
    """Unanswered request that entered here."""

    route: CompiledRoute
    answer: asyncio.Future[PickledResponse]
    start_s: float
    results: dict[str, tuple[Payload, RequestTrace]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _PendingJoin:
    """Values that have arrived for an operator with several inputs."""

    expires_s: float
    values: dict[str, tuple[Payload | None, RequestTrace]] = field(default_factory=dict)


class SiteRouterCore:
    """All of a site's router except transport. All calls must come from one event loop."""

    def __init__(
        self, site: str, prefix: str, replicas: ReplicaClient, sites: RouterTransport, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Create a router without routes or deployments.

        Args:
            site: the site.
            prefix: prefix of the ids of requests that enter here, unique among routers and restarts.
            replicas: transport of batches to replicas.
            sites: transport of values to other sites.
            loop: event loop of all calls.
        """
        self._site = site
        self._prefix = prefix
        self._calls = replicas
        self._sites = sites
        self._loop = loop
        self._config: RouterConfig | None = None
        self._routes: dict[str, CompiledRoute] = {}
        self._replicas: dict[str, ApplicationReplicas] = {}
        self._requests: dict[str, _Request] = {}
        self._joins: dict[tuple[str, str], _PendingJoin] = {}
        self._counts = RequestCounters()
        self._audits = AuditBuffer()
        self._sequence = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_sweep_s = 0.0

    def configure(self, config: RouterConfig) -> None:
        """Set routes and deployments; requests in flight stay on the route that they carry."""
        self._config = config
        self._routes = {route.query: route for route in config.routes}
        desired = {deployment.application: deployment for deployment in config.deployments}
        for name, deployment in desired.items():
            if name not in self._replicas:
                size = deployment.deployment.allocation.batch_size
                self._replicas[name] = ApplicationReplicas(name, self._calls, self._loop, size)
            self._replicas[name].configure(deployment.replicas, deployment.batch_wait_s)
        for name in [name for name, replicas in self._replicas.items() if name not in desired and replicas.is_unused]:
            del self._replicas[name]

    def route(self, query: str) -> CompiledRoute:
        """Return the route of a query whose source is this site.

        Raises:
            ServingError: the query has none.
        """
        route = self._routes.get(query)
        if route is None:
            routed = ", ".join(self._routes) or "none"
            raise NoRouteError(
                f"the query has no route at site {self._site}; queries with a route: {routed}",
                code="route.missing",
                location=f"query {query}",
            )
        return route

    async def submit(
        self, query: str, item_key: str, value: bytes | None, input_bytes: float, left_s: float | None = None
    ) -> PickledResponse:
        """Send a request along its query's route.

        Args:
            query: name of the query.
            item_key: key of the item, for messages and recordings.
            value: pickled input; None in a replay.
            input_bytes: size of the input.
            left_s: seconds until the deadline, `DEFAULT_DEADLINE_S` by default; stages that have not started by then
                are dropped.

        Raises:
            ServingError: the query has no route, an operator failed, or the deadline passed.
        """
        route = self.route(query)
        request_id = f"{self._prefix}-{next(self._sequence)}"
        request = _Request(route, self._loop.create_future(), time.perf_counter())
        self._requests[request_id] = request
        self._counts.entered(query)
        left_s = DEFAULT_DEADLINE_S if left_s is None else left_s
        request.timer = self._loop.call_later(left_s, self._expire, request_id, left_s, context=Context())
        try:
            self._send(RequestContext(request_id, item_key, route, left_s), INPUT, value, input_bytes, RequestTrace())
            response = await request.answer
            self._counts.answered(query, response.timings.latency_s)
            share, configuration = route.audit_rate, route.configuration
            self._audits.record(query, share, item_key, configuration, value, response.outputs)
            return response
        except BaseException:  # also if cancelled
            self._counts.failed(query)
            raise
        finally:
            self._requests.pop(request_id, None)
            if request.timer is not None:
                request.timer.cancel()

    def receive(self, message: RouterMessage) -> None:
        """Accept a value for operators of this site, or a result of a request that entered here."""
        self._sweep()
        for consumer in message.consumers:
            if consumer == RESULT:
                self._result(message)
            else:
                self._join(message, message.context.route.stages[consumer])

    def fail(self, request_id: str, reason: str) -> None:
        """Fail a request that entered here."""
        request = self._requests.pop(request_id, None)
        if request is not None and not request.answer.done():
            request.answer.set_exception(
                ServingError(reason, code="query.request_failed", location=f"query {request.route.query}")
            )

    def _expire(self, request_id: str, left_s: float) -> None:
        request = self._requests.pop(request_id, None)
        if request is not None and not request.answer.done():
            reason = f"the deadline of {left_s:.3g} s passed"
            request.answer.set_exception(
                DeadlinePassedError(reason, code="query.deadline_passed", location=f"query {request.route.query}")
            )

    def fail_requests(self, applications: Collection[str], reason: str) -> None:
        """Fail the requests that entered here and may still need some applications."""
        for request_id, request in list(self._requests.items()):
            if not request.route.applications.isdisjoint(applications):
                self.fail(request_id, reason)

    def observe(self) -> RouterStatus:
        """Return the status of the router."""
        under_way = Counter(name for request in self._requests.values() for name in request.route.applications)
        return RouterStatus(
            config=self._config,
            applications=tuple(
                ApplicationStatus(
                    name,
                    len(replicas.dispatcher),
                    replicas.dispatcher.requests,
                    replicas.losses,
                    replicas.last_loss,
                    replicas.dispatcher.history.count,
                    replicas.dispatcher.history.recent,
                )
                for name, replicas in self._replicas.items()
            ),
            under_way=dict(under_way),
            queries=self._counts.status(),
        )

    def drain_audits(self) -> AuditBatch:
        """Implement `AuditableEngine.drain_audits` for requests that entered here."""
        return self._audits.drain()

    def _send(
        self, context: RequestContext, producer: str, value: Payload | None, size_bytes: float, trace: RequestTrace
    ) -> None:
        for delivery in context.route.transfers[producer]:
            sent = trace.sent(producer, delivery, size_bytes)
            message = RouterMessage(
                context, producer, delivery.consumers, None if value is None else bytes(value), sent
            )
            if delivery.site == self._site:
                self.receive(message)
            else:
                if value is None:
                    message = replace(message, padding=bytes(round(size_bytes)))
                self._start(self._deliver(delivery.site, message))

    async def _deliver(self, site: str, message: RouterMessage) -> None:
        try:
            await asyncio.wait_for(self._sites.deliver(site, message), message.context.remaining_s)
        except TimeoutError:
            await self._report(message.context, f"transfer to site {site} timed out")
        except Exception as error:  # any failure must fail the request; otherwise its caller waits forever
            await self._report(message.context, f"transfer to site {site} failed: {error}")

    async def _report(self, context: RequestContext, reason: str) -> None:
        if context.route.source == self._site:
            self.fail(context.request_id, reason)
        else:
            await self._sites.report(context.route.source, context.request_id, reason)

    def _join(self, message: RouterMessage, stage: CompiledStage) -> None:
        context = message.context
        expires_s = self._loop.time() + context.remaining_s
        key = (context.request_id, stage.operator)
        pending = self._joins.get(key) or _PendingJoin(expires_s)
        pending.values[message.producer] = (message.value, message.trace)
        if len(pending.values) < len(set(stage.producers)):
            self._joins[key] = pending
            return
        self._joins.pop(key, None)
        values = [pending.values[producer][0] for producer in stage.producers]
        trace = RequestTrace.joined(*(value_trace for _, value_trace in pending.values.values()))
        self._enqueue(context, stage, [value for value in values if value is not None], trace, pending.expires_s)

    def _enqueue(
        self,
        context: RequestContext,
        stage: CompiledStage,
        inputs: Sequence[Payload],
        trace: RequestTrace,
        expires_s: float,
    ) -> None:
        replicas = self._replicas.get(stage.application)
        if replicas is None:
            self._start(self._report(context, f"operator {stage.operator} is not deployed at site {self._site}"))
            return

        def failed(reason: str) -> None:
            message = f"operator {stage.operator} failed on item {context.item_key!r}: {reason}"
            self._start(self._report(context, message))

        def is_cancelled() -> bool:
            gone = context.route.source == self._site and context.request_id not in self._requests
            return gone or self._loop.time() > expires_s

        replicas.dispatcher.enqueue(
            QueuedItem(
                item_key=context.item_key,
                inputs=inputs,
                recording=stage.recording,
                due_s=self._loop.time(),
                done=partial(self._processed, context, stage.operator, trace, expires_s),
                failed=failed,
                is_cancelled=is_cancelled,
                prefix=stage.prefix,
            )
        )

    def _processed(
        self,
        context: RequestContext,
        operator: str,
        trace: RequestTrace,
        expires_s: float,
        result: ItemResult,
        output: Payload | None,
        end_s: float,
    ) -> None:
        trace = trace.served(operator, result.service_s, result.busy_s)
        self._send(
            replace(context, remaining_s=max(0.0, expires_s - end_s)), operator, output, result.output_bytes, trace
        )

    def _result(self, message: RouterMessage) -> None:
        request = self._requests.get(message.context.request_id)
        if request is None or request.answer.done():
            return  # its caller has gone
        request.results[message.producer] = (message.value or b"", message.trace)
        if len(request.results) < len(request.route.sinks):
            return
        trace = RequestTrace.joined(*(value_trace for _, value_trace in request.results.values()))
        request.answer.set_result(
            PickledResponse(
                outputs={sink: request.results[sink][0] for sink in request.route.sinks},
                timings=ResponseTimings(
                    time.perf_counter() - request.start_s, trace.stage_s, trace.replica_s, trace.link_bytes
                ),
            )
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # Own context: Ray Serve cancels tasks that were created in the context of a disconnected request.
        task = self._loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        """Drop values of requests that failed elsewhere, whose other values will never arrive."""
        now_s = self._loop.time()
        if now_s < self._next_sweep_s:
            return
        self._next_sweep_s = now_s + _SWEEP_S
        for key in [key for key, pending in self._joins.items() if pending.expires_s < now_s]:
            del self._joins[key]
