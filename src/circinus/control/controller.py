"""Control loop: observe the engine, decide, store the decision, and carry it out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from circinus.control.background_task import TaskFailed, TaskSucceeded
from circinus.control.backoff import Backoff
from circinus.control.control_state import ControlState
from circinus.control.decisions import Decision, LoopObservation, decide, roll_back
from circinus.control.drift.drift_monitor import DriftDependencies, DriftMonitor, NoDriftMonitor
from circinus.control.ladders.policy import LadderState
from circinus.control.ladders.rung_loads import RequestRates
from circinus.control.lost_parts import LostParts
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import NO_REPLANNING, ReplanDependencies
from circinus.control.replanning.replanner import Replanner
from circinus.control.rollout import Rollout
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore, Event, EventKind, StateStoreError
from circinus.errors import ServingError
from circinus.serving import DesiredState, Engine, EngineStatus, FencedEngine
from circinus.serving.lease import Lease, LeaseLostError
from circinus.serving.state_serialization import state_from_json, state_to_json
from circinus.specification.json_dump import parse_json

_POSSIBLE_STATES = "states"
"""Name of the document with the states that the engine may be running."""
_REPROFILED = "measured"
"""Name of the document with re-profiled data."""


class _NoLease:
    """Lease of an engine that no other controller can reach."""

    def acquire(self, holder: str, now_s: float, ttl_s: float) -> int:
        return 0

    def renew(self, lease: int, now_s: float, ttl_s: float) -> None:
        pass

    def release(self, lease: int) -> None:
        pass


class _HeldLease:
    """Lease that this process holds until `release`."""

    def __init__(self, lease: Lease, holder: str, wall_clock: Callable[[], float], ttl_s: float) -> None:
        self._lease, self._wall_clock, self._ttl_s = lease, wall_clock, ttl_s
        self.token = lease.acquire(holder, wall_clock(), ttl_s)

    async def renew(self) -> None:
        self._renew()

    async def renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                await self.renew()
            except LeaseLostError:
                raise
            except ServingError:  # no apply starts without the lease
                continue

    def release(self) -> None:
        with suppress(ServingError):
            self._lease.release(self.token)

    def _renew(self) -> None:
        self._lease.renew(self.token, self._wall_clock(), self._ttl_s)


class _HeldRemoteLease(_HeldLease):
    """Lease that is renewed in a thread, because its store may be silent."""

    async def renew(self) -> None:
        await asyncio.to_thread(self._renew)


class Controller:
    """Reconciles an engine with the plans of a plan file, while it holds the lease.

    Queries step down and up their fallback ladders under bursts. The controller replans after changes of nodes or of
    the plan file, and after drift; new plans are subject to canary analysis.

    Control is level-triggered: whatever the engine runs is brought to the stored decision. Decisions are stored before
    they are applied, so that a crash neither loses nor repeats them.
    """

    def __init__(
        self,
        engine: Engine,
        controlled: ManagedPlans,
        records: ControlStateStore,
        *,
        holder: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        settings: ControlSettings | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        on_status: Callable[[EngineStatus, ManagedPlans, Mapping[str, LadderState]], None] = lambda *_: None,
        restart_engine: Callable[[], object] = lambda: None,
        planner: ReplanDependencies = NO_REPLANNING,
        engine_lease: Lease | None = None,
        drift: DriftDependencies | None = None,
    ) -> None:
        """Acquire the lease, which `run` releases, and restore the state of the previous controller.

        Args:
            engine: engine to control.
            controlled: target plans to deploy.
            records: store of decisions.
            holder: name of this process in the lease.
            clock: monotonic clock in seconds.
            wall_clock: seconds since 1970.
            settings: intervals and timeouts.
            on_event: callback for stored events.
            on_status: callback for every poll, with the status, the plans and the ladder states.
            restart_engine: starts an engine that does not answer, or raises a ServingError; may block.
            planner: replanning functions; by default plans never change.
            engine_lease: lease of an engine that controllers with other stores may control; may block.
            drift: drift detection.

        Raises:
            LeaseHeldError: another controller holds the lease.
            ServingError: a lease store is unreachable.
        """
        self._settings = times = settings or ControlSettings()
        self._engine, self._records = engine, records
        self._clock, self._wall_clock = clock, wall_clock
        self._on_event, self._on_status, self._restart_engine = on_event, on_status, restart_engine
        self._state = ControlState.of(controlled)
        self._rates = RequestRates()
        self._lost_parts = LostParts()
        self._rollout = Rollout(self._apply, Backoff(times.initial_backoff_s, times.max_backoff_s), clock)
        self._restart_backoff = Backoff(times.initial_backoff_s, times.max_backoff_s)
        self._poll_failure: str | None = None
        """Reason why the last poll of the engine failed."""
        self._unstored_events: list[Event] = []
        """Events that could not be stored yet; unlike decisions, they are not made again."""
        self._drift_monitor: DriftMonitor | NoDriftMonitor = NoDriftMonitor()
        if drift is not None:
            self._drift_monitor = DriftMonitor(drift, planner.profiles, times.drift, clock=clock, wall_clock=wall_clock)
        with ExitStack() as acquired:
            self._lease = _HeldLease(records, holder, wall_clock, times.lease_s)
            acquired.callback(self._lease.release)
            held = _HeldLease if engine_lease is None else _HeldRemoteLease
            self._engine_lease = held(engine_lease or _NoLease(), holder, wall_clock, times.lease_s)
            acquired.callback(self._engine_lease.release)
            started = Event(wall_clock(), EventKind.STARTED, holder, self._restore_state())
            overrides = self._drift_monitor.overrides
            self._replanner = Replanner(planner, self._state.controlled, times, overrides)
            self._commit([started], self._state.plan_documents())
            acquired.pop_all()

    @property
    def controlled(self) -> ManagedPlans:
        """Plans that are deployed or being applied."""
        return self._state.controlled

    @property
    def ladders(self) -> Mapping[str, LadderState]:
        """Current ladder states of queries."""
        return self._state.ladders

    async def reconcile(self) -> None:
        """Run one iteration: observe, decide, store, apply. Longer work continues in the background.

        Raises:
            LeaseLostError: another controller took over.
            ServingError: the engine does not answer, or a decision cannot be stored.
        """
        began_s = self._clock()
        status = await self._status()
        now_s = self._clock()
        rates = self._rates.read(now_s, status, self.controlled.queries, began_s)
        retries_apply = self._rollout.failures > 0
        was_applying = self._rollout.busy
        self._collect_rollout()
        is_finished = was_applying and not self._rollout.busy
        self._record(self._lost_parts.poll(status, self._wall_clock()))
        self._record(await self._drift_monitor.poll(self._engine, status, self.controlled))
        replanned = self._replanner.poll(now_s)
        if isinstance(replanned, TaskFailed):
            self._record([self._event(EventKind.FAILED, "plan", replanned.reason)])
            replanned = None
        if displaced := self._replanner.poll_displaced():
            reason = f"plans that cannot stay without their neighbours: {', '.join(displaced)}"
            self._record([Event(self._wall_clock(), EventKind.REPLAN, "plans", reason, {"why": "displaced"})])
        seen = LoopObservation(
            now_s, self._wall_clock(), status, rates, self._replanner.nodes, replanned, retries_apply,
            self._rollout.paused,
        )  # fmt: skip
        self._carry_out(decide(self._state, seen, self._settings.canary))
        self._on_status(status, self.controlled, self.ladders)
        self._replanner.schedule(now_s, status, self._state, self._drift_monitor.overrides)
        if not is_finished:  # this status precedes the outcome
            self._advance_rollout(status)
        await self._rollout.wait(self._settings.apply_wait_s)
        self._collect_rollout()
        if self._unstored_events:
            self._commit([])

    async def wait_idle(self) -> None:
        """Wait for background work such as planning; the next iteration uses its results."""
        await self._drift_monitor.wait()
        await self._replanner.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Run iterations until `stop` is set, then cancel and roll back the running apply, and release the lease.

        Raises:
            LeaseLostError: another controller took over.
        """
        loops = (self._poll_forever(), self._lease.renew_forever(), self._engine_lease.renew_forever())
        tasks = [asyncio.create_task(coroutine) for coroutine in (*loops, stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._rollout.cancel()
            await self._rollout.wait()
            await self._replanner.close(self._settings.shutdown_timeout_s)
            await self._drift_monitor.close(self._settings.shutdown_timeout_s)
            self._lease.release()
            await asyncio.to_thread(self._engine_lease.release)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _poll_forever(self) -> None:
        while True:
            started_s = self._clock()
            try:
                await self.reconcile()
                self._poll_failure = None
            except LeaseLostError:
                raise
            except StateStoreError as error:  # no decision was made; events are stored later
                self._on_event(self._event(EventKind.FAILED, "records", str(error)))
            except Exception as error:  # any failure: the controller must survive it
                with suppress(StateStoreError):
                    await self._report_failed_poll(error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                with suppress(StateStoreError):
                    await self._report_failed_poll(ServingError("engine cancelled the call", code="engine.cancelled"))
            await asyncio.sleep(max(0.0, started_s + self._settings.interval_s - self._clock()))

    async def _status(self) -> EngineStatus:
        try:
            async with asyncio.timeout(self._settings.status_timeout_s):
                return await self._engine.status()
        except TimeoutError:
            raise ServingError(
                f"engine did not answer within {self._settings.status_timeout_s:g} s", code="engine.silent"
            ) from None

    def _restore_state(self) -> str:
        """Restore the state of the previous controller if there is one; return a description for the event log."""
        start = "started with the plan file"
        try:
            states = self._records.document(_POSSIBLE_STATES)
            self._rollout.restore([] if states is None else [state_from_json(text) for text in parse_json(states)])
            reprofiled = self._records.document(_REPROFILED)
            if reprofiled is not None:
                self._drift_monitor.restore(reprofiled)
            state = self._state.restored(self._records)
        except (ServingError, ValueError) as error:
            return f"{start}: {error}"
        if state is None:
            ignored = "the stored state is of another plan file or other options"
            return start if self._records.state() is None else f"{start}; {ignored}"
        self._state = state
        return "resumed from the stored state"

    def _carry_out(self, decision: Decision) -> None:
        """Store a decision, then adopt it."""
        before, after = self._state, decision.state
        documents: dict[str, str | None] = {}
        if after.controlled is not before.controlled or after.last_good is not before.last_good:
            documents |= after.plan_documents()
        if decision.adopted is not None:
            documents[_REPROFILED] = decision.adopted.overrides.document()
        if decision.events or documents:
            self._commit(decision.events, documents, state=after)
        self._state = after
        if decision.adopted is not None:
            self._replanner.commit(decision.adopted)
        if decision.refused is not None:
            self._replanner.rolled_back(decision.refused, after.controlled)
        is_redeployed = (
            decision.adopted is not None and after.is_deploying and after.desired()[1] != before.desired()[1]
        )
        if is_redeployed or decision.refused is not None:
            self._rollout.cancel()  # so that other plans can be applied once it is rolled back

    def _advance_rollout(self, status: EngineStatus) -> None:
        """Start applying the next state if the engine runs another one and the backoff has expired."""
        desired, fingerprint = self._state.desired()
        if status.state == fingerprint:
            self._state = replace(self._state, is_deploying=False)
            self._rollout.mark_converged()
            return
        if not self._rollout.is_due(self._clock()):
            return
        next_state = self._rollout.next_state(desired, status, self._replanner.nodes, tuple(self.controlled.queries))
        if self._rollout.remember(next_state, status):  # a successor needs the possible states
            states = [state_to_json(state) for state in self._rollout.possible_states]
            self._commit([], {_POSSIBLE_STATES: json.dumps(states)})
        self._rollout.start(next_state, is_final=next_state == desired)

    async def _apply(self, desired: DesiredState) -> None:
        await self._renew_leases()
        if isinstance(self._engine, FencedEngine):
            await self._engine.apply_fenced(desired, self._renew_leases)
        else:
            await self._engine.apply(desired)

    async def _renew_leases(self) -> None:
        """Renew the leases before each change, so that a suspended controller cannot overwrite its successor."""
        await self._lease.renew()
        await self._engine_lease.renew()

    def _collect_rollout(self) -> None:
        """Process the result of the running apply, if it has finished."""
        result, rollout = self._rollout.poll(self._clock()), self._rollout
        if isinstance(result, TaskSucceeded):
            applied = result.value
            description = "deployed" if applied.is_final else "intermediate step deployed for lack of headroom"
            self._record([self._event(EventKind.APPLIED, "engine", f"{description} after {applied.took_s:.3f} s")])
        elif isinstance(result, TaskFailed):
            nodes, last_good = self._replanner.nodes, self._state.last_good
            can_roll_back = last_good is not None and last_good.fits_nodes(nodes)
            if rollout.failures >= self._settings.attempts and can_roll_back:
                reason = f"apply failed repeatedly: {result.reason}"
                self._carry_out(roll_back(self._state, reason, nodes, self._wall_clock()))
            else:
                reason = f"{result.reason}; retry in {rollout.backoff_s:.0f} s"
                self._record([self._event(EventKind.FAILED, "apply", reason)])

    async def _report_failed_poll(self, error: Exception) -> None:
        """Report a failed poll once, and restart the engine if possible."""
        message = str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
        if message != self._poll_failure:
            self._poll_failure = message
            self._record([self._event(EventKind.FAILED, "engine", message)])
        if not isinstance(error, ServingError) or not self._restart_backoff.is_due(self._clock()):
            return
        try:
            await asyncio.to_thread(self._restart_engine)
            self._restart_backoff.reset()
        except ServingError as failure:
            self._restart_backoff.record_failure(self._clock())
            self._record([self._event(EventKind.FAILED, "engine", f"engine restart failed: {failure}")])

    def _event(self, kind: EventKind, subject: str, reason: str) -> Event:
        return Event(self._wall_clock(), kind, subject, reason)

    def _record(self, events: list[Event]) -> None:
        """Store events now, or with the next successful commit."""
        if not events:
            return
        try:
            self._commit(events)
        except StateStoreError:
            self._unstored_events += events
            raise

    def _commit(
        self,
        events: Sequence[Event],
        documents: Mapping[str, str | None] | None = None,
        *,
        state: ControlState | None = None,
    ) -> None:
        """Store the current state, or a decided one, with events and documents."""
        content = (state or self._state).checkpoint()
        stored = self._records.commit(self._lease.token, content, [*self._unstored_events, *events], documents)
        self._unstored_events = []
        for event in stored:
            self._on_event(event)
