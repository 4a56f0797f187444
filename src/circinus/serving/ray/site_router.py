"""One site's part of all routes: joins what comes, gives batches to replicas, sends outputs on."""

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
from circinus.serving.engine import AuditBatch
from circinus.serving.pickled_response import PickledResponse
from circinus.serving.ray.dispatcher import Dispatcher, ReplicaClient
from circinus.serving.ray.router_protocol import (
    ApplicationStatus,
    RequestContext,
    RequestTrace,
    RouterConfig,
    RouterMessage,
    RouterRoute,
    RouterStage,
    RouterStatus,
)
from circinus.serving.replicas.batch_queue import QueuedItem
from circinus.serving.replicas.replica_protocol import ItemResult, Payload
from circinus.serving.route_transfers import INPUT, RESULT

DEFAULT_DEADLINE_S = 300.0
"""Deadline of a request that has none."""
_SWEEP_S = 10.0


class NoRouteError(ServingError):
    """Request for a query without a route at this site."""


class DeadlinePassedError(ServingError):
    """Request without a response at its deadline."""


class RouterTransport(Protocol):
    """How routers reach each other."""

    async def deliver(self, site: str, parcel: RouterMessage) -> None:
        """Bring a value to the router of another site.

        Raises:
            ServingError: it cannot be reached.
        """
        ...

    async def report(self, site: str, number: str, reason: str) -> None:
        """Tell the router where a request entered that it failed; nothing is told to a router that is gone."""
        ...


@dataclass(eq=False)
class _Request:
    """One that entered here and is not answered yet."""

    route: RouterRoute
    answer: asyncio.Future[PickledResponse]
    begin_s: float
    results: dict[str, tuple[Payload, RequestTrace]] = field(default_factory=dict)
    alarm: asyncio.TimerHandle | None = None


@dataclass(eq=False)
class _Meeting:
    """What came so far for an operator that needs several values."""

    expires_s: float
    values: dict[str, tuple[Payload | None, RequestTrace]] = field(default_factory=dict)


class SiteRouterCore:
    """Everything the router of a site does but for the calls themselves. All calls must come from one event loop."""

    def __init__(
        self, site: str, prefix: str, replicas: ReplicaClient, sites: RouterTransport, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Without routes or deployments.

        Args:
            site: whose.
            prefix: of the numbers of requests that enter here; of no other router, nor of this one before it restarted.
            replicas: to give batches to.
            sites: to send values to.
            loop: in which everything happens.
        """
        self._site = site
        self._prefix = prefix
        self._calls = replicas
        self._sites = sites
        self._loop = loop
        self._config: RouterConfig | None = None
        self._routes: dict[str, RouterRoute] = {}
        self._dispatchers: dict[str, Dispatcher] = {}
        self._requests: dict[str, _Request] = {}
        self._meetings: dict[tuple[str, str], _Meeting] = {}
        self._counts = RequestCounters()
        self._audits = AuditBuffer()
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_sweep_s = 0.0

    def configure(self, config: RouterConfig) -> None:
        """From now on requests enter on these routes, and deployments are as large as it says. Requests under way stay
        on the route that they carry."""
        self._config = config
        self._routes = {route.query: route for route in config.routes}
        listed = {wanted.application: wanted for wanted in config.deployments}
        for name, wanted in listed.items():
            dispatcher = self._dispatchers.get(name)
            if dispatcher is None:
                size = wanted.deployment.allocation.batch_size
                dispatcher = self._dispatchers[name] = Dispatcher(name, self._calls, self._loop, size)
            dispatcher.configure(wanted.replicas, wanted.batch_wait_s)
        for name in [name for name, known in self._dispatchers.items() if name not in listed and known.idle]:
            del self._dispatchers[name]

    def route(self, query: str) -> RouterRoute:
        """That of a query whose source is this site.

        Raises:
            ServingError: there is none.
        """
        route = self._routes.get(query)
        if route is None:
            known = ", ".join(self._routes) or "none"
            raise NoRouteError(
                f"the query has no route at site {self._site}; queries with a route: {known}",
                code="route.missing",
                location=f"query {query}",
            )
        return route

    async def submit(
        self, query: str, item_key: str, value: bytes | None, input_bytes: float, left_s: float | None = None
    ) -> PickledResponse:
        """Send a request along its query's route.

        Args:
            query: which.
            item_key: of the item, for messages and recordings.
            value: packed input; None in a replay.
            input_bytes: its size.
            left_s: seconds until nobody wants the answer any more, `LONGEST_S` by default; what has not begun by then
                is dropped.

        Raises:
            ServingError: no such route, an operator failed on it, or its deadline passed.
        """
        route = self.route(query)
        number = f"{self._prefix}-{next(self._numbers)}"
        request = _Request(route, self._loop.create_future(), time.perf_counter())
        self._requests[number] = request
        self._counts.entered(query)
        left_s = DEFAULT_DEADLINE_S if left_s is None else left_s
        request.alarm = self._loop.call_later(left_s, self._too_late, number, left_s, context=Context())
        try:
            self._send(RequestContext(number, item_key, route, left_s), INPUT, value, input_bytes, RequestTrace())
            found = await request.answer
            self._counts.answered(query, found.latency_s)
            share, configuration = route.audited_share, route.configuration
            self._audits.record(query, share, item_key, configuration, value, found.outputs)
            return found
        except BaseException:  # also being cancelled
            self._counts.failed(query)
            raise
        finally:
            self._requests.pop(number, None)
            if request.alarm is not None:
                request.alarm.cancel()

    def receive(self, parcel: RouterMessage) -> None:
        """Take a value for operators of this site, or a result for a request that entered here."""
        self._sweep()
        for consumer in parcel.consumers:
            if consumer == RESULT:
                self._result(parcel)
            else:
                self._arrived(parcel, parcel.trip.route.stage(consumer))

    def fail(self, number: str, reason: str) -> None:
        """End a request that entered here without an answer."""
        request = self._requests.pop(number, None)
        if request is not None and not request.answer.done():
            request.answer.set_exception(
                ServingError(reason, code="query.request_failed", location=f"query {request.route.query}")
            )

    def _too_late(self, number: str, left_s: float) -> None:
        request = self._requests.pop(number, None)
        if request is not None and not request.answer.done():
            reason = f"the deadline of {left_s:.3g} s passed"
            request.answer.set_exception(
                DeadlinePassedError(reason, code="query.deadline_passed", location=f"query {request.route.query}")
            )

    def fail_requests(self, applications: Collection[str], why: str) -> None:
        """Fail the requests that entered here and may still need one of some applications, for a reason to be told."""
        for number, request in list(self._requests.items()):
            if not request.route.applications.isdisjoint(applications):
                self.fail(number, why)

    def observe(self) -> RouterStatus:
        """As it is now."""
        under_way = Counter(name for request in self._requests.values() for name in request.route.applications)
        return RouterStatus(
            config=self._config,
            applications=tuple(
                ApplicationStatus(
                    name,
                    len(known),
                    known.requests,
                    known.losses,
                    known.last_loss,
                    known.served.count,
                    known.served.recent,
                )
                for name, known in self._dispatchers.items()
            ),
            under_way=dict(under_way),
            queries=self._counts.status(),
        )

    def drain_audits(self) -> AuditBatch:
        """As `Audited.audits`, of the requests that entered here."""
        return self._audits.drain()

    def _send(
        self, trip: RequestContext, producer: str, value: Payload | None, size_bytes: float, journal: RequestTrace
    ) -> None:
        for delivery in trip.route.deliveries[producer]:
            sent = journal.sent(producer, delivery, size_bytes)
            parcel = RouterMessage(trip, producer, delivery.consumers, None if value is None else bytes(value), sent)
            if delivery.site == self._site:
                self.receive(parcel)
            else:
                if value is None:
                    parcel = replace(parcel, padding=bytes(round(size_bytes)))
                self._start(self._deliver(delivery.site, parcel))

    async def _deliver(self, site: str, parcel: RouterMessage) -> None:
        try:
            await asyncio.wait_for(self._sites.deliver(site, parcel), parcel.trip.remaining_s)
        except TimeoutError:
            await self._report(parcel.trip, f"its values do not come to site {site}: it does not answer")
        except Exception as error:  # of whatever kind: nobody may wait for ever
            await self._report(parcel.trip, f"its values do not come to site {site}: {error}")

    async def _report(self, trip: RequestContext, reason: str) -> None:
        if trip.route.source == self._site:
            self.fail(trip.number, reason)
        else:
            await self._sites.report(trip.route.source, trip.number, reason)

    def _arrived(self, parcel: RouterMessage, stage: RouterStage) -> None:
        trip, needed = parcel.trip, stage.producers
        expires_s = self._loop.time() + trip.remaining_s
        key = (trip.number, stage.operator)
        meeting = self._meetings.get(key) or _Meeting(expires_s)
        meeting.values[parcel.producer] = (parcel.value, parcel.journal)
        if len(meeting.values) < len(needed):
            self._meetings[key] = meeting
            return
        self._meetings.pop(key, None)
        values = [meeting.values[producer][0] for producer in stage.after or (INPUT,)]
        journal = RequestTrace.joined(*(its for _, its in meeting.values.values()))
        self._enqueue(trip, stage, [value for value in values if value is not None], journal, meeting.expires_s)

    def _enqueue(
        self,
        trip: RequestContext,
        stage: RouterStage,
        inputs: Sequence[Payload],
        journal: RequestTrace,
        expires_s: float,
    ) -> None:
        dispatcher = self._dispatchers.get(stage.application)
        if dispatcher is None:
            self._start(self._report(trip, f"operator {stage.operator} does not run at site {self._site}"))
            return

        def failed(reason: str) -> None:
            words = f"operator {stage.operator} failed on item {trip.item_key!r}: {reason}"
            self._start(self._report(trip, words))

        def abandoned() -> bool:
            gone = trip.route.source == self._site and trip.number not in self._requests
            return gone or self._loop.time() > expires_s

        dispatcher.enqueue(
            QueuedItem(
                item_key=trip.item_key,
                inputs=inputs,
                recording=stage.recording or None,
                due_s=self._loop.time(),
                done=partial(self._processed, trip, stage.operator, journal, expires_s),
                failed=failed,
                is_cancelled=abandoned,
                prefix=stage.prefix,
            )
        )

    def _processed(
        self,
        trip: RequestContext,
        operator: str,
        journal: RequestTrace,
        expires_s: float,
        result: ItemResult,
        output: Payload | None,
        end_s: float,
    ) -> None:
        journal = journal.served(operator, result.service_s, result.busy_s)
        self._send(
            replace(trip, remaining_s=max(0.0, expires_s - end_s)), operator, output, result.output_bytes, journal
        )

    def _result(self, parcel: RouterMessage) -> None:
        request = self._requests.get(parcel.trip.number)
        if request is None or request.answer.done():
            return  # nobody waits for it any more
        request.results[parcel.producer] = (parcel.value or b"", parcel.journal)
        if len(request.results) < len(request.route.sinks):
            return
        journal = RequestTrace.joined(*(its for _, its in request.results.values()))
        request.answer.set_result(
            PickledResponse(
                outputs={sink: request.results[sink][0] for sink in request.route.sinks},
                latency_s=time.perf_counter() - request.begin_s,
                stage_s=journal.stage_s,
                busy_s=journal.busy_s,
                link_bytes=journal.link_bytes,
            )
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # In a context of its own: Ray Serve cancels what was begun in that of a request whose client went away.
        task = self._loop.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _sweep(self) -> None:
        """Forget what waits for values that never come: of requests that failed elsewhere."""
        now_s = self._loop.time()
        if now_s < self._next_sweep_s:
            return
        self._next_sweep_s = now_s + _SWEEP_S
        for key in [key for key, meeting in self._meetings.items() if meeting.expires_s < now_s]:
            del self._meetings[key]
