"""What has moved since it was measured: service times, accuracy, and the share of requests that are in time.

Pure: told what was seen and the time. What is watched, and what it is held against, is in
`circinus.control.drift.monitors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from circinus.control.drift.detector import Change, Detector, ScaledObservation
from circinus.specification import Configuration
from circinus.specification.formatting import format_duration


@dataclass(frozen=True)
class ServiceTimeMonitor:
    """The service time of one operator under one prefix on one hardware class."""

    pipeline: str
    operator: str
    prefix: Configuration
    hardware_class: str

    def __str__(self) -> str:
        knobs = self.prefix[self.operator]
        name = f"{self.operator}({knobs})" if knobs.values else self.operator
        return f"{self.pipeline}/{name} on {self.hardware_class}"


@dataclass(frozen=True)
class AccuracyMonitor:
    """The scores of one query's audited answers."""

    query: str
    pipeline: str

    def __str__(self) -> str:
        return f"accuracy of {self.query}"


@dataclass(frozen=True)
class LatencySloMonitor:
    """The share of one query's requests that are not answered within its latency limit."""

    query: str

    def __str__(self) -> str:
        return f"late requests of {self.query}"


Watch = ServiceTimeMonitor | AccuracyMonitor | LatencySloMonitor


@dataclass(frozen=True)
class MonitorSample:
    """One value of what is watched."""

    watch: Watch
    time_s: float
    """Seconds since 1970; ascending."""
    placed: ScaledObservation


@dataclass(frozen=True)
class DriftSettings:
    """What is promised, and what counts as having moved."""

    false_alarm_every_s: float = 86400.0
    """At most one false alarm in so many seconds is to be expected, of all watches together."""
    reference_risk: float = 0.05
    """Probability with which what was measured before may be off by more than it is taken to be, anywhere."""
    service_tolerance: float = 0.2
    """Share by which service times may differ from those that were profiled."""
    service_least_s: float = 2.5e-4
    """Seconds by which the shortest ones may differ: a busy machine makes calls so much longer, and no plan stands or
    falls by it."""
    accuracy_tolerance: float = 0.02
    """Share of the metric's range by which mean scores may differ."""
    block_s: float = 15.0
    """Late requests come together; their share is taken over so many seconds."""
    block_answers: int = 10
    """And over so many requests at least."""
    max_alpha_budget_s: float = 60.0
    """Watches that see nothing save what they may stake for so long at most."""


@dataclass(frozen=True, eq=False)
class MonitorState:
    """One watch as it stands."""

    detector: Detector = field(default_factory=Detector.initial)
    alpha_budget_s: float = 0.0
    """What it may stake on the next value."""
    reported: bool = False
    """Whether it has told that it moved; nobody is told twice of what was not measured again."""


@dataclass(frozen=True, eq=False)
class DriftState:
    """Everything that is known of whether things moved."""

    watches: Mapping[Watch, MonitorState] = field(default_factory=dict)
    """Those that ever saw a value."""
    looked_s: float | None = None


@dataclass(frozen=True)
class DriftAlarm:
    """Something is not any more as it was measured."""

    watch: Watch
    since_s: float
    """When it most likely began; seconds since 1970."""
    now: float
    """Mean since then: seconds, score, or share of requests."""
    before: float
    """What was expected."""
    values: int
    """Batches, answers or blocks of requests that `now` is of."""

    @property
    def details(self) -> dict[str, float]:
        """For an event."""
        return {"since_s": self.since_s, "now": self.now, "before": self.before, "values": self.values}

    @property
    def reason(self) -> str:
        """In words."""
        since = datetime.fromtimestamp(self.since_s).strftime("%H:%M")
        if isinstance(self.watch, ServiceTimeMonitor):
            now, before = format_duration(self.now), format_duration(self.before)
            return f"{self.watch}: {now} now, {before} when profiled, since about {since}"
        if isinstance(self.watch, AccuracyMonitor):
            return f"{self.watch}: {self.now:.3g} now, {self.before:.3g} when profiled, since about {since}"
        return f"{self.watch}: {self.now:.1%} now, {self.before:.1%} promised, since about {since}"


def update_monitors(
    state: DriftState, seen: Sequence[MonitorSample], now_s: float, settings: DriftSettings
) -> tuple[DriftState, tuple[DriftAlarm, ...]]:
    """What follows from the values that came since the last look.

    Every second that passes is shared out evenly among the watches, and between the sides of each: it is what they may
    stake on new bets. So of all of them together no more false alarms than one in `false_alarm_every_s` are to be
    expected, however many values come and however they depend on each other, as long as every mean, given all that came
    before, is what it is held against.

    Args:
        state: after the last look.
        seen: values, of each watch in the order of time.
        now_s: by a clock that never goes back.
        settings: what is promised.
    """
    watches = dict(state.watches)
    for one in seen:
        if one.watch not in watches:
            watches[one.watch] = MonitorState()
    passed_s = 0.0 if state.looked_s is None else max(0.0, now_s - state.looked_s)
    share_s = passed_s / max(len(watches), 1)
    most_s = settings.max_alpha_budget_s / max(len(watches), 1)
    for watch, known in watches.items():
        earned_s = max(known.alpha_budget_s, min(known.alpha_budget_s + share_s, most_s))
        watches[watch] = MonitorState(known.detector, earned_s, known.reported)
    moved = []
    for one in seen:
        known = watches[one.watch]
        if known.reported:
            continue
        detector = known.detector.updated(one.placed, one.time_s, _stakes(one.watch, known.alpha_budget_s))
        change = detector.change(settings.false_alarm_every_s)
        if change is None:
            watches[one.watch] = MonitorState(detector, reported=known.reported)
            continue
        watches[one.watch] = MonitorState(reported=True)
        moved.append(_moved(one.watch, change))
    return DriftState(watches, now_s), tuple(moved)


def reset_monitors(state: DriftState, keep: Mapping[Watch, bool]) -> DriftState:
    """After something was measured again.

    Args:
        state: before.
        keep: watch -> whether what it is held against is as it was; those that are not named are given up.
    """
    watches = {
        watch: known if keep[watch] else MonitorState() for watch, known in state.watches.items() if watch in keep
    }
    return DriftState(watches, state.looked_s)


def _stakes(watch: Watch, earned_s: float) -> tuple[float, float]:
    if isinstance(watch, LatencySloMonitor):  # that fewer are late than may be is nothing to tell
        return (earned_s, 0.0)
    return (earned_s / 2, earned_s / 2)


def _moved(watch: Watch, change: Change) -> DriftAlarm:
    return DriftAlarm(watch, change.since_s, change.mean, change.expected, change.values)
