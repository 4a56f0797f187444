"""Audits, watches and measuring again, beside the loop: nothing of it keeps the loop waiting."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from circinus.control.background_task import BackgroundTask, TaskFailed, TaskSucceeded
from circinus.control.backoff import Backoff
from circinus.control.drift.audit_scores import Agreements, AuditScore
from circinus.control.drift.auditor import Auditor
from circinus.control.drift.auditor import AuditResult as Scored
from circinus.control.drift.drift_tests import AccuracyMonitor, DriftAlarm, DriftSettings, LatencySloMonitor
from circinus.control.drift.ground_truth import GroundTruthSource
from circinus.control.drift.monitors import MonitorSet
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.drift.recent_items import RecentItems
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.control.drift.reprofile import ReprofileResult, reprofile
from circinus.control.managed_plans import ManagedPlans
from circinus.control.state_store import DRIFT, FAILED, NOT_MONITORED, Event
from circinus.errors import ServingError
from circinus.profiling import PipelineProfile, ServiceTimeObservation
from circinus.serving import AuditableEngine, Engine, EngineStatus, Mode
from circinus.specification import Configuration, QueryPlan, Specification

Profiles = Mapping[str, PipelineProfile]
Pair = tuple[str, Configuration, Configuration]

_SAID_EVERY_S = 60.0
"""Failures of audits are told so often at most: there may be one with every request."""
_NAMED = 3
"""Of what is not watched; all of it is in the event's details."""
_ANSWER_S = 5.0
"""How long an engine may take to hand over answers."""


@dataclass(frozen=True)
class DriftDependencies:
    """What noticing drift needs besides an engine and plans. All of it may block."""

    answers: Callable[[Specification], ReferenceRunner]
    """Runs other configurations on items that came."""
    agreements: Callable[[Specification, Sequence[Pair]], Agreements]
    """How well recorded answers of two configurations agree; records what is missing, where it can."""
    keep: Callable[[Sequence[ServiceTimeObservation]], None] = lambda observations: None
    """Keeps what was observed of service times for those who plan later."""
    truths: GroundTruthSource | None = None
    truth_patience_s: float = 0.0
    """How long an answer waits for its truth before it is held against another answer."""
    on_scores: Callable[[Sequence[AuditScore]], None] = lambda scores: None
    """Told of answers that were audited."""
    settings: DriftSettings = field(default_factory=DriftSettings)
    audits_every_s: float = 1.0
    """How often the engine is asked for answers to audit."""
    audits_at_once: int = 4
    """Answers that are re-run before the next look at what came of them."""
    budget_s: float = 60.0
    """For measuring again."""
    pause_s: float = 30.0
    """Before what could not be measured again yet is tried again."""


@dataclass(eq=False)
class _Fitted:
    """What is watched under some plans."""

    controlled: ManagedPlans
    plans: Mapping[str, Sequence[QueryPlan]]
    stored: Profiles
    """What the store says."""
    profiles: Profiles
    """What is known: that, and what was measured again."""
    auditor: Auditor | None
    """None: nothing is audited."""
    answers: ReferenceRunner
    watch: MonitorSet


@dataclass(frozen=True)
class ReprofileOutcome:
    """What came of measuring again what moved."""

    moved: tuple[DriftAlarm, ...]
    again: ReprofileResult
    stored: Profiles
    """What the store said."""
    came: Mapping[str, int]
    """Pipeline whose data moved -> items that had come since."""

    @property
    def changed(self) -> Profiles:
        """Of the pipelines that were measured again."""
        return self.again.profiles

    @property
    def notes(self) -> tuple[str, ...]:
        """What was measured on what."""
        return self.again.notes


class DriftMonitor:
    """Notices what moved since it was measured, and measures that again when it is asked to."""

    def __init__(
        self,
        tools: DriftDependencies,
        profiles: Callable[[ManagedPlans], Profiles],
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Nothing is watched before the first look.

        Args:
            tools: see there.
            profiles: what was measured of the pipelines of some plans, before anything moved.
            clock: seconds that never go back.
            wall_clock: seconds since 1970.
        """
        self._tools, self._stored, self._clock, self._wall_clock = tools, profiles, clock, wall_clock
        self._fitted: _Fitted | None = None
        self._fits: ManagedPlans | None = None
        """The plans that what is watched was made for."""
        self._fitting: BackgroundTask[_Fitted] = BackgroundTask()
        self._scoring: BackgroundTask[Scored] = BackgroundTask()
        self._scores: tuple[AuditScore, ...] = ()
        """That no watch has seen."""
        self._audited_s = -math.inf
        self._measured = ProfileOverrides()
        self._live = RecentItems()
        self._moved: list[DriftAlarm] = []
        """What waits to be measured again."""
        self._few: dict[str, tuple[DriftAlarm, int]] = {}
        """Pipeline whose data moved -> what did, and how many items had come when it was measured: on twice as many,
        more can be promised."""
        self._refit, self._remeasure = (Backoff(tools.pause_s, tools.pause_s) for _ in range(2))
        self._unwatched: frozenset[str] = frozenset()
        """What is not watched, as it was told."""
        self._failures: list[str] = []
        self._said_s = -math.inf
        """When failures were last told."""
        self._at_work = threading.Lock()
        """Answers are computed by one at a time."""

    def restore(self, text: str) -> None:
        """What an earlier controller measured again.

        Raises:
            ServingError: it cannot be read.
        """
        self._measured = ProfileOverrides.from_document(text)

    def to_json(self, more: ReprofileOutcome | None = None) -> str | None:
        """What was measured again, to be kept; None: nothing."""
        return self._with(more).document()

    def profile_overrides(self, stored: Profiles, more: ReprofileOutcome | None = None) -> Profiles:
        """Pipeline -> what was measured of it again, unless the store is newer."""
        return self._with(more).without_stale(stored).profiles

    def _with(self, more: ReprofileOutcome | None) -> ProfileOverrides:
        return self._measured if more is None else self._measured.merged_with(more.again, more.stored)

    async def poll(self, engine: Engine, status: EngineStatus, controlled: ManagedPlans) -> list[Event]:
        """What moved, what cannot be watched, and what failed, each told once.

        Begins what takes longer, and goes on with it at the next look.

        Args:
            engine: of which answers are audited.
            status: of it.
            controlled: the plans in force.
        """
        now_s, time_s = self._clock(), self._wall_clock()
        moved: tuple[DriftAlarm, ...] = ()
        events: list[Event] = []
        self._collect()
        if self._fit(now_s, controlled):
            assert self._fitted is not None
            await self._audit(now_s, time_s, engine, self._fitted.auditor)
            scores, self._scores = self._scores, ()
            moved = self._fitted.watch.look(now_s, time_s, status, scores)
            self._moved += [one for one in moved if not isinstance(one.watch, LatencySloMonitor)]
            self._moved += self._with_more_items()
            events += self._not_watched(time_s, self._fitted.watch.unwatched)
        events += [_event(time_s, one) for one in moved]
        if self._failures and now_s - self._said_s >= _SAID_EVERY_S:
            failures, self._failures, self._said_s = self._failures, [], now_s
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            events.append(Event(time_s, FAILED, "audit", f"{failures[0]}{more}"))
        return events

    def reprofile_due(self, now_s: float) -> bool:
        """Whether something waits to be measured again."""
        return (
            bool(self._moved) and self._fitted is not None and not self._fitting.busy and self._remeasure.is_due(now_s)
        )

    def reprofile_task(self) -> Callable[[], ReprofileOutcome]:
        """What measures again what moved. It may block for long and touches nothing here; `took` goes by its result."""
        fitted, moved, live = self._fitted, tuple(self._moved), self._live.copy()
        assert fitted is not None, "something moved"
        data = {one.watch.pipeline: one for one in moved if isinstance(one.watch, AccuracyMonitor)}
        came = {name: len(live.since(name, one.since_s)) for name, one in data.items()}

        def remeasure() -> ReprofileOutcome:
            with self._at_work:
                again = reprofile(
                    moved,
                    fitted.controlled.specification,
                    fitted.plans,
                    fitted.profiles,
                    live,
                    fitted.answers,
                    time_s=self._wall_clock(),
                    clock=self._clock,
                    budget_s=self._tools.budget_s,
                    mode=fitted.controlled.mode.value,
                )
            self._tools.keep(again.observations)
            return ReprofileOutcome(moved, again, fitted.stored, came)

        return remeasure

    def commit_reprofile(self, found: ReprofileOutcome) -> None:
        """What was measured again is known from now on."""
        again = found.again
        left = again.still_pending(found.moved)
        self._moved = [one for one in self._moved if one in left or one not in found.moved]
        if again.pending_reasons:
            self._failures += [f"not measured again yet: {wait}" for wait in again.pending_reasons]
            self._remeasure.record_failure(self._clock())
        else:
            self._remeasure.reset()
        if not again.profiles:
            return
        self._measured = self._measured.merged_with(again, found.stored)
        for one in found.moved:
            if isinstance(one.watch, AccuracyMonitor) and one.watch.pipeline in again.pipelines_with_data_drift:
                self._few[one.watch.pipeline] = one, found.came[one.watch.pipeline]
        self._fits = None

    def _with_more_items(self) -> list[DriftAlarm]:
        """Data that moved and of which twice as many items have come as were measured; each time once."""
        found = []
        for pipeline, (moved, items) in list(self._few.items()):
            if len(self._live.since(pipeline, moved.since_s)) >= 2 * items:
                del self._few[pipeline]
                found.append(moved)
        return found

    def _not_watched(self, time_s: float, unwatched: Sequence[str]) -> list[Event]:
        """Told whenever there is more of it than was told before."""
        told, self._unwatched = self._unwatched, frozenset(unwatched)
        new = [one for one in unwatched if one not in told]
        if not new:
            return []
        more = f"; and {len(new) - _NAMED} more" if len(new) > _NAMED else ""
        return [Event(time_s, NOT_MONITORED, "drift", f"not watched: {'; '.join(new[:_NAMED])}{more}", {"all": new})]

    async def wait(self) -> None:
        """Until what goes on beside the loop is done; the next look goes by it."""
        await self._fitting.wait()
        await self._scoring.wait()

    async def close(self, patience_s: float) -> None:
        """Wait for what goes on, though not for long, and end the processes that answered."""
        await self._fitting.wait(patience_s)
        await self._scoring.wait(patience_s)
        _close(self._fitted)

    def _fit(self, now_s: float, controlled: ManagedPlans) -> bool:
        """Whether what is watched fits the plans in force; it is made to fit beside the loop."""
        result = self._fitting.poll()
        if isinstance(result, TaskFailed):
            self._failures.append(f"nothing is watched: {result.reason}")
            self._fits = None
            self._refit.record_failure(now_s)
        elif isinstance(result, TaskSucceeded):
            self._fitted = result.value
            self._refit.reset()
            self._forget_gone(result.value.profiles)
        if self._fits is controlled and not self._fitting.busy:
            return self._fitted is not None
        if not self._fitting.busy and not self._scoring.busy and self._refit.is_due(now_s):
            self._fits = controlled
            self._fitting.start(partial(self._fitted_to, controlled, self._fitted, self._measured))
        return False

    def _forget_gone(self, profiles: Profiles) -> None:
        """What moved in pipelines that nobody asks for any more: none of it can be measured."""
        self._moved = [
            one
            for one in self._moved
            if not isinstance(one.watch, LatencySloMonitor) and one.watch.pipeline in profiles
        ]
        self._few = {name: few for name, few in self._few.items() if name in profiles}

    def _fitted_to(self, controlled: ManagedPlans, before: _Fitted | None, known: ProfileOverrides) -> _Fitted:
        specification, stored = controlled.specification, self._stored(controlled)
        measured = known.without_stale(stored)
        profiles = {**stored, **measured.profiles}
        plans = {name: [rung.candidate.plan for rung in rungs] for name, rungs in controlled.rungs.items()}
        with self._at_work:
            if before is None or before.controlled.specification != specification:
                _close(before)
                answers, auditor = self._tools.answers(specification), None
            else:
                answers, auditor = before.answers, before.auditor
            if auditor is not None:
                auditor.update_profiles(profiles)
            elif controlled.audited_share > 0:
                auditor = Auditor(
                    specification,
                    profiles,
                    answers,
                    self._tools.truths,
                    truth_patience_s=self._tools.truth_patience_s,
                )
            agreements = {} if auditor is None else self._expected(specification, plans, auditor, measured)
            if before is None:
                replays = controlled.mode is Mode.REPLAY
                watch = MonitorSet(
                    specification, plans, profiles, self._tools.settings, replays=replays, agreements=agreements
                )
            else:
                watch = before.watch
                watch.rebuild(specification, plans, profiles, agreements, measured.without_truth)
        return _Fitted(controlled, plans, stored, profiles, auditor, answers, watch)

    def _expected(
        self,
        specification: Specification,
        plans: Mapping[str, Sequence[QueryPlan]],
        auditor: Auditor,
        measured: ProfileOverrides,
    ) -> Agreements:
        used: dict[str, dict[Configuration, None]] = {}
        for its in plans.values():
            for plan in its:
                used.setdefault(plan.pipeline, {})[plan.configuration] = None
        pairs = [pair for pair in auditor.pairs(used) if pair[0] not in measured.data_moved]
        return {**self._tools.agreements(specification, pairs), **measured.agreements}

    def _collect(self) -> None:
        """Scores that are there."""
        result = self._scoring.poll()
        if isinstance(result, TaskFailed):
            self._failures.append(result.reason)
        elif isinstance(result, TaskSucceeded):
            self._scores += result.value.scores
            self._live.add(result.value.items)
            self._failures.extend(result.value.failures)
            self._tools.on_scores(result.value.scores)

    async def _audit(self, now_s: float, time_s: float, engine: Engine, auditor: Auditor | None) -> None:
        """Begin to score answers, if it is time."""
        due = now_s - self._audited_s >= self._tools.audits_every_s
        if auditor is None or not due or self._scoring.busy or not isinstance(engine, AuditableEngine):
            return
        self._audited_s = now_s
        try:
            async with asyncio.timeout(_ANSWER_S):
                handed = await engine.drain_audits()
        except (ServingError, TimeoutError) as error:
            self._failures.append(f"no answers to audit: {error or 'the engine does not answer'}")
            return
        auditor.drain(handed.samples, time_s)
        self._scoring.start(partial(self._scored, auditor, time_s))

    def _scored(self, auditor: Auditor, time_s: float) -> Scored:
        with self._at_work:
            return auditor.score(time_s, most=self._tools.audits_at_once)


def _close(fitted: _Fitted | None) -> None:
    """End the processes that answered, if there are any."""
    close = getattr(None if fitted is None else fitted.answers, "close", None)
    if close is not None:
        close()


def _event(time_s: float, moved: DriftAlarm) -> Event:
    """Its subject says already what is watched."""
    subject = str(moved.watch)
    return Event(time_s, DRIFT, subject, moved.reason.removeprefix(f"{subject}: "), moved.details)
