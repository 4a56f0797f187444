"""Core of a router: joins incoming values, queues items for replicas, and sends outputs on."""

from __future__ import annotations

import asyncio
import itertools
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextvars import Context
from functools import partial

from circinus.errors import OverloadedError, ServingError
from circinus.operators.pickling import Payload
from circinus.serving.audit_buffer import AuditBuffer
from circinus.serving.counters import RequestCounters
from circinus.serving.engine import DROPPED_LATE, RequestRuns, SplitStatus
from circinus.serving.replicas.replica_protocol import ItemResult
from circinus.serving.router.batch_queue import QueuedItem
from circinus.serving.router.compiled_route import (
    INPUT,
    NO_LIST,
    RESULT,
    CompiledRoute,
    CompiledStage,
    ElementPath,
    RouteTransfer,
)
from circinus.serving.router.dispatcher import Dispatcher
from circinus.serving.router.entered_request import EnteredRequest
from circinus.serving.router.entry_route import ROUTE_MISSING, EntryRoute, missing_route
from circinus.serving.router.joins import Output, PendingJoin, outputs_of
from circinus.serving.router.overload import RequestAdmission
from circinus.serving.router.request_messages import PickledResponse, RequestContext, RequestTrace, RouterMessage
from circinus.serving.settings import SERVING
from circinus.specification import LatePolicy

DEADLINE_PASSED = "query.deadline_passed"
"""Code of the error of a request without a response at its deadline."""
UNREACHABLE = "query.unreachable"
"""Code between routers for a request that could not be sent to another site; it ends as `_FAILED` or `_MOVED`."""
_FAILED = "query.request_failed"
_MOVED = "query.moved"
"""Code of the error of an attempt on a part of a split route that another part can answer instead."""


class RouterCore(ABC):
    """All of a router except the transport of values over links. All calls must come from one event loop."""

    def __init__(self, prefix: str, loop: asyncio.AbstractEventLoop) -> None:
        """Create a router without routes or deployments.

        Args:
            prefix: prefix of the ids of requests that enter here, unique among routers and restarts.
            loop: event loop of all calls.
        """
        self.dispatchers: dict[str, Dispatcher] = {}
        """Dispatchers by `CompiledStage.application`."""
        self.admission = RequestAdmission(self.dispatchers, loop)
        self.counters = RequestCounters()
        self.audits = AuditBuffer()
        self._prefix = prefix
        self._loop = loop
        self._entries: dict[str, EntryRoute] = {}
        self.has_state = False
        """False until the first routes are set, which may be none."""
        self._missing = set[str]()
        """Applications without a replica."""
        self._requests: dict[str, EnteredRequest] = {}
        self._joins: dict[tuple[str, str, ElementPath], PendingJoin] = {}
        """(request id, operator, path of the run) -> its inputs so far."""
        self._sequence = itertools.count(1)
        self._sweep_scheduled = False

    @property
    def routes(self) -> Mapping[str, Sequence[CompiledRoute]]:
        """Query -> parts of the route of its new requests; requests in flight stay on the part that they carry."""
        return {query: entry.parts for query, entry in self._entries.items()}

    @routes.setter
    def routes(self, routes: Mapping[str, Sequence[CompiledRoute]]) -> None:
        self.has_state = True
        before, self._entries = self._entries, {q: EntryRoute(q, parts) for q, parts in routes.items() if parts}
        for query, entry in self._entries.items():
            if query in before and before[query].parts == entry.parts:
                self._entries[query] = before[query]  # its shares stay in force
        if self._missing:
            self._move_requests(self._missing)
        self._resume_requests()

    def has_route(self, query: str) -> bool:
        """Return whether requests of a query may enter here."""
        return query in self._entries

    def route(self, query: str) -> CompiledRoute:
        """Return the part of a query's route that its next request takes.

        Raises:
            ServingError: no route of the query enters here.
        """
        return self._entry(query).choose(self.counters.received(query), self._missing)

    def splits(self) -> tuple[SplitStatus, ...]:
        """Return the shares of the split routes."""
        return tuple(entry.status(self._missing) for entry in self._entries.values() if len(entry.parts) > 1)

    async def submit(
        self, query: str, item_key: str, value: Payload | None, input_bytes: float, left_s: float = math.inf
    ) -> PickledResponse:
        """Send a request along its query's route, or a split one along another part if the first one lost its replicas.

        A request of a paused query waits for its next route. A request that kills replicas may end one more of each
        part than `ServingSettings.max_replica_losses`.

        Args:
            query: name of the query.
            item_key: key of the item, for messages and recordings.
            value: pickled input; a replay drops it.
            input_bytes: size of the input.
            left_s: seconds until the deadline; stages that have not started by then are dropped.

        Raises:
            OverloadedError: see `RequestAdmission.require`.
            ServingError: the query has no route, an operator failed, the request was dropped as late (`DROPPED_LATE`),
                or the deadline passed (`DEADLINE_PASSED`).
        """
        request = EnteredRequest(self._entry(query), self.route(query), self._loop.create_future(), self._loop.time())
        self.require_admission(request.route, 0 if value is None else len(value), left_s)
        self.counters.entered(query)
        try:
            request.entry.count(request.route)
            while True:
                route = request.route
                sent = None if route.is_replay else value
                try:
                    response = await self._attempt(request, item_key, sent, input_bytes, left_s)
                except ServingError as error:
                    if error.code != _MOVED:
                        raise
                    request = self._moved(request)
                    continue
                runs = RequestRuns(route.configuration, response.timings.runs) if route.has_fan_outs else None
                self.counters.answered(query, response.timings.latency_s, runs)
                self.audits.record(query, route.audit_rate, item_key, route.configuration, sent, response.outputs)
                return response
        except BaseException as error:  # also if cancelled
            if isinstance(error, ServingError) and error.code == DROPPED_LATE:
                self.counters.dropped(query)
            else:
                self.counters.failed(query)
            raise

    def require_admission(self, route: CompiledRoute, input_bytes: int, left_s: float) -> None:
        """Call `RequestAdmission.require`, and count a refused request; a server may call it before it reads the input.

        Raises:
            OverloadedError: the request must not be submitted.
            ServingError: the input is larger than all inputs may be.
        """
        try:
            self.admission.require(route, input_bytes, left_s)
        except OverloadedError:
            self.counters.refused(route.query)
            raise

    def receive(self, message: RouterMessage, arrived_s: float) -> None:
        """Accept a value for operators of this site, or a result of a request that entered here.

        Args:
            message: the value.
            arrived_s: time at which it arrived, of which a busy machine may take notice later.
        """
        for consumer in message.consumers:
            if self._has_ended(message.context):
                return
            if consumer == RESULT:
                self._requests[message.context.request_id].add_result(message, self._loop.time())
            else:
                self._join(message, message.context.route.stages[consumer], arrived_s)

    def set_presence(self, application: str, present: bool) -> None:
        """Note whether an application has replicas; without any, requests of split routes move to other parts."""
        if present:
            self._missing.discard(application)
            return
        self._missing.add(application)
        self._move_requests({application})

    def fail(self, request_id: str, reason: str, code: str = _FAILED) -> None:
        """Fail a request that entered here, or move it to another part if its site cannot be reached."""
        request = self._requests.pop(request_id, None)
        if request is not None and not request.answer.done():
            if code == UNREACHABLE:
                code = _MOVED if self._may_move(request, self._missing) else _FAILED
            request.answer.set_exception(ServingError(reason, code=code, location=f"query {request.route.query}"))

    def fail_requests(self, applications: Collection[str] | None, reason: str) -> None:
        """Fail the requests that entered here and may still need some applications, or move them to other parts.

        Args:
            applications: the applications; None: fail all requests, and let no more enter.
            reason: part of the message.
        """
        if applications is None:
            self._entries = {}
        gone = self._missing.union(applications or ())
        for request_id, request in list(self._requests.items()):
            if applications is None or not request.route.applications.isdisjoint(applications):
                self.fail(request_id, reason, _MOVED if self._may_move(request, gone) else _FAILED)

    async def drain(self, application: str) -> None:
        """Wait until no request that entered here may need an application."""
        while answers := [
            request.answer
            for request in self._requests.values()
            if application in request.route.applications and not request.answer.done()
        ]:
            await asyncio.wait(answers)

    def under_way(self) -> dict[str, int]:
        """Return the number of unanswered requests that entered here and may need an application, by application."""
        return Counter(name for request in self._requests.values() for name in request.route.applications)

    def _entry(self, query: str) -> EntryRoute:
        if query not in self._entries:
            raise missing_route(query, self._entries)
        return self._entries[query]

    async def _attempt(
        self, request: EnteredRequest, item_key: str, value: Payload | None, input_bytes: float, left_s: float
    ) -> PickledResponse:
        """Send a request along its part."""
        request_id = f"{self._prefix}-{next(self._sequence)}"
        self._requests[request_id] = request
        size_bytes = SERVING.request_bytes + (0 if value is None else len(value))
        self.admission.hold(request.route, 1, size_bytes)
        timer = None
        if left_s < math.inf:
            end_s = request.start_s + left_s
            timer = self._loop.call_at(end_s, self._expire, request_id, left_s, context=Context())
        try:
            if not request.route.is_paused:
                context = RequestContext(request_id, item_key, request.route, request.start_s, left_s)
                ready_s = request.start_s if not request.tried_parts else self._loop.time()
                self._send(context, INPUT, [Output(value, input_bytes, ())], RequestTrace(), ready_s)
            return await request.answer
        finally:
            self._requests.pop(request_id, None)
            self.admission.hold(request.route, -1, -size_bytes)
            if timer is not None:
                timer.cancel()

    def _may_move(self, request: EnteredRequest, missing: Collection[str]) -> bool:
        """Return whether another part, or the route of a new plan, can answer a request, which takes each part once."""
        entry = self._entries.get(request.route.query)
        return entry is not None and bool(entry.available(missing, (*request.tried_parts, request.route)))

    def _move_requests(self, missing: Collection[str]) -> None:
        """Move requests that may need applications without a replica to other parts, where these can answer them."""
        for request_id, request in list(self._requests.items()):
            needed = request.route.applications.intersection(missing)
            if needed and self._may_move(request, self._missing):
                self.fail(request_id, f"{min(needed)} has no replica", _MOVED)

    def _resume_requests(self) -> None:
        """Send the requests of paused queries along new routes, and fail those of queries that have none any more."""
        for request_id, request in list(self._requests.items()):
            entry = self._entries.get(request.route.query)
            if request.route.is_paused and (entry is None or not entry.parts[0].is_paused):
                code = ROUTE_MISSING if entry is None else _MOVED
                self.fail(request_id, "the query was removed while its requests waited", code)

    def _moved(self, request: EnteredRequest) -> EnteredRequest:
        """Return a request on another part."""
        entry, tried_parts = self._entry(request.route.query), (*request.tried_parts, request.route)
        route = entry.choose_again(self._missing, tried_parts)
        request.entry.count(request.route, -1)
        entry.count(route)
        return EnteredRequest(entry, route, self._loop.create_future(), request.start_s, tried_parts)

    def _expire(self, request_id: str, left_s: float) -> None:
        request = self._requests.get(request_id)
        missing = () if request is None else request.route.applications & self._missing
        reason = f"; {min(missing)} has no replica" if missing else ""
        if request is not None and request.route.is_paused:
            reason = "; the deployments of the query are being replaced"
        self.fail(request_id, f"the deadline of {left_s:.3g} s passed{reason}", DEADLINE_PASSED)

    @abstractmethod
    def _transmit(self, transfer: RouteTransfer, message: RouterMessage, size_bytes: float, ready_s: float) -> None:
        """Start a transfer over links, which ends with `receive` at its site, or with `_report`.

        Args:
            transfer: the links and the site.
            message: the value.
            size_bytes: size of the value, which a replay does not have.
            ready_s: time at which the value was available.
        """

    def _is_entry(self, context: RequestContext) -> bool:
        """Return whether a request entered here, as all do at a router of all sites."""
        return True

    def _report(self, context: RequestContext, reason: str, code: str = _FAILED) -> None:
        """Fail a request at the router where it entered."""
        self.fail(context.request_id, reason, code)

    def _has_ended(self, context: RequestContext) -> bool:
        """Return whether no response is awaited any more."""
        gone = self._is_entry(context) and context.request_id not in self._requests
        return gone or self._loop.time() > context.expires_s

    def _send(
        self,
        context: RequestContext,
        producer: str,
        outputs: Sequence[Output],
        trace: RequestTrace,
        ready_s: float,
    ) -> None:
        """Send outputs to each site that receives some, or notes where none of the receivers takes an output's branch.

        Args:
            context: the request.
            producer: operator.
            outputs: outputs of one run, or a note.
            trace: trace of the run.
            ready_s: time at which they were available.
        """
        for transfer in context.route.transfers[producer]:
            for output in outputs:
                is_note = output.is_note or not self._is_received(context, producer, transfer, output.branch)
                sent = trace if is_note else trace.sent((producer, output.path), transfer, output.size_bytes)
                value = None if is_note else output.value
                message = RouterMessage(
                    context, producer, transfer.consumers, value, sent, output.path, output.branch, is_note
                )
                if transfer.path:
                    self._transmit(transfer, message, 0.0 if is_note else output.size_bytes, ready_s)
                else:
                    self.receive(message, ready_s)

    @staticmethod
    def _is_received(context: RequestContext, producer: str, transfer: RouteTransfer, branch: str | None) -> bool:
        """Return whether an operator at the end of a transfer, or the result, takes outputs of a branch."""
        if branch is None:
            return True
        stages = context.route.stages
        return any(name == RESULT or stages[name].receives(producer, branch) for name in transfer.consumers)

    def _join(self, message: RouterMessage, stage: CompiledStage, arrived_s: float) -> None:
        if stage.takes_one_value:
            if message.is_note or not stage.receives(message.producer, message.branch):
                self._pass_on(message.context, stage, message.path, message.trace, arrived_s)
            else:
                self._enqueue(message.context, stage, [message.value], message.trace, arrived_s, message.path)
            return
        self._sweep()
        path = stage.path_of_run(message.producer, message.path)
        key = (message.context.request_id, stage.operator, path)
        pending = self._joins.pop(key, None) or PendingJoin(message.context, stage)
        pending.add(message, arrived_s)
        if not pending.is_complete:
            self._joins[key] = pending
        if pending.may_start:
            pending.has_started = True
            arrived_s, values, trace = pending.inputs()
            self._enqueue(pending.context, stage, values, trace, arrived_s, path)
        elif pending.is_complete and not pending.has_started:
            self._pass_on(pending.context, stage, path, pending.trace, pending.complete_s)

    def _pass_on(
        self, context: RequestContext, stage: CompiledStage, path: ElementPath, trace: RequestTrace, ready_s: float
    ) -> None:
        """Note that an operator does not run."""
        note = Output(None, 0.0, (*path, (0, NO_LIST)) if stage.emits_many else path, is_note=True)
        self._send(context, stage.operator, [note], trace, ready_s)

    def _enqueue(
        self,
        context: RequestContext,
        stage: CompiledStage,
        values: list[Payload | None],
        trace: RequestTrace,
        arrived_s: float,
        path: ElementPath,
    ) -> None:
        dispatcher = self.dispatchers.get(stage.application)
        if dispatcher is None:
            self._report(context, f"operator {stage.operator} is not deployed")
            return
        self._sweep()
        dispatcher.enqueue(
            QueuedItem(
                item_key=context.item_key,
                inputs=[value for value in values if value is not None],
                recording=stage.recording,
                arrived_s=arrived_s,
                done=partial(self._processed, context, stage, path, trace, arrived_s),
                failed=partial(self._failed, context, stage.operator),
                is_cancelled=partial(self._has_ended, context),
                prefix=stage.prefix,
                latest_start_s=math.inf if stage.latest_start_s is None else context.entered_s + stage.latest_start_s,
                dropped=partial(self._drop, context, stage.operator) if context.route.late is LatePolicy.DROP else None,
                path=tuple(index for index, _ in path),
                memory=self.admission.queues,
            )
        )

    def _processed(
        self,
        context: RequestContext,
        stage: CompiledStage,
        path: ElementPath,
        trace: RequestTrace,
        arrived_s: float,
        result: ItemResult,
        outputs: Sequence[Payload],
        end_s: float,
    ) -> None:
        if not self._has_ended(context):
            wait_s = max(end_s - arrived_s - result.service_s, 0.0)
            trace = trace.served((stage.operator, path), result.service_s, result.busy_s, wait_s)
            self._send(context, stage.operator, outputs_of(stage, path, result, outputs), trace, end_s)

    def _failed(self, context: RequestContext, operator: str, reason: str, code: str = _FAILED) -> None:
        item = f"item {context.item_key!r}" if context.item_key else "the request"
        self._report(context, f"operator {operator} failed on {item}: {reason}", code)

    def _drop(self, context: RequestContext, operator: str) -> None:
        self._report(context, f"operator {operator} could not start in time for the latency SLO", DROPPED_LATE)

    def _sweep(self) -> None:
        """Remove values of ended requests soon."""
        if not self._sweep_scheduled:
            self._sweep_scheduled = True
            self._loop.call_later(SERVING.sweep_period_s, self._remove_ended, context=Context())

    def _remove_ended(self) -> None:
        """Remove values of ended requests, which take memory, and whose other values will never arrive."""
        self._sweep_scheduled = False
        for dispatcher in self.dispatchers.values():
            dispatcher.remove_cancelled()
        for key in [key for key, pending in self._joins.items() if self._has_ended(pending.context)]:
            del self._joins[key]
        if self._joins or any(map(len, self.dispatchers.values())):
            self._sweep()
