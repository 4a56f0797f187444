"""Audits, watches and measuring again, beside the loop: nothing of it keeps the loop waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from circinus.control.controlled import Controlled
from circinus.control.drift.answers import Answers
from circinus.control.drift.audit import Auditor
from circinus.control.drift.audit_scores import Agreements, AuditScore
from circinus.control.drift.live_items import LiveItems
from circinus.control.drift.reprofile import reprofile
from circinus.control.drift.truths import Truths
from circinus.control.drift.watches import AccuracyWatch, DriftSettings, GoodputWatch, Moved
from circinus.control.drift.watching import DriftWatch
from circinus.control.records import DRIFT, FAILED, Event
from circinus.errors import CircinusError
from circinus.profiling import Observation, PipelineProfile
from circinus.serving import Audited, Engine, EngineStatus, Mode
from circinus.spec import Configuration, Plan, Specification

Profiles = Mapping[str, PipelineProfile]
Pair = tuple[str, Configuration, Configuration]


@dataclass(frozen=True)
class DriftTools:
    """What noticing drift needs besides an engine and plans. All of it may block."""

    answers: Callable[[Specification], Answers]
    """Runs other configurations on items that came."""
    agreements: Callable[[Specification, Sequence[Pair]], Agreements]
    """How well recorded answers of two configurations agree; records what is missing, where it can."""
    keep: Callable[[Sequence[Observation]], None] = lambda observations: None
    """Keeps what was observed of service times for those who plan later."""
    truths: Truths | None = None
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

    specification: Specification
    mode: Mode
    plans: Mapping[str, Sequence[Plan]]
    profiles: Profiles
    auditor: Auditor | None
    """None: nothing is audited."""
    answers: Answers
    watch: DriftWatch


@dataclass(frozen=True)
class Remeasured:
    """What was measured again because it moved."""

    profiles: Profiles
    """All, with those that changed."""
    notes: tuple[str, ...]
    """What was measured on what."""


class Drifting:
    """Notices what moved since it was measured, and measures that again when it is asked to."""

    def __init__(
        self,
        tools: DriftTools,
        profiles: Callable[[Controlled], Profiles],
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
        self._fits: Controlled | None = None
        """The plans that what is watched was made for."""
        self._fitting: asyncio.Task[_Fitted] | None = None
        self._auditing: asyncio.Task[tuple[AuditScore, ...]] | None = None
        self._audited_s = 0.0
        self._again: dict[str, PipelineProfile] = {}
        """Pipeline -> what was measured of it again."""
        self._agreements: Agreements = {}
        """Of pipelines that were measured on other items: those recorded before say nothing any more."""
        self._data_moved: frozenset[str] = frozenset()
        self._without_truth: frozenset[str] = frozenset()
        self._live = LiveItems()
        self._moved: list[Moved] = []
        """What waits to be measured again."""
        self._few: dict[str, tuple[Moved, int]] = {}
        """Pipeline whose data moved -> what did, and how many items had come when it was measured: on twice as many,
        more can be promised."""
        self._not_before_s = 0.0
        self._failures: list[str] = []
        self._said: set[str] = set()
        self._at_work = threading.Lock()
        """Answers are computed by one at a time."""

    def profiles(self, controlled: Controlled) -> Profiles:
        """What is known now of the pipelines of some plans."""
        stored = self._stored(controlled)
        return {**stored, **{name: profile for name, profile in self._again.items() if name in stored}}

    @property
    def measured_again(self) -> Collection[str]:
        """Pipelines of which something moved and was measured again."""
        return tuple(self._again)

    def forget(self) -> None:
        """Somebody planned anew, on whatever was measured by then."""
        self._again, self._agreements = {}, {}
        self._data_moved = self._without_truth = frozenset()
        self._moved, self._few, self._fits = [], {}, None

    def look(self, engine: Engine, status: EngineStatus, controlled: Controlled) -> list[Event]:
        """What moved, and what failed, each told once. Begins what takes longer, and goes on with it at the next look.

        Args:
            engine: of which answers are audited.
            status: of it.
            controlled: the plans in force.
        """
        now_s, time_s = self._clock(), self._wall_clock()
        scores: tuple[AuditScore, ...] = ()
        if self._fit(now_s, controlled):
            assert self._fitted is not None
            scores = self._audited(now_s, engine)
            self._tools.on_scores(scores)
            moved = self._fitted.watch.look(now_s, time_s, status, scores)
            self._moved += [one for one in moved if not isinstance(one.watch, GoodputWatch)]
            self._moved += self._with_more_items()
        else:
            moved = ()
        events = [Event(time_s, DRIFT, str(one.watch), one.reason, one.details) for one in moved]
        failures, self._failures = self._failures, []
        new = [failure for failure in dict.fromkeys(failures) if failure not in self._said]
        self._said |= set(new)
        return [*events, *(Event(time_s, FAILED, "audit", failure) for failure in new)]

    def due(self, now_s: float) -> bool:
        """Whether something waits to be measured again."""
        return bool(self._moved) and self._fitted is not None and self._fitting is None and now_s >= self._not_before_s

    def remeasure(self) -> Remeasured | None:
        """Measure again what moved; None: it cannot be yet. May block for long."""
        fitted, moved = self._fitted, tuple(self._moved)
        assert fitted is not None, "something moved"
        data = {one.watch.pipeline: one for one in moved if isinstance(one.watch, AccuracyWatch)}
        came = {name: len(self._live.since(name, one.since_s)) for name, one in data.items()}
        with self._at_work:
            again = reprofile(
                moved,
                fitted.specification,
                fitted.plans,
                fitted.profiles,
                self._live,
                fitted.answers,
                time_s=self._wall_clock(),
                clock=self._clock,
                budget_s=self._tools.budget_s,
                mode=fitted.mode.value,
            )
        self._failures += [f"not measured again yet: {wait}" for wait in again.waits]
        if again.waits:
            self._not_before_s = self._clock() + self._tools.pause_s
        else:
            del self._moved[: len(moved)]
        if not again.profiles:
            return None
        self._tools.keep(again.observations)
        self._few |= {name: (one, came[name]) for name, one in data.items() if name in again.data_moved}
        self._again |= again.profiles
        self._agreements = again.over(self._agreements)
        self._without_truth = (self._without_truth - again.data_moved) | again.without_truth
        self._data_moved |= again.data_moved
        self._fits = None
        return Remeasured({**fitted.profiles, **again.profiles}, again.notes)

    def _with_more_items(self) -> list[Moved]:
        """Data that moved and of which twice as many items have come as were measured; each time once."""
        found = []
        for pipeline, (moved, items) in list(self._few.items()):
            if len(self._live.since(pipeline, moved.since_s)) >= 2 * items:
                del self._few[pipeline]
                found.append(moved)
        return found

    async def wait(self) -> None:
        """Until what goes on beside the loop is done; the next look goes by it."""
        tasks = [task for task in (self._fitting, self._auditing) if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def end(self) -> None:
        """Wait for what goes on, and end the processes that answered."""
        tasks = [task for task in (self._fitting, self._auditing) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(_close, self._fitted)

    def _fit(self, now_s: float, controlled: Controlled) -> bool:
        """Whether what is watched fits the plans in force; it is made to fit beside the loop."""
        if self._fitting is not None:
            if not self._fitting.done():
                return False
            fitting, self._fitting = self._fitting, None
            try:
                self._fitted = fitting.result()
            except CircinusError as error:
                self._failures.append(f"nothing is watched: {error}")
                self._fits, self._not_before_s = None, now_s + self._tools.pause_s
                return False
        if self._fits is controlled:
            return self._fitted is not None
        if self._auditing is not None and not self._auditing.done():
            return False  # it goes by what is about to change
        if self._fitted is None and now_s < self._not_before_s:
            return False
        self._fits = controlled
        self._fitting = asyncio.create_task(asyncio.to_thread(self._fitted_to, controlled))
        return False

    def _fitted_to(self, controlled: Controlled) -> _Fitted:
        specification, profiles = controlled.specification, self.profiles(controlled)
        plans = {name: [rung.candidate.plan for rung in rungs] for name, rungs in controlled.rungs.items()}
        replays = controlled.mode is Mode.REPLAY
        fitted = self._fitted
        with self._at_work:
            if fitted is None or fitted.specification != specification:
                _close(fitted)
                answers, auditor = self._tools.answers(specification), None
            else:
                answers, auditor = fitted.answers, fitted.auditor
            if auditor is not None:
                auditor.replanned(profiles)
            elif controlled.audited_share > 0:
                auditor = Auditor(
                    specification,
                    profiles,
                    answers,
                    self._tools.truths,
                    truth_patience_s=self._tools.truth_patience_s,
                )
            agreements = {} if auditor is None else self._expected(specification, plans, auditor)
            if fitted is None:
                watch = DriftWatch(
                    specification, plans, profiles, self._tools.settings, replays=replays, agreements=agreements
                )
            else:
                watch = fitted.watch
                watch.replanned(specification, plans, profiles, agreements, self._without_truth)
        return _Fitted(specification, controlled.mode, plans, profiles, auditor, answers, watch)

    def _expected(
        self, specification: Specification, plans: Mapping[str, Sequence[Plan]], auditor: Auditor
    ) -> Agreements:
        used: dict[str, dict[Configuration, None]] = {}
        for its in plans.values():
            for plan in its:
                used.setdefault(plan.pipeline, {})[plan.configuration] = None
        pairs = [pair for pair in auditor.pairs(used) if pair[0] not in self._data_moved]
        return {**self._tools.agreements(specification, pairs), **self._agreements}

    def _audited(self, now_s: float, engine: Engine) -> tuple[AuditScore, ...]:
        """Scores that are there; more are begun for."""
        assert self._fitted is not None
        scores: tuple[AuditScore, ...] = ()
        if self._auditing is not None:
            if not self._auditing.done():
                return ()
            auditing, self._auditing = self._auditing, None
            try:
                scores = auditing.result()
            except CircinusError as error:
                self._failures.append(str(error))
        auditor, due = self._fitted.auditor, now_s - self._audited_s >= self._tools.audits_every_s
        if auditor is not None and due and isinstance(engine, Audited):
            self._audited_s = now_s
            self._auditing = asyncio.create_task(self._audit(engine, auditor))
        return scores

    async def _audit(self, engine: Audited, auditor: Auditor) -> tuple[AuditScore, ...]:
        time_s = self._wall_clock()
        handed = await engine.audits()
        auditor.take(handed.samples, time_s)

        def score() -> tuple[AuditScore, ...]:
            with self._at_work:
                found = auditor.score(time_s, most=self._tools.audits_at_once)
            self._live.add(found.items)
            self._failures.extend(found.failures)
            return found.scores

        return await asyncio.to_thread(score)


def _close(fitted: _Fitted | None) -> None:
    """End the processes that answered, if there are any."""
    close = getattr(None if fitted is None else fitted.answers, "close", None)
    if close is not None:
        close()
