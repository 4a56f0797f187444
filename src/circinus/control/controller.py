"""The loop: look, decide, keep what was decided, bring it about."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from circinus.control.controlled import Controlled
from circinus.control.ladder_policy import LadderState, ladder_step
from circinus.control.rates import RateMeter
from circinus.control.records import ControlRecords, Event, LeaseLostError
from circinus.control.rung_views import Loads, QueryLoad
from circinus.errors import ServingError
from circinus.serving import DesiredState, Engine, EngineStatus
from circinus.serving.state_file import desired_fingerprint

STEP, FAILED, APPLIED, BEGAN = "step", "failed", "applied", "began"
"""Kinds of events."""


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


class LadderControl:
    """Which rung every query should be on. Keeps nothing but counters that it read."""

    def __init__(self, controlled: Controlled) -> None:
        self._controlled = controlled
        self._meters = {name: RateMeter() for name in controlled.queries}

    def decide(
        self, now_s: float, time_s: float, ladders: Mapping[str, LadderState], status: EngineStatus
    ) -> tuple[dict[str, LadderState], list[Event]]:
        """The next states of all queries, and the steps among them.

        Args:
            now_s: by a clock that never goes back.
            time_s: seconds since 1970, for the events.
            ladders: where queries stand.
            status: of the engine.
        """
        rungs = self._controlled.rungs
        counts = {query.query: query.entered for query in status.queries}
        known = {}
        for name in counts.keys() & self._meters.keys():
            rate = self._meters[name].read(now_s, counts[name])
            if rate is not None:
                known[name] = QueryLoad(rungs[name][ladders[name].rung], rate)
        loads = Loads(known, {found.deployment: found for found in status.deployments})
        found, events = dict(ladders), []
        for name, settings in self._controlled.ladder_settings.items():
            if name not in loads:
                continue
            step = ladder_step(now_s, found[name], loads.views(name, rungs[name]), settings)
            if step.reason:
                rate_per_s = loads.rate(name).likely_per_s
                details = {"from": found[name].rung, "to": step.state.rung, "rate_per_s": rate_per_s}
                events.append(Event(time_s, STEP, name, step.reason, details))
                loads.move(name, rungs[name][step.state.rung])
            found[name] = step.state
        return found, events


class Controller:
    """Keeps an engine at what a plan file says, and steps queries down and up their ladders.

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
        """
        self.ladders = controlled.at_first()
        self._engine = engine
        self._controlled = controlled
        self._records = records
        self._holder = holder
        self._clock = clock
        self._wall_clock = wall_clock
        self._settings = settings or ControlSettings()
        self._on_event = on_event
        self._on_status = on_status
        self._revive = revive
        self._ladder_control = LadderControl(controlled)
        self._lease = 0
        self._applying: asyncio.Task[None] | None = None
        self._began_s = 0.0
        """When what is being applied was begun."""
        self._failures = 0
        self._not_before_s = 0.0
        self._silent = False
        """Whether the engine did not answer at the last look."""
        self._states: dict[tuple[int, ...], tuple[DesiredState, str]] = {}
        """Rungs -> the desired state and its fingerprint."""

    def begin(self) -> None:
        """Take the lease, and take up what was decided before.

        Raises:
            LeaseHeldError: another controller is at work.
        """
        now_s = self._wall_clock()
        self._lease = self._records.acquire(self._holder, now_s, self._settings.lease_s)
        kept = self._records.state()
        known = None if kept is None else _ladders_of(kept, self._controlled)
        self.ladders = known or self.ladders
        how = "goes on where it was" if known else "begins with the plans as they are"
        self._commit([Event(now_s, BEGAN, self._holder, how)])

    async def tick(self) -> None:
        """Once: look, decide, keep, bring about. What takes longer than the time to the next look goes on beside it.

        Raises:
            LeaseLostError: another controller took over.
            ServingError: the engine does not answer.
        """
        status = await self._engine.status()
        time_s = self._wall_clock()
        self.ladders, events = self._ladder_control.decide(self._clock(), time_s, self.ladders, status)
        if events:
            self._commit(events)
        if self._on_status is not None:
            self._on_status(status, self._controlled, self.ladders)
        self._collect()
        if self._applying is None:
            self._bring_about(status)
        if self._applying is not None:
            await asyncio.wait({self._applying}, timeout=self._settings.patience_s)
            self._collect()

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
            self._records.release(self._lease)
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
            self._renew()

    def _renew(self) -> None:
        self._records.renew(self._lease, self._wall_clock(), self._settings.lease_s)

    def _desired(self) -> tuple[DesiredState, str]:
        key = tuple(state.rung for state in self.ladders.values())
        if key not in self._states:
            desired = self._controlled.desired(self.ladders)
            self._states[key] = desired, desired_fingerprint(desired)
        return self._states[key]

    def _bring_about(self, status: EngineStatus) -> None:
        """Begin to, if something else runs and it is time."""
        desired, fingerprint = self._desired()
        if status.state == fingerprint:
            self._failures = 0
            return
        if self._clock() < self._not_before_s:
            return
        self._renew()  # whoever was asleep for long must not overwrite what another one did meanwhile
        self._began_s = self._clock()
        self._applying = asyncio.create_task(self._engine.apply(desired))

    def _collect(self) -> None:
        """What became of what was being applied, if that is known."""
        if self._applying is None or not self._applying.done():
            return
        applied, self._applying = self._applying, None
        try:
            applied.result()
        except ServingError as error:  # what ran before goes on
            pause_s = self._pause_s()
            self._failures += 1
            self._not_before_s = self._clock() + pause_s
            self._note(FAILED, "apply", f"{error}; tried again in {pause_s:.0f} s")
            return
        self._note(APPLIED, "engine", f"in force after {self._clock() - self._began_s:.3f} s")

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

    def _commit(self, events: list[Event]) -> None:
        content = {
            "plan": self._controlled.fingerprint,
            "ladders": {name: [state.rung, state.chosen] for name, state in self.ladders.items()},
        }
        self._records.commit(self._lease, json.dumps(content), events)
        for event in events:
            self._on_event(event)


def _ladders_of(kept: str, controlled: Controlled) -> dict[str, LadderState] | None:
    """Where queries stood; None where that was under other plans.

    Times are by a clock that began anew: what was calm must prove so again.
    """
    content = json.loads(kept)
    if content.get("plan") != controlled.fingerprint:
        return None
    return {name: LadderState(rung, chosen) for name, (rung, chosen) in content["ladders"].items()}
