"""The loop: look, decide, keep what was decided, bring it about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from circinus.control.active_plans import ActivePlans
from circinus.control.backoff import Backoff
from circinus.control.drift.drift_monitor import DriftDependencies, DriftMonitor
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

_KNOWN = "states"
"""Name of the document with the states of which the engine may run one."""
_MEASURED = "measured"
"""Name of the document with what was measured again."""


class Controller:
    """Keeps an engine at what a plan file says, steps queries down and up their ladders, and plans again when nodes or
    the plan file are others, or what was measured is not so any more. New plans are on trial for a while.

    Level-triggered: whatever the engine runs, and whoever was at work before, it is brought to what was last decided.
    What is decided is kept before it is brought about, so that it is neither lost nor decided twice.
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
        """Nothing is done yet.

        Args:
            engine: to control.
            controlled: what it shall run.
            records: where decisions are kept.
            holder: who this is, for others who want to control.
            clock: seconds that never go back.
            wall_clock: seconds since 1970.
            settings: times.
            on_event: told what happened, when it is kept.
            on_status: told what was seen, the plans, and where queries stand, at every look.
            restart_engine: starts an engine that does not answer, or raises a ServingError; may block.
            planner: makes other plans; without one, the plans stay as they are.
            engine_lease: of an engine that others, with other records, may control from elsewhere; may block.
            drift: to notice what moved since it was measured, and to measure that again; takes a planner.
        """
        self._settings = times = settings or ControlSettings()
        self._plans = ActivePlans.of(controlled)
        self._engine, self._records, self._holder = engine, records, holder
        self._clock, self._wall_clock = clock, wall_clock
        self._on_event, self._on_status, self._revive = on_event, on_status, restart_engine
        self._lease, self._engine_lease, self._engine_lease_number = 0, engine_lease, 0
        self._applying = Rollout(self._apply, Backoff(times.initial_backoff_s, times.max_backoff_s), clock)
        self._reviving = Backoff(times.initial_backoff_s, times.max_backoff_s)
        self._silent = ""
        """Why the engine could not be looked at the last time; empty: it could."""
        self._unkept: list[Event] = []
        """What happened and could not be kept yet: unlike what is decided, it does not happen again."""
        self._arriving = True
        """Whether the plans have not been in force yet, and nothing speaks against their being brought about."""
        self._trial: CanaryAnalysis | None = None
        self._planner, self._replanning = planner, None if planner is None else self._new_replanning(planner, None)
        self._drifting: DriftMonitor | None = None
        if drift is not None and planner is not None:
            self._drifting = DriftMonitor(drift, planner.profiles, clock=clock, wall_clock=wall_clock)

    @property
    def controlled(self) -> ManagedPlans:
        """The plans in force, or being brought about."""
        return self._plans.controlled

    @property
    def ladders(self) -> Mapping[str, LadderState]:
        """Where queries stand."""
        return self._plans.ladders

    def start(self) -> None:
        """Take the lease, and take up what was decided before.

        Raises:
            LeaseHeldError: another controller is at work.
            ServingError: the leases cannot be reached.
        """
        now_s = self._wall_clock()
        self._lease = self._records.acquire(self._holder, now_s, self._settings.lease_s)
        try:
            if self._engine_lease is not None:
                self._engine_lease_number = self._engine_lease.acquire(self._holder, now_s, self._settings.lease_s)
            how = self._take_up()
            if self._planner is not None:
                self._replanning = self._new_replanning(self._planner, self._drifting)
            self._commit([Event(now_s, STARTED, self._holder, how)], self._plans.plan_documents())
        except BaseException:
            with suppress(ServingError):
                self._records.release(self._lease)
            if self._engine_lease is not None and self._engine_lease_number:
                with suppress(ServingError):
                    self._engine_lease.release(self._engine_lease_number)
            raise

    async def reconcile(self) -> None:
        """Once: look, decide, keep, bring about. What takes longer than the time to the next look goes on beside it.

        Raises:
            LeaseLostError: another controller took over.
            ServingError: the engine does not answer, or what was decided cannot be kept.
        """
        began_s = self._clock()
        status = await self._status()
        now_s = self._clock()
        self._step(began_s, now_s, status)
        if self._on_status is not None:
            self._on_status(status, self.controlled, self.ladders)
        ended = self._collect()
        await self._notice(status)
        self._plan_anew(now_s, status)
        self._judge(now_s, status)
        if not ended:  # what was brought about meanwhile is not in this status yet
            self._bring_about(status)
        await self._applying.wait(self._settings.apply_wait_s)
        self._collect()
        if self._unkept:
            self._commit([])

    async def wait_idle(self) -> None:
        """Wait until what goes on beside the loop is done, such as planning; the next tick goes by it."""
        if self._drifting is not None:
            await self._drifting.wait()
        if self._replanning is not None:
            await self._replanning.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until told to stop, then give the lease back. What is being applied then is given up, and undone.

        Raises:
            LeaseLostError: another controller took over.
        """
        works = (self._look(), self._keep_records(), self._keep_engine(), stop.wait())
        tasks = [asyncio.create_task(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            self._applying.cancel()
            await self._applying.wait()
            for part in (self._replanning, self._drifting):
                if part is not None:
                    await part.close(self._settings.shutdown_timeout_s)
            await self._give_back()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _look(self) -> None:
        while True:
            begin_s = self._clock()
            try:
                await self.reconcile()
                self._silent = ""
            except LeaseLostError:
                raise
            except StateStoreError as error:  # nothing was decided that is not kept, and what happened is kept later
                self._on_event(Event(self._wall_clock(), FAILED, "records", str(error)))
            except Exception as error:  # whatever it is, queries must not stay without a controller
                with suppress(StateStoreError):
                    await self._missed(error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                with suppress(StateStoreError):
                    await self._missed(ServingError("the engine cancelled the call", code="engine.cancelled"))
            await asyncio.sleep(max(0.0, begin_s + self._settings.interval_s - self._clock()))

    async def _status(self) -> EngineStatus:
        try:
            async with asyncio.timeout(self._settings.status_timeout_s):
                return await self._engine.status()
        except TimeoutError:
            raise ServingError(
                f"the engine does not answer within {self._settings.status_timeout_s:g} s", code="engine.silent"
            ) from None

    def _take_up(self) -> str:
        """Go on where an earlier controller ended, if one did; how, in words."""
        how = "begins with the plans as they are"
        try:
            known = self._records.document(_KNOWN)
            self._applying.restore([] if known is None else [state_from_json(text) for text in json.loads(known)])
            measured = self._records.document(_MEASURED)
            if self._drifting is not None and measured is not None:
                self._drifting.restore(measured)
            found = self._plans.restored(self._records)
        except (ServingError, ValueError) as error:
            return f"{how}, as {error}"
        if found is None:
            other = "what was decided before was for another plan file or other options"
            return how if self._records.state() is None else f"{how}; {other}"
        self._plans = found
        return "goes on where it was"

    def _new_replanning(self, planner: ReplanDependencies, drifting: DriftMonitor | None) -> Replanner:
        return Replanner(
            planner, self._plans.controlled, self._plans.plan_file_fingerprint, self._settings.replanning, drifting
        )

    async def _keep_records(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            with suppress(StateStoreError):  # nothing is applied without it
                self._records.renew(self._lease, self._wall_clock(), self._settings.lease_s)

    async def _keep_engine(self) -> None:
        """Beside that of the records, which must not wait for an engine that does not answer."""
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            try:
                await self._renew_engine_lease()
            except LeaseLostError:
                raise
            except ServingError:  # nothing is applied without it, either
                continue

    async def _renew_engine_lease(self) -> None:
        if self._engine_lease is not None:
            arguments = self._engine_lease_number, self._wall_clock(), self._settings.lease_s
            await asyncio.to_thread(self._engine_lease.renew, *arguments)

    async def _give_back(self) -> None:
        with suppress(StateStoreError):
            self._records.release(self._lease)
        if self._engine_lease is not None:
            with suppress(ServingError):
                await asyncio.to_thread(self._engine_lease.release, self._engine_lease_number)

    def _step(self, began_s: float, now_s: float, status: EngineStatus) -> None:
        """Down or up ladders, unless the deployments of the plans are about to come."""
        control = self._plans.control
        control.observe(now_s, status, began_s)
        if self._arriving and self._applying.failures == 0 and status.state != self._plans.desired()[1]:
            return
        ladders, events = control.decide(now_s, self._wall_clock(), self.ladders, status)
        stepped = self._plans.with_ladders(ladders)
        if events:
            self._commit(events, plans=stepped)
        self._plans = stepped

    async def _notice(self, status: EngineStatus) -> None:
        """What moved since it was measured."""
        if self._drifting is not None:
            events = await self._drifting.poll(self._engine, status, self.controlled)
            if events:
                self._happened(events)

    def _plan_anew(self, now_s: float, status: EngineStatus) -> None:
        if self._replanning is None:
            return
        found = self._replanning.poll(now_s)
        if isinstance(found, ReplanFailed):
            self._note(FAILED, "plan", f"no other plans because of {found.why}: {found.reason}")
        elif found is not None:
            self._adopt(found)
        self._replanning.schedule(now_s, status, self.controlled)

    def _adopt(self, found: ReplanReady) -> None:
        assert self._replanning is not None, "it made them"
        before, state = self.controlled, self._plans.desired()[1]
        changes = PlanDiff.between(
            {a.query: a.chosen.plan for a in before.matching.assignments}, found.controlled.matching
        )
        adopted = self._plans.with_plans(found.controlled, found.base, self._plans.last_good or before)
        if adopted.desired()[1] == state:
            adopted = replace(adopted, last_good=self._plans.last_good)
        details = {"why": found.why, **vars(changes)}
        event = Event(self._wall_clock(), REPLAN, "plans", f"{found.reason}: {changes}", details)
        self._commit(
            [event], {**adopted.plan_documents(), _MEASURED: self._replanning.pending_overrides()}, plans=adopted
        )
        self._replanning.commit(found)
        if adopted.desired()[1] != state:
            self._arrive()

    def _judge(self, now_s: float, status: EngineStatus) -> None:
        """Go back to the plans before, where the new ones do worse."""
        if self._plans.last_good is None or status.state != self._plans.desired()[1]:
            return
        queries = self.controlled.queries
        if self._trial is None:
            self._trial = CanaryAnalysis.begin(now_s, status, queries)
            return
        reason = self._trial.regression_reason(
            status, queries, self._plans.control.above_planned_rate, self._settings.trial
        )
        if reason:
            self._roll_back(reason)
        elif self._trial.is_complete(now_s, self._settings.trial):
            self._prove()

    def _prove(self) -> None:
        """There is nothing to go back to any more."""
        proven = replace(self._plans, last_good=None)
        self._commit([], proven.plan_documents(), plans=proven)
        self._trial = None

    def _roll_back(self, reason: str) -> None:
        """To the plans before, if they run on what there is."""
        before, now = self._plans.last_good, self.controlled
        if before is None or not before.fits_nodes(self._nodes()):
            self._prove()
            self._note(FAILED, "plans", f"{reason}; there are none to go back to")
            return
        adopted = self._plans.with_plans(before)
        self._commit([Event(self._wall_clock(), ROLLBACK, "plans", reason)], adopted.plan_documents(), plans=adopted)
        if self._replanning is not None:
            self._replanning.rolled_back(now, before)
        self._arrive()

    def _arrive(self) -> None:
        """Other plans shall be brought about, once what is being applied is given up and undone."""
        self._arriving, self._trial = True, None
        self._applying.cancel()

    def _nodes(self) -> Mapping[str, int]:
        return self.controlled.nodes if self._replanning is None else self._replanning.nodes

    def _bring_about(self, status: EngineStatus) -> None:
        """Begin to, if something else runs and it is time."""
        desired, fingerprint = self._plans.desired()
        if status.state == fingerprint:
            self._arriving = False
            self._applying.mark_converged()
            return
        if not self._applying.is_due(self._clock()):
            return
        following = self._applying.next_state(desired, status, self._nodes(), tuple(self.controlled.queries))
        if self._applying.remember(following, status):  # whoever goes on must know what may run by then
            self._commit([], {_KNOWN: json.dumps([state_to_json(state) for state in self._applying.possible_states])})
        self._applying.start(following, whole=following == desired)

    async def _apply(self, desired: DesiredState) -> None:
        await self._still_here()
        if isinstance(self._engine, FencedEngine):
            await self._engine.apply_fenced(desired, self._still_here)
        else:
            await self._engine.apply(desired)

    async def _still_here(self) -> None:
        """Whoever was asleep for long must not overwrite what another one did meanwhile."""
        self._records.renew(self._lease, self._wall_clock(), self._settings.lease_s)
        await self._renew_engine_lease()

    def _collect(self) -> bool:
        """What became of what was being applied; whether that is known."""
        found = self._applying.poll(self._clock())
        if isinstance(found, RolloutFailed):
            before = self._plans.last_good
            if found.failures >= self._settings.attempts and before is not None and before.fits_nodes(self._nodes()):
                self._roll_back(f"cannot be brought about: {found.reason}")
            else:
                self._note(FAILED, "apply", f"{found.reason}; tried again in {found.pause_s:.0f} s")
        elif isinstance(found, RolloutSucceeded):
            words = "in force" if found.is_final else "on the way, for want of room for both at once"
            self._note(APPLIED, "engine", f"{words} after {found.took_s:.3f} s")
        return found is not None

    async def _missed(self, error: Exception) -> None:
        """A look failed: said once, and the engine is started again if that can be done."""
        words = str(error) if isinstance(error, ServingError) else f"{type(error).__name__}: {error}"
        if words != self._silent:
            self._silent = words
            self._note(FAILED, "engine", words)
        if self._revive is None or not isinstance(error, ServingError) or not self._reviving.is_due(self._clock()):
            return
        try:
            await asyncio.to_thread(self._revive)
            self._reviving.reset()
        except ServingError as failure:
            self._reviving.record_failure(self._clock())
            self._note(FAILED, "engine", f"it cannot be started again: {failure}")

    def _note(self, kind: str, subject: str, reason: str) -> None:
        self._happened([Event(self._wall_clock(), kind, subject, reason)])

    def _happened(self, events: list[Event]) -> None:
        """Keep what is not decided here, now or as soon as that can be done."""
        try:
            self._commit(events)
        except StateStoreError:
            self._unkept += events
            raise

    def _commit(
        self,
        events: list[Event],
        documents: Mapping[str, str | None] | None = None,
        *,
        plans: ActivePlans | None = None,
    ) -> None:
        """Keep what was decided, and then go by it."""
        decided = plans or self._plans
        kept = self._records.commit(self._lease, decided.checkpoint(), [*self._unkept, *events], documents)
        self._plans, self._unkept = decided, []
        for event in kept:
            self._on_event(event)
