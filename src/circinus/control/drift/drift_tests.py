"""Drift tests of service times, accuracy, and the share of requests in time.

All functions are pure: observations and times are arguments. `circinus.control.drift.monitors` selects the monitors and
their baselines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from circinus.control.drift.detector import Detector, ScaledObservation
from circinus.control.settings import DriftSettings
from circinus.specification import Configuration
from circinus.specification.formatting import format_duration


@dataclass(frozen=True)
class ServiceTimeMonitor:
    """Monitor of one operator's service time with one prefix on one hardware class."""

    pipeline: str
    operator: str
    prefix: Configuration
    hardware_class: str

    def __str__(self) -> str:
        knobs = self.prefix[self.operator]
        name = f"{self.operator}({knobs})" if knobs.values else self.operator
        return f"{self.pipeline}/{name} on {self.hardware_class}"


@dataclass(frozen=True)
class RunsMonitor:
    """Monitor of the number of runs of one operator with one prefix for a request."""

    pipeline: str
    operator: str
    prefix: Configuration

    def __str__(self) -> str:
        return f"runs of {self.pipeline}/{self.operator}"


@dataclass(frozen=True)
class AccuracyMonitor:
    """Monitor of the scores of one query's audited answers."""

    query: str
    pipeline: str

    def __str__(self) -> str:
        return f"accuracy of {self.query}"


@dataclass(frozen=True)
class LatencySloMonitor:
    """Monitor of the share of one query's requests that miss the latency limit."""

    query: str

    def __str__(self) -> str:
        return f"late requests of {self.query}"


Watch = ServiceTimeMonitor | RunsMonitor | AccuracyMonitor | LatencySloMonitor


@dataclass(frozen=True)
class MonitorSample:
    """Observation of one monitor."""

    watch: Watch
    time_s: float
    """Seconds since 1970; ascending."""
    placed: ScaledObservation


@dataclass(frozen=True, eq=False)
class MonitorState:
    """State of one monitor."""

    detector: Detector = field(default_factory=Detector.initial)
    alpha_budget_s: float = 0.0
    """Stake available for the next value."""
    reported: bool = False
    """True if the drift was reported. It is not reported again until the subject is re-profiled."""


@dataclass(frozen=True, eq=False)
class DriftState:
    """State of all monitors."""

    watches: Mapping[Watch, MonitorState] = field(default_factory=dict)
    """Monitors that observed at least one value."""
    looked_s: float | None = None


@dataclass(frozen=True)
class DriftAlarm:
    """Detected drift of one monitor."""

    watch: Watch
    since_s: float
    """Most likely start; seconds since 1970."""
    now: float
    """Mean since the start: seconds, runs, score, or share of requests."""
    before: float
    """Expected mean."""
    values: int
    """Number of batches, answers or blocks in `now`."""

    @property
    def details(self) -> dict[str, float]:
        """Details of the event."""
        return {"since_s": self.since_s, "now": self.now, "before": self.before, "values": self.values}

    @property
    def reason(self) -> str:
        since = datetime.fromtimestamp(self.since_s).strftime("%H:%M")
        if isinstance(self.watch, ServiceTimeMonitor):
            now, before = format_duration(self.now), format_duration(self.before)
            return f"{self.watch}: {now} now, {before} when profiled, since about {since}"
        if isinstance(self.watch, RunsMonitor):
            return f"{self.watch}: {self.now:.3g} a request now, {self.before:.3g} when profiled, since about {since}"
        if isinstance(self.watch, AccuracyMonitor):
            return f"{self.watch}: {self.now:.3g} now, {self.before:.3g} when profiled, since about {since}"
        return f"{self.watch}: {self.now:.1%} now, {self.before:.1%} guaranteed, since about {since}"


def update_monitors(
    state: DriftState, samples: Sequence[MonitorSample], now_s: float, settings: DriftSettings
) -> tuple[DriftState, tuple[DriftAlarm, ...]]:
    """Return the next state and the alarms of new values.

    Time since the last poll is divided evenly among the monitors, and between the sides of each, as stakes of new bets.
    Hence all monitors together are expected to raise at most one false alarm per `false_alarm_every_s`, for any number
    and dependence of values, as long as every conditional mean is within its baseline.
    """
    watches = dict(state.watches)
    for sample in samples:
        if sample.watch not in watches:
            watches[sample.watch] = MonitorState()
    passed_s = 0.0 if state.looked_s is None else max(0.0, now_s - state.looked_s)
    share_s = passed_s / max(len(watches), 1)
    max_s = settings.max_alpha_budget_s / max(len(watches), 1)
    for watch, monitor in watches.items():
        earned_s = max(monitor.alpha_budget_s, min(monitor.alpha_budget_s + share_s, max_s))
        watches[watch] = MonitorState(monitor.detector, earned_s, monitor.reported)
    alarms = []
    for sample in samples:
        monitor = watches[sample.watch]
        if monitor.reported:
            continue
        detector = monitor.detector.updated(
            sample.placed, sample.time_s, _stakes_of(sample.watch, monitor.alpha_budget_s)
        )
        change = detector.change(settings.false_alarm_every_s)
        if change is None:
            watches[sample.watch] = MonitorState(detector, reported=monitor.reported)
            continue
        watches[sample.watch] = MonitorState(reported=True)
        alarms.append(DriftAlarm(sample.watch, change.since_s, change.mean, change.expected, change.values))
    return DriftState(watches, now_s), tuple(alarms)


def reset_monitors(state: DriftState, keep: Mapping[Watch, bool]) -> DriftState:
    """Return the state with the monitors in `keep`, after re-profiling or a change of plans.

    Monitors restart if `keep` has False for them, as their baseline has changed.
    """
    watches = {
        watch: monitor if keep[watch] else MonitorState() for watch, monitor in state.watches.items() if watch in keep
    }
    return DriftState(watches, state.looked_s)


def _stakes_of(watch: Watch, budget_s: float) -> tuple[float, float]:
    if isinstance(watch, LatencySloMonitor):  # a decrease of late requests is no drift
        return (budget_s, 0.0)
    return (budget_s / 2, budget_s / 2)
