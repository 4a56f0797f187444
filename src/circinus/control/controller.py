"""The loop: look, decide, keep what was decided, bring it about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from circinus.control.controlled import Controlled
from circinus.control.drift.drifting import Drifting, DriftTools
from circinus.control.in_force import InForce
from circinus.control.ladders.policy import LadderState
from circinus.control.records import (
    APPLIED,
    BEGAN,
    FAILED,
    REPLAN,
    ROLLBACK,
    ControlRecords,
    Event,
)
from circinus.control.replanning.planner import Planner
from circinus.control.replanning.probation import Probation
from circinus.control.replanning.replanning import NODES, NewPlans, NoPlans, Replanning, ReplanSettings
from circinus.control.replanning.rolling import Room, next_state
from circinus.control.replanning.trial import TrialSettings
from circinus.errors import ServingError
from circinus.matching import Changes
from circinus.serving import DesiredState, Engine, EngineStatus
from circinus.serving.lease import Lease, LeaseLostError
from circinus.spec import Deployment


@dataclass(frozen=True)
class ControlSettings:
    """Times of the loop."""

    interval_s: float = 0.25
    """From one look to the next."""
    patience_s: float = 0.1
    """How long a look waits for what it began to bring about; beyond that, that goes on beside the next looks."""
    lease_s: float = 5.0
    """How long another controller must wait for one that ended without a word."""
    first_pause_s: float = 1.0
    """Before what could not be brought about is tried again; doubles every time."""
    longest_pause_s: float = 60.0
    attempts: int = 3
    """Times that new plans are tried to be brought about before those before them come back, where they can."""
    replanning: ReplanSettings = field(default_factory=ReplanSettings)
    trial: TrialSettings = field(default_factory=TrialSettings)


class Controller:
    """Keeps an engine at what a plan file says, steps queries down and up their ladders, and plans again when nodes or
    the plan file are others. New plans are on trial for a while.

    Level-triggered: whatever the engine runs, and whoever was at work before, it is brought to what was last decided.
    What is decided is kept before it is brought about, so that it is neither lost nor decided twice.
    """

    def __init__(
        self,
        engine: Engine,
        controlled: Controlled,
        records: ControlRecords,
        *,
        holder: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        settings: ControlSettings | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        on_status: Callable[[EngineStatus, Controlled, Mapping[str, LadderState]], None] | None = None,
        revive: Callable[[], None] | None = None,
        planner: Planner | None = None,
        engine_lease: Lease | None = None,
        drift: DriftTools | None = None,
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
            revive: starts an engine that does not answer, or raises a ServingError; may block.
            planner: makes other plans; without one, the plans stay as they are.
            engine_lease: of an engine that others, with other records, may control from elsewhere; may block.
            drift: to notice what moved since it was measured, and to measure that again; takes a planner.
        """
        self._plans = InForce(controlled)
        self._engine = engine
        self._records = records
        self._holder = holder
        self._clock = clock
        self._wall_clock = wall_clock
        self._settings = settings or ControlSettings()
        self._on_event = on_event
        self._on_status = on_status
        self._revive = revive
        self._planner = planner
        self._drifting: Drifting | None = None
        if drift is not None and planner is not None:
            self._drifting = Drifting(drift, planner.profiles, clock=clock, wall_clock=wall_clock)
        self._replanning: Replanning | None = None
        self._probation = Probation(self._settings.trial)
        self._lease = 0
        self._engine_lease = engine_lease
        self._engine_lease_number = 0
        self._applying: asyncio.Task[None] | None = None
        self._began_s = 0.0
        """When what is being applied was begun."""
        self._failures = 0
        self._not_before_s = 0.0
        self._silent = False
        """Whether the engine did not answer at the last look."""
        self._arriving = True
        """Whether the plans have not been in force yet, and nothing speaks against their being brought about."""
        self._bringing: DesiredState | None = None
        """What is being applied."""
        self._brought: DesiredState | None = None
        """What was applied last."""

    @property
    def controlled(self) -> Controlled:
        """The plans in force, or being brought about."""
        return self._plans.controlled

    @property
    def ladders(self) -> Mapping[str, LadderState]:
        """Where queries stand."""
        return self._plans.ladders

    def begin(self) -> None:
        """Take the lease, and take up what was decided before.

        Raises:
            LeaseHeldError: another controller is at work.
        """
        now_s = self._wall_clock()
        self._lease = self._records.acquire(self._holder, now_s, self._settings.lease_s)
        if self._engine_lease is not None:
            try:
                self._engine_lease_number = self._engine_lease.acquire(self._holder, now_s, self._settings.lease_s)
            except ServingError:
                self._records.release(self._lease)
                raise
        how = "begins with the plans as they are"
        try:
            if self._plans.take_up(self._records):
                how = "goes on where it was"
        except ServingError as error:
            how = f"{how}, as {error}"
        if self._planner is not None:
            self._replanning = Replanning(self._planner, self.controlled, self._settings.replanning, self._drifting)
        self._commit([Event(now_s, BEGAN, self._holder, how)], adopted=True)

    async def tick(self) -> None:
        """Once: look, decide, keep, bring about. What takes longer than the time to the next look goes on beside it.

        Raises:
            LeaseLostError: another controller took over.
            ServingError: the engine does not answer.
        """
        status = await self._engine.status()
        now_s = self._clock()
        self._step(now_s, status)
        if self._on_status is not None:
            self._on_status(status, self.controlled, self.ladders)
        ended = await self._collect()
        self._notice(status)
        await self._plan_anew(now_s, status)
        await self._judge(now_s, status)
        if self._applying is None and not ended:  # what was brought about meanwhile is not in this status yet
            self._bring_about(status)
        if self._applying is not None:
            await asyncio.wait({self._applying}, timeout=self._settings.patience_s)
            await self._collect()

    async def planned(self) -> None:
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
        looking, renewing = asyncio.create_task(self._look()), asyncio.create_task(self._keep_lease())
        stopping = asyncio.create_task(stop.wait())
        tasks = (looking, renewing, stopping)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, *([] if self._applying is None else [self._applying])):
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            if self._applying is not None:
                await asyncio.gather(self._applying, return_exceptions=True)
            if self._replanning is not None:
                await self._replanning.end()
            if self._drifting is not None:
                await self._drifting.end()
            await self._give_back()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _look(self) -> None:
        while True:
            begin_s = self._clock()
            try:
                await self.tick()
                self._silent = False
            except LeaseLostError:
                raise
            except ServingError as error:
                await self._missed(error)
            await asyncio.sleep(max(0.0, begin_s + self._settings.interval_s - self._clock()))

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_s / 3)
            await self._renew()

    async def _renew(self) -> None:
        """Keep both leases.

        Raises:
            LeaseLostError: one was lost.
        """
        now_s, lasts_s = self._wall_clock(), self._settings.lease_s
        self._records.renew(self._lease, now_s, lasts_s)
        if self._engine_lease is None:
            return
        try:
            await asyncio.to_thread(self._engine_lease.renew, self._engine_lease_number, now_s, lasts_s)
        except LeaseLostError:
            raise
        except ServingError:  # as long as the engine cannot be reached nobody else can take it, either
            return

    async def _give_back(self) -> None:
        self._records.release(self._lease)
        if self._engine_lease is not None:
            with suppress(ServingError):
                await asyncio.to_thread(self._engine_lease.release, self._engine_lease_number)

    def _step(self, now_s: float, status: EngineStatus) -> None:
        """Down or up ladders, unless the deployments of the plans are about to come."""
        control = self._plans.control
        control.read(now_s, status)
        if self._arriving and self._failures == 0 and status.state != self._plans.desired()[1]:
            return
        ladders, events = control.decide(now_s, self._wall_clock(), self.ladders, status)
        self._plans.ladders = ladders
        if events:
            self._commit(events)

    def _notice(self, status: EngineStatus) -> None:
        """What moved since it was measured."""
        if self._drifting is not None:
            events = self._drifting.look(self._engine, status, self.controlled)
            if events:
                self._commit(events)

    async def _plan_anew(self, now_s: float, status: EngineStatus) -> None:
        if self._replanning is None:
            return
        found = self._replanning.found(now_s)
        if isinstance(found, NoPlans):
            self._note(FAILED, "plan", f"no other plans because of {found.why}: {found.reason}")
        elif found is not None:
            await self._adopt(found)
        self._replanning.look(now_s, status, self.controlled)

    async def _adopt(self, found: NewPlans) -> None:
        before, state = self.controlled, self._plans.desired()[1]
        plans = {a.query: a.chosen.plan for a in before.matching.assignments}
        changes = Changes.between(plans, found.controlled.matching)
        self._plans.adopt(found.controlled, found.base)
        event = Event(
            self._wall_clock(), REPLAN, "plans", f"{found.reason}: {changes}", {"why": found.why, **vars(changes)}
        )
        self._commit([event], adopted=True)
        if self._plans.desired()[1] != state:
            self._probation.adopted(before)
            await self._arrive()

    async def _judge(self, now_s: float, status: EngineStatus) -> None:
        """Go back to the plans before, where the new ones do worse."""
        if status.state != self._plans.desired()[1]:
            return
        reason = self._probation.look(now_s, status, self.controlled, self._plans.control.busier)
        if reason:
            await self._roll_back(reason)

    async def _roll_back(self, reason: str) -> None:
        """To the plans before, if they run on what there is."""
        before = self._probation.back_to(self._nodes())
        self._probation.end()
        if before is None:
            self._note(FAILED, "plans", f"{reason}; there are none to go back to")
            return
        why = NODES if before.nodes != self.controlled.nodes else ""
        if self._replanning is not None and why == NODES:
            self._replanning.refuse()
        self._plans.adopt(before)
        self._commit([Event(self._wall_clock(), ROLLBACK, "plans", reason)], adopted=True)
        await self._arrive()

    async def _arrive(self) -> None:
        """Other plans shall be brought about; what is being applied is given up."""
        self._arriving, self._failures, self._not_before_s = True, 0, 0.0
        if self._applying is not None:
            self._applying.cancel()
            await asyncio.wait({self._applying})
            self._applying = None

    def _nodes(self) -> Mapping[str, int]:
        return self.controlled.nodes if self._replanning is None else self._replanning.nodes

    def _bring_about(self, status: EngineStatus) -> None:
        """Begin to, if something else runs and it is time."""
        desired, fingerprint = self._plans.desired()
        if status.state == fingerprint:
            self._failures, self._arriving, self._brought = 0, False, desired
            return
        if self._clock() < self._not_before_s:
            return
        self._began_s, self._bringing = self._clock(), self._next(desired, status)
        self._applying = asyncio.create_task(self._apply(self._bringing))

    async def _apply(self, desired: DesiredState) -> None:
        await self._renew()  # whoever was asleep for long must not overwrite what another one did meanwhile
        await self._engine.apply(desired)

    def _next(self, desired: DesiredState, status: EngineStatus) -> DesiredState:
        """What to apply on the way from what runs, as far as that is known."""
        brought = self._brought
        runs = {found.deployment: found.replicas_wanted for found in status.deployments}
        if brought is None or brought.mode is not desired.mode or runs != _replicas(brought):
            return desired
        if runs == _replicas(desired):
            return desired
        room = Room(desired.infrastructure, self._nodes())
        return next_state(brought, desired, room, tuple(self.controlled.queries))

    async def _collect(self) -> bool:
        """What became of what was being applied; whether that is known."""
        if self._applying is None or not self._applying.done():
            return False
        applied, self._applying = self._applying, None
        try:
            applied.result()
        except LeaseLostError:
            raise
        except ServingError as error:  # what ran before goes on
            pause_s = self._pause_s()
            self._failures += 1
            self._not_before_s = self._clock() + pause_s
            if self._failures >= self._settings.attempts and self._probation.back_to(self._nodes()) is not None:
                await self._roll_back(f"cannot be brought about: {error}")
            else:
                self._note(FAILED, "apply", f"{error}; tried again in {pause_s:.0f} s")
            return True
        self._brought = self._bringing
        whole = self._brought == self._plans.desired()[0]
        words = "in force" if whole else "on the way, for want of room for both at once"
        self._note(APPLIED, "engine", f"{words} after {self._clock() - self._began_s:.3f} s")
        return True

    async def _missed(self, error: ServingError) -> None:
        """The engine does not answer: said once, and it is started again if that can be done."""
        if not self._silent:
            self._note(FAILED, "engine", str(error))
        self._silent = True
        if self._revive is None or self._clock() < self._not_before_s:
            return
        try:
            await asyncio.to_thread(self._revive)
            self._failures = 0
        except ServingError as failure:
            self._not_before_s = self._clock() + self._pause_s()
            self._failures += 1
            self._note(FAILED, "engine", f"it cannot be started again: {failure}")

    def _pause_s(self) -> float:
        return min(self._settings.first_pause_s * 2.0**self._failures, self._settings.longest_pause_s)

    def _note(self, kind: str, subject: str, reason: str) -> None:
        self._commit([Event(self._wall_clock(), kind, subject, reason)])

    def _commit(self, events: list[Event], *, adopted: bool = False) -> None:
        self._records.commit(self._lease, self._plans.content(), events, self._plans.documents() if adopted else None)
        for event in events:
            self._on_event(event)


def _replicas(state: DesiredState) -> dict[Deployment, int]:
    return {wanted.deployment: wanted.replicas for wanted in state.deployments}
