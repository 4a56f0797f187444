"""Control loop: poll the engine, decide, store the decision, and apply it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from circinus.control.active_plans import ActivePlans
from circinus.control.backoff import Backoff
from circinus.control.drift.drift_monitor import DriftDependencies, DriftMonitor, NoDriftMonitor
from circinus.control.ladders.policy import LadderState
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.canary import CanaryAnalysis
from circinus.control.replanning.replan import ReplanDependencies
from circinus.control.replanning.replanner import ReplanFailed, Replanner, ReplanReady
from circinus.control.rollout import Rollout, RolloutFailed, RolloutSucceeded
from circinus.control.settings import ControlSettings
from circinus.control.state_store import (
    APPLIED,
    FAILED,
    REPLAN,
    ROLLBACK,
    STARTED,
    ControlStateStore,
    Event,
    StateStoreError,
)
from circinus.errors import ServingError
from circinus.matching import PlanDiff
from circinus.serving import DesiredState, Engine, EngineStatus, FencedEngine
from circinus.serving.lease import Lease, LeaseLostError
from circinus.serving.state_serialization import state_from_json, state_to_json

_POSSIBLE_STATES = "states"
"""Name of the document with the states that the engine may be running."""
_REPROFILED = "measured"
"""Name of the document with re-profiled data."""


class Controller:
    """Reconciles an engine with the plans of a plan file.

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
        on_status: Callable[[EngineStatus, ManagedPlans, Mapping[str, LadderState]], None] | None = None,
        restart_engine: Callable[[], None] | None = None,
        planner: ReplanDependencies | None = None,
        engine_lease: Lease | None = None,
        drift: DriftDependencies | None = None,
    ) -> None:
        """Prepare a controller; `start` takes the lease.

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
            planner: replanning functions; without them, plans never change.
            engine_lease: lease of an engine that controllers with other stores may control; may block.
            drift: drift detection; requires `planner`.
        """
        self._settings = times = settings or ControlSettings()
        self._plans = ActivePlans.of(controlled)
        self._engine, self._records, self._holder = engine, records, holder
        self._clock, self._wall_clock = clock, wall_clock
        self._on_event, self._on_status, self._restart_engine = on_event, on_status, restart_engine
        self._lease, self._engine_lease, self._engine_lease_number = 0, engine_lease, 0
        self._rollout = Rollout(self._apply, Backoff(times.initial_backoff_s, times.max_backoff_s), clock)
        self._restart_backoff = Backoff(times.initial_backoff_s, times.max_backoff_s)
        self._poll_failure = ""
        """Reason why the last poll of the engine failed, or ""."""
        self._unstored_events: list[Event] = []
        """Events that could not be stored yet; unlike decisions, they are not made again."""
        self._is_deploying = True
        """True if the plans were not deployed yet."""
        self._canary: CanaryAnalysis | None = None
        self._drift_monitor: DriftMonitor = NoDriftMonitor()
        if drift is not None and planner is not None:
            self._drift_monitor = DriftMonitor(drift, planner.profiles, clock=clock, wall_clock=wall_clock)
        self._planner, self._replanner = planner, None if planner is None else self._new_replanner(planner)

    @property
    def controlled(self) -> ManagedPlans:
        """Plans that are deployed or being applied."""
        return self._plans.controlled

    @property
    def ladders(self) -> Mapping[str, LadderState]:
        """Current ladder states of queries."""
        return self._plans.ladders

    def start(self) -> None:
        """Acquire the lease and restore the state of the previous controller.

        Raises:
            LeaseHeldError: another controller holds the lease.
            ServingError: a lease store is unreachable.
        """
        now_s = self._wall_clock()
        self._lease = self._records.acquire(self._holder, now_s, self._settings.lease_s)
        try:
            if self._engine_lease is not None:
                self._engine_lease_number = self._engine_lease.acquire(self._holder, now_s, self._settings.lease_s)
            description = self._restore_state()
            if self._planner is not None:
                self._replanner = self._new_replanner(self._planner)
            self._commit([Event(now_s, STARTED, self._holder, description)], self._plans.plan_documents())
        except BaseException:
            with suppress(ServingError):
                self._records.release(self._lease)
            if self._engine_lease is not None and self._engine_lease_number:
                with suppress(ServingError):
                    self._engine_lease.release(self._engine_lease_number)
            raise

    async def reconcile(self) -> None:
        """Run one iteration: poll, decide, store, apply. Longer work continues in the background.

        Raises:
            LeaseLostError: another controller took over.
            ServingError: the engine does not answer, or a decision cannot be stored.
        """
        started_s = self._clock()
        status = await self._status()
        now_s = self._clock()
        self._step(started_s, now_s, status)
        if self._on_status is not None:
            self._on_status(status, self.controlled, self.ladders)
        is_finished = self._collect_rollout()
        self._record_events(await self._drift_monitor.poll(self._engine, status, self.controlled))
        self._replan(now_s, status)
        self._check_canary(now_s, status)
        if not is_finished:  # this status precedes the outcome
            self._advance_rollout(status)
        await self._rollout.wait(self._settings.apply_wait_s)
        self._collect_rollout()
        if self._unstored_events:
            self._commit([])

    async def wait_idle(self) -> None:
        """Wait for background work such as planning; the next iteration uses its results."""
        await self._drift_monitor.wait()
        if self._replanner is not None:
            await self._replanner.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Run iterations until `stop` is set, then cancel and roll back the running apply, and release the lease.

        Raises:
            LeaseLostError: another controller took over.
        """
        loops = (self._poll_forever(), self._renew_store_lease_forever(), self._renew_engine_lease_forever())
        tasks = [asyncio.create_task(coroutine) for coroutine in (*loops, stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            self._rollout.cancel()
            await self._rollout.wait()
            if self._replanner is not None:
                await self._replanner.close(self._settings.shutdown_timeout_s)
            await self._drift_monitor.close(self._settings.shutdown_timeout_s)
            await self._release_leases()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _poll_forever(self) -> None:
        while True:
            started_s = self._clock()
            try:
                await self.reconcile()
                self._poll_failure = ""
            except LeaseLostError:
                raise
            except StateStoreError as error:  # no decision was made; events are stored later
                self._on_event(Event(self._wall_clock(), FAILED, "records", str(error)))
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
            self._rollout.restore([] if states is None else [state_from_json(text) for text in json.loads(states)])
            reprofiled = self._records.document(_REPROFILED)
            if reprofiled is not None:
                self._drift_monitor.restore(reprofiled)
            plans = self._plans.restored(self._records)
        except (ServingError, ValueError) as error:
            return f"{start}: {error}"
        if plans is None:
            ignored = "the stored state is of another plan file or other options"
            return start if self._records.state() is None else f"{start}; {ignored}"
        self._plans = plans
        return "resumed from the stored state"

    def _new_replanner(self, planner: ReplanDependencies) -> Replanner:
        return Replanner(
            planner,
            self._plans.controlled,
            self._plans.plan_file_fingerprint,
            self._settings.replanning,
            self._drift_monitor.overrides,
        )

    async def _renew_store_lease_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            with suppress(StateStoreError):  # no apply starts without the lease
                self._records.renew(self._lease, self._wall_clock(), self._settings.lease_s)

    async def _renew_engine_lease_forever(self) -> None:
        """Renew the engine's lease separately, because the store's lease must not wait for a silent engine."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            try:
                await self._renew_engine_lease()
            except LeaseLostError:
                raise
            except ServingError:  # no apply starts without the lease
                continue

    async def _renew_engine_lease(self) -> None:
        if self._engine_lease is not None:
            arguments = self._engine_lease_number, self._wall_clock(), self._settings.lease_s
            await asyncio.to_thread(self._engine_lease.renew, *arguments)

    async def _release_leases(self) -> None:
        with suppress(StateStoreError):
            self._records.release(self._lease)
        if self._engine_lease is not None:
            with suppress(ServingError):
                await asyncio.to_thread(self._engine_lease.release, self._engine_lease_number)

    def _step(self, started_s: float, now_s: float, status: EngineStatus) -> None:
        """Step queries along their ladders, unless the plans' deployments are about to change."""
        control = self._plans.control
        control.observe(now_s, status, started_s)
        if self._is_deploying and self._rollout.failures == 0 and status.state != self._plans.desired()[1]:
            return
        ladders, events = control.decide(now_s, self._wall_clock(), self.ladders, status)
        stepped = self._plans.with_ladders(ladders)
        if events:
            self._commit(events, plans=stepped)
        self._plans = stepped

    def _replan(self, now_s: float, status: EngineStatus) -> None:
        if self._replanner is None:
            return
        result = self._replanner.poll(now_s)
        if isinstance(result, ReplanFailed):
            self._record(FAILED, "plan", f"replanning failed ({result.trigger}): {result.reason}")
        elif result is not None:
            self._adopt(result)
        self._replanner.schedule(now_s, status, self.controlled, self._drift_monitor.overrides)

    def _adopt(self, ready: ReplanReady) -> None:
        assert self._replanner is not None, "the plans come from it"
        previous, state = self.controlled, self._plans.desired()[1]
        changes = PlanDiff.between(
            {a.query: a.chosen.plan for a in previous.matching.assignments}, ready.controlled.matching
        )
        adopted = self._plans.with_plans(ready.controlled, ready.base, self._plans.last_good or previous)
        if adopted.desired()[1] == state:
            adopted = replace(adopted, last_good=self._plans.last_good)
        details = {"why": ready.trigger, **vars(changes)}
        event = Event(self._wall_clock(), REPLAN, "plans", f"{ready.reason}: {changes}", details)
        self._commit([event], {**adopted.plan_documents(), _REPROFILED: ready.overrides.document()}, plans=adopted)
        self._replanner.commit(ready)
        if adopted.desired()[1] != state:
            self._restart_rollout()

    def _check_canary(self, now_s: float, status: EngineStatus) -> None:
        """Roll back to the last good plans if canary analysis finds a regression."""
        if self._plans.last_good is None or status.state != self._plans.desired()[1]:
            return
        queries = self.controlled.queries
        if self._canary is None:
            self._canary = CanaryAnalysis.begin(now_s, status, queries)
            return
        reason = self._canary.regression_reason(
            status, queries, self._plans.control.above_planned_rate, self._settings.canary
        )
        if reason:
            self._roll_back(reason)
        elif self._canary.is_complete(now_s, self._settings.canary):
            self._accept_plans()

    def _accept_plans(self) -> None:
        """Accept the current plans as the last good ones."""
        accepted = replace(self._plans, last_good=None)
        self._commit([], accepted.plan_documents(), plans=accepted)
        self._canary = None

    def _roll_back(self, reason: str) -> None:
        """Roll back to the last good plans if the present nodes suffice for them."""
        last_good, refused = self._plans.last_good, self.controlled
        if last_good is None or not last_good.fits_nodes(self._nodes()):
            self._accept_plans()
            self._record(FAILED, "plans", f"{reason}; no previous plans to roll back to")
            return
        adopted = self._plans.with_plans(last_good)
        self._commit([Event(self._wall_clock(), ROLLBACK, "plans", reason)], adopted.plan_documents(), plans=adopted)
        if self._replanner is not None:
            self._replanner.rolled_back(refused, last_good)
        self._restart_rollout()

    def _restart_rollout(self) -> None:
        """Cancel the running apply, so that other plans can be applied once it is rolled back."""
        self._is_deploying, self._canary = True, None
        self._rollout.cancel()

    def _nodes(self) -> Mapping[str, int]:
        return self.controlled.nodes if self._replanner is None else self._replanner.nodes

    def _advance_rollout(self, status: EngineStatus) -> None:
        """Start applying the next state if the engine runs another one and the backoff has expired."""
        desired, fingerprint = self._plans.desired()
        if status.state == fingerprint:
            self._is_deploying = False
            self._rollout.mark_converged()
            return
        if not self._rollout.is_due(self._clock()):
            return
        next_state = self._rollout.next_state(desired, status, self._nodes(), tuple(self.controlled.queries))
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
        self._records.renew(self._lease, self._wall_clock(), self._settings.lease_s)
        await self._renew_engine_lease()

    def _collect_rollout(self) -> bool:
        """Process the outcome of the running apply, if it has finished. Return whether it has."""
        result = self._rollout.poll(self._clock())
        if isinstance(result, RolloutFailed):
            last_good = self._plans.last_good
            can_roll_back = last_good is not None and last_good.fits_nodes(self._nodes())
            if result.failures >= self._settings.attempts and can_roll_back:
                self._roll_back(f"apply failed repeatedly: {result.reason}")
            else:
                self._record(FAILED, "apply", f"{result.reason}; retry in {result.backoff_s:.0f} s")
        elif isinstance(result, RolloutSucceeded):
            description = "deployed" if result.is_final else "intermediate step deployed for lack of headroom"
            self._record(APPLIED, "engine", f"{description} after {result.took_s:.3f} s")
        return result is not None

    async def _report_failed_poll(self, error: Exception) -> None:
        """Report a failed poll once, and restart the engine if possible."""
        message = str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
        if message != self._poll_failure:
            self._poll_failure = message
            self._record(FAILED, "engine", message)
        if self._restart_engine is None or not isinstance(error, ServingError):
            return
        if not self._restart_backoff.is_due(self._clock()):
            return
        try:
            await asyncio.to_thread(self._restart_engine)
            self._restart_backoff.reset()
        except ServingError as failure:
            self._restart_backoff.record_failure(self._clock())
            self._record(FAILED, "engine", f"engine restart failed: {failure}")

    def _record(self, kind: str, subject: str, reason: str) -> None:
        self._record_events([Event(self._wall_clock(), kind, subject, reason)])

    def _record_events(self, events: list[Event]) -> None:
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
        events: list[Event],
        documents: Mapping[str, str | None] | None = None,
        *,
        plans: ActivePlans | None = None,
    ) -> None:
        """Store a decision, then adopt it."""
        decided = plans or self._plans
        stored = self._records.commit(self._lease, decided.checkpoint(), [*self._unstored_events, *events], documents)
        self._plans, self._unstored_events = decided, []
        for event in stored:
            self._on_event(event)
