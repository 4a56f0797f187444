"""Background drift detection: audits, monitors and re-profiling. Nothing in this module blocks the control loop."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from circinus.control.background_task import BackgroundTask, TaskFailed, TaskSucceeded
from circinus.control.backoff import Backoff
from circinus.control.drift.audit_scores import Agreements, AuditScore, RecentItems
from circinus.control.drift.auditor import Auditor, AuditResult
from circinus.control.drift.drift_tests import DriftAlarm, LatencySloMonitor
from circinus.control.drift.ground_truth import NO_GROUND_TRUTH, GroundTruthSource
from circinus.control.drift.monitors import MonitorSet
from circinus.control.drift.profile_overrides import ProfileOverrides, Profiles
from circinus.control.drift.reference_outputs import ReferenceRunner
from circinus.control.drift.reprofile import DriftOutcome, reprofile
from circinus.control.managed_plans import ManagedPlans
from circinus.control.settings import DriftSettings
from circinus.control.state_store import Event, EventKind
from circinus.errors import ServingError
from circinus.profiling import ServiceTimeObservation
from circinus.serving import AuditableEngine, Engine, EngineStatus, Mode
from circinus.specification import Configuration, QueryPlan, Specification

Pair = tuple[str, Configuration, Configuration]

_REPORT_INTERVAL_S = 60.0
"""Minimum interval between reports of audit failures, because every request may cause one."""
_MAX_NAMED = 3
"""Number of unmonitored parts named in an event; its details list all."""
_DRAIN_TIMEOUT_S = 5.0
"""Timeout of a request to the engine for audit samples."""


@dataclass(frozen=True)
class DriftDependencies:
    """Dependencies of drift detection besides the engine and the plans. All functions may block."""

    answers: Callable[[Specification], ReferenceRunner]
    """Runner of reference configurations on live items."""
    agreements: Callable[[Specification, Sequence[Pair]], Agreements]
    """Agreement of recorded outputs of two configurations; missing recordings are made where possible."""
    keep: Callable[[Sequence[ServiceTimeObservation]], None] = lambda observations: None
    """Store of service-time observations for later planning."""
    truths: GroundTruthSource = NO_GROUND_TRUTH
    ground_truth_timeout_s: float = 0.0
    """Time that an answer waits for its ground truth before it is compared with a reference output."""
    on_scores: Callable[[Sequence[AuditScore]], None] = lambda scores: None
    """Callback for scores of audited answers."""


@dataclass(eq=False)
class _MonitoredPlans:
    """Monitors and auditor that match some plans."""

    controlled: ManagedPlans
    plans: Mapping[str, Sequence[QueryPlan]]
    stored: Profiles
    """Profiles of the store."""
    profiles: Profiles
    """Profiles of the store with re-profiled ones in place."""
    auditor: Auditor | None
    """Auditor, or None without audits."""
    answers: ReferenceRunner
    watch: MonitorSet


class DriftMonitor:
    """Drift monitor: detects drift and re-profiles the affected parts; `overrides` is what it hands over."""

    def __init__(
        self,
        dependencies: DriftDependencies,
        profiles: Callable[[ManagedPlans], Profiles],
        settings: DriftSettings,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Start without monitors; the first poll creates them."""
        self._dependencies, self._stored_profiles, self._settings = dependencies, profiles, settings
        self._clock, self._wall_clock = clock, wall_clock
        self._monitored: _MonitoredPlans | None = None
        self._target_plans: ManagedPlans | None = None
        """Plans that the monitors match."""
        self._rebuild_task: BackgroundTask[_MonitoredPlans] = BackgroundTask()
        self._scoring_task: BackgroundTask[AuditResult] = BackgroundTask()
        self._reprofiling_task: BackgroundTask[DriftOutcome] = BackgroundTask()
        self._scores: tuple[AuditScore, ...] = ()
        """Scores that no monitor has processed."""
        self._audited_s = -math.inf
        self.overrides = ProfileOverrides()
        """All re-profiled data; another object after each re-profiling, from which plans are to be made."""
        self._recent_items = RecentItems()
        self._pending_alarms: list[DriftAlarm] = []
        """Alarms that wait for re-profiling."""
        self._sparse_alarms: dict[str, tuple[DriftAlarm, int]] = {}
        """Pipeline with drifted data -> its alarm, and the number of items of its last re-profiling: twice as many
        items permit tighter bounds."""
        self._rebuild_backoff = Backoff(settings.backoff_s, settings.backoff_s)
        self._reprofile_backoff = Backoff(settings.backoff_s, settings.backoff_s)
        self._reported_unmonitored: frozenset[str] = frozenset()
        """Unmonitored parts that were reported."""
        self._failures: list[str] = []
        self._reported_s = -math.inf
        """Time of the last report of failures."""
        self._runner_lock = threading.Lock()
        """Lock of the reference runner, which serves one thread at a time."""

    def restore(self, text: str) -> None:
        """Restore re-profiled data of the previous controller.

        Raises:
            ServingError: the data cannot be read.
        """
        self.overrides = ProfileOverrides.from_document(text)

    async def poll(self, engine: Engine, status: EngineStatus, controlled: ManagedPlans) -> list[Event]:
        """Return new events of drift, unmonitored parts and failures, and start background work."""
        now_s, time_s = self._clock(), self._wall_clock()
        alarms: tuple[DriftAlarm, ...] = ()
        events: list[Event] = []
        self._collect_scores()
        self._collect_outcome(now_s)
        monitored = self._matching_monitors(now_s, controlled)
        if monitored is not None:
            await self._audit(now_s, time_s, engine, monitored.auditor)
            scores, self._scores = self._scores, ()
            alarms = monitored.watch.look(now_s, time_s, status, scores)
            self._pending_alarms += [alarm for alarm in alarms if not isinstance(alarm.watch, LatencySloMonitor)]
            self._pending_alarms += self._alarms_with_more_items()
            events += self._unmonitored_events(time_s, monitored.watch.unwatched)
            if self._pending_alarms and not self._reprofiling_task.busy and self._reprofile_backoff.is_due(now_s):
                task = partial(
                    self._reprofile, monitored, tuple(self._pending_alarms), self._recent_items.copy(), self.overrides
                )
                self._reprofiling_task.start(task)
        events += [_event(time_s, alarm) for alarm in alarms]
        if self._failures and now_s - self._reported_s >= _REPORT_INTERVAL_S:
            failures, self._failures, self._reported_s = self._failures, [], now_s
            more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            events.append(Event(time_s, EventKind.FAILED, "audit", f"{failures[0]}{more}"))
        return events

    def _reprofile(
        self,
        monitored: _MonitoredPlans,
        alarms: Sequence[DriftAlarm],
        recent_items: RecentItems,
        overrides: ProfileOverrides,
    ) -> DriftOutcome:
        """Re-profile the alarmed parts; the overrides of the outcome are all overrides. May block for long."""
        with self._runner_lock:
            outcome = reprofile(
                alarms,
                monitored.controlled.specification,
                monitored.plans,
                monitored.profiles,
                recent_items,
                monitored.answers,
                time_s=self._wall_clock(),
                clock=self._clock,
                budget_s=self._settings.reprofile_budget_s,
                mode=monitored.controlled.mode.value,
            )
        self._dependencies.keep(outcome.observations)
        newer = outcome.overrides
        merged = overrides.merged_with(newer, monitored.stored) if newer.profiles else overrides
        return replace(outcome, overrides=merged)

    def _collect_outcome(self, now_s: float) -> None:
        """Process the result of re-profiling."""
        result = self._reprofiling_task.poll()
        if isinstance(result, TaskFailed):
            self._failures.append(f"re-profiling failed: {result.reason}")
            self._reprofile_backoff.record_failure(now_s)
        elif isinstance(result, TaskSucceeded):
            outcome = result.value
            self._pending_alarms = [alarm for alarm in self._pending_alarms if alarm not in outcome.settled]
            self._sparse_alarms |= outcome.item_counts
            self._reprofile_backoff.reset()
            if outcome.pending:
                self._failures += [f"not re-profiled yet: {name}: {reason}" for name, reason in outcome.pending.items()]
                self._reprofile_backoff.record_failure(now_s)
            if outcome.overrides is not self.overrides:
                self.overrides, self._target_plans = outcome.overrides, None

    def _alarms_with_more_items(self) -> list[DriftAlarm]:
        """Return, once each, the alarms of drifted data with twice as many items as were re-profiled."""
        alarms = []
        for pipeline, (alarm, items) in list(self._sparse_alarms.items()):
            if len(self._recent_items.since(pipeline, alarm.since_s)) >= 2 * items:
                del self._sparse_alarms[pipeline]
                alarms.append(alarm)
        return alarms

    def _unmonitored_events(self, time_s: float, unwatched: Sequence[str]) -> list[Event]:
        """Return an event if further parts became unmonitored."""
        reported, self._reported_unmonitored = self._reported_unmonitored, frozenset(unwatched)
        new = [name for name in unwatched if name not in reported]
        if not new:
            return []
        more = f"; and {len(new) - _MAX_NAMED} more" if len(new) > _MAX_NAMED else ""
        reason = f"not monitored: {'; '.join(new[:_MAX_NAMED])}{more}"
        return [Event(time_s, EventKind.NOT_MONITORED, "drift", reason, {"all": new})]

    async def wait(self) -> None:
        """Wait for background work; the next poll uses its results."""
        await self._wait(None)

    async def close(self, timeout_s: float) -> None:
        """Wait for background work, each task for at most `timeout_s`, and stop the reference runner."""
        await self._wait(timeout_s)
        if self._monitored is not None:
            self._monitored.answers.close()

    async def _wait(self, timeout_s: float | None) -> None:
        for task in (self._rebuild_task, self._scoring_task, self._reprofiling_task):
            await task.wait(timeout_s)

    def _matching_monitors(self, now_s: float, controlled: ManagedPlans) -> _MonitoredPlans | None:
        """Return monitors that match the plans; if there are none, rebuild them in the background."""
        result = self._rebuild_task.poll()
        if isinstance(result, TaskFailed):
            self._failures.append(f"drift detection is off: {result.reason}")
            self._target_plans = None
            self._rebuild_backoff.record_failure(now_s)
        elif isinstance(result, TaskSucceeded):
            self._monitored = result.value
            self._rebuild_backoff.reset()
            self._drop_obsolete_alarms(result.value.profiles)
        if self._target_plans is controlled and not self._rebuild_task.busy:
            return self._monitored
        if not self._rebuild_task.busy and not self._scoring_task.busy and self._rebuild_backoff.is_due(now_s):
            self._target_plans = controlled
            self._rebuild_task.start(partial(self._build, controlled, self._monitored, self.overrides))
        return None

    def _drop_obsolete_alarms(self, profiles: Profiles) -> None:
        """Drop alarms of pipelines that no query uses any more."""
        self._pending_alarms = [
            alarm
            for alarm in self._pending_alarms
            if not isinstance(alarm.watch, LatencySloMonitor) and alarm.watch.pipeline in profiles
        ]
        self._sparse_alarms = {name: sparse for name, sparse in self._sparse_alarms.items() if name in profiles}

    def _build(
        self, controlled: ManagedPlans, previous: _MonitoredPlans | None, overrides: ProfileOverrides
    ) -> _MonitoredPlans:
        specification, stored = controlled.specification, self._stored_profiles(controlled)
        current = overrides.without_stale(stored)
        profiles = {**stored, **current.profiles}
        plans = controlled.unsplit_plans
        with self._runner_lock:
            if previous is not None and previous.controlled.specification == specification:
                runner, auditor = previous.answers, previous.auditor
            else:
                if previous is not None:
                    previous.answers.close()
                runner, auditor = self._dependencies.answers(specification), None
            if auditor is not None:
                auditor.update_profiles(profiles)
            elif controlled.audited_share > 0:
                auditor = Auditor(
                    specification,
                    profiles,
                    runner,
                    self._dependencies.truths,
                    ground_truth_timeout_s=self._dependencies.ground_truth_timeout_s,
                )
            agreements = {} if auditor is None else self._expected_agreements(specification, plans, auditor, current)
            monitors = MonitorSet(
                specification,
                plans,
                profiles,
                self._settings,
                replays=controlled.mode is Mode.REPLAY,
                agreements=agreements,
                without_truth=current.without_truth,
                previous=None if previous is None else previous.watch,
            )
        return _MonitoredPlans(controlled, plans, stored, profiles, auditor, runner, monitors)

    def _expected_agreements(
        self,
        specification: Specification,
        plans: Mapping[str, Sequence[QueryPlan]],
        auditor: Auditor,
        overrides: ProfileOverrides,
    ) -> Agreements:
        configurations: dict[str, dict[Configuration, None]] = {}
        for plans_of in plans.values():
            for plan in plans_of:
                configurations.setdefault(plan.pipeline, {})[plan.configuration] = None
        pairs = [pair for pair in auditor.pairs(configurations) if pair[0] not in overrides.data_moved]
        return {**self._dependencies.agreements(specification, pairs), **overrides.agreements}

    def _collect_scores(self) -> None:
        """Process the result of scoring."""
        result = self._scoring_task.poll()
        if isinstance(result, TaskFailed):
            self._failures.append(result.reason)
        elif isinstance(result, TaskSucceeded):
            self._scores += result.value.scores
            self._recent_items.add(result.value.scores)
            self._failures.extend(result.value.failures)
            self._dependencies.on_scores(result.value.scores)

    async def _audit(self, now_s: float, time_s: float, engine: Engine, auditor: Auditor | None) -> None:
        """Start scoring samples if it is due."""
        is_due = now_s - self._audited_s >= self._settings.audit_interval_s
        if auditor is None or not is_due or self._scoring_task.busy or not isinstance(engine, AuditableEngine):
            return
        self._audited_s = now_s
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                batch = await engine.drain_audits()
        except (ServingError, TimeoutError) as error:
            self._failures.append(f"cannot fetch audit samples: {error or 'engine did not answer'}")
            return
        auditor.drain(batch.samples, time_s)
        self._scoring_task.start(partial(self._score, auditor, time_s))

    def _score(self, auditor: Auditor, time_s: float) -> AuditResult:
        with self._runner_lock:
            return auditor.score(time_s, max_reruns=self._settings.max_reruns)


def _event(time_s: float, alarm: DriftAlarm) -> Event:
    """Strip the monitor's name from the message, as the event's subject already contains it."""
    subject = str(alarm.watch)
    return Event(time_s, EventKind.DRIFT, subject, alarm.reason.removeprefix(f"{subject}: "), alarm.details)


class NoDriftMonitor:
    """Drift monitor that detects nothing."""

    def __init__(self) -> None:
        self.overrides = ProfileOverrides()

    def restore(self, text: str) -> None:
        """Ignore the data, which a controller with drift detection has left."""

    async def poll(self, engine: Engine, status: EngineStatus, controlled: ManagedPlans) -> list[Event]:
        return []

    async def wait(self) -> None:
        """Return at once."""

    async def close(self, timeout_s: float) -> None:
        """Return at once."""
