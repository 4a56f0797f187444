"""Policy of steps down and up a query's fallback ladder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from circinus.specification import LatencySlo


@dataclass(frozen=True)
class RungLoad:
    """Load that one rung of a query's ladder would have now."""

    unloaded_latency_s: float
    """Mean latency of a request without waiting."""
    backlog_s: float
    """Waiting time of a request that arrives now, from the requests in queue."""
    min_utilization: float
    """Lower bound of the utilization of the rung's busiest deployment, if all requests of the query used the rung."""
    expected_utilization: float
    """Expected utilization of the busiest deployment, if all requests of the query used the rung."""
    relative_utilization: float
    """Maximum over the rung's deployments of expected utilization divided by the planned utilization."""
    recent_utilization: float
    """Utilization of the busiest deployment by all queries within `RECENT_S`, minus an allowance for random clumps."""
    ready: bool
    """True if all deployments of the rung have a ready replica."""


@dataclass(frozen=True)
class LadderState:
    """State of a query on its ladder."""

    rung: int
    """Index of the deployed rung; 0 is the top of the ladder."""
    chosen: int
    """Index of the rung of the query's plan; no rung above it is deployed for the query."""
    changed_s: float = -math.inf
    """Time at which `rung` last changed."""
    low_load_since_s: float | None = None
    """Start of the low-load period of the next higher rung, or None."""
    late_since_s: float | None = None
    """Start of the period in which arriving requests would miss the SLO, or None."""
    failed_step_ups: int = 0
    """Number of consecutive steps up that were reverted during probation."""
    on_probation: bool = False
    """True if the last change was a step up that is still on probation."""


@dataclass(frozen=True)
class LadderSettings:
    """Thresholds of the ladder policy."""

    slo: LatencySlo | None
    """Latency SLO of the query, or None if only utilization counts."""
    dwell_s: float = 10.0
    """Minimum duration of low load before a step up."""
    max_utilization: float = 0.95
    """Utilization above which a rung is overloaded, because queues would grow."""
    low_utilization: float = 0.8
    """Maximum expected utilization for a step up."""
    low_relative_utilization: float = 1.25
    """Maximum load relative to the planned load for a step up. Above 1, so that random fluctuation around the planned
    rate does not block it."""
    late_duration_s: float = 0.5
    """Minimum duration of a predicted SLO violation before a step down; short bursts drain on their own."""
    severe_backlog_factor: float = 3.0
    """Backlog, as a multiple of the latency limit, that causes an immediate step down."""
    low_backlog_share: float = 0.3
    """Maximum backlog for a step up, as a share of the latency limit minus the unloaded latency."""
    max_backoff_doublings: int = 4
    """Maximum number of doublings of the dwell time; each failed step up doubles it."""

    def late(self, rung: RungLoad) -> bool:
        """Return whether a request that arrives now would exceed the limit of the SLO's percentile even in the mean."""
        return self._is_late(rung, 0.0)

    def is_surging(self, rung: RungLoad) -> bool:
        """Return whether requests would be late after `late_duration_s` of further arrivals at the recent rate."""
        grows_s = (rung.recent_utilization - 1.0) * self.late_duration_s
        return rung.recent_utilization > self.max_utilization and self._is_late(rung, grows_s)

    def _is_late(self, rung: RungLoad, grows_s: float) -> bool:
        if self.slo is None or rung.backlog_s <= 0:
            return False
        return not self.slo.is_met_by(rung.unloaded_latency_s + rung.backlog_s + grows_s)

    def overloaded(self, rung: RungLoad) -> bool:
        """Return whether the rung is overloaded with certainty, even if no request has missed its SLO yet."""
        is_severe = self.slo is not None and rung.backlog_s > self.severe_backlog_factor * self.slo.limit_s
        return not rung.ready or is_severe or rung.min_utilization > self.max_utilization

    def serves(self, rung: RungLoad) -> bool:
        """Return whether current and imminent requests would meet the limit."""
        return self.is_sustainable(rung) and self.load(rung) <= self.max_utilization

    def is_sustainable(self, rung: RungLoad) -> bool:
        """Return whether current requests would meet the limit, regardless of the most recent arrivals."""
        return not self.overloaded(rung) and not self.late(rung)

    def load(self, rung: RungLoad) -> float:
        """Return the lower bound of utilization; with a latency limit, at least the recent utilization."""
        if self.slo is None:
            return rung.min_utilization
        return max(rung.min_utilization, rung.recent_utilization)

    def has_headroom(self, rung: RungLoad) -> bool:
        """Return whether the load of a rung is low enough for a step up."""
        if not rung.ready or rung.expected_utilization > self.low_utilization:
            return False
        if rung.relative_utilization > self.low_relative_utilization:
            return False
        return self.slo is None or rung.backlog_s <= self.low_backlog_share * max(
            0.0, self.slo.margin(rung.unloaded_latency_s)
        )

    def required_low_load_s(self, state: LadderState) -> float:
        """Return the duration for which low load, or a step up, must last after previous failures."""
        return self.dwell_s * 2.0 ** min(state.failed_step_ups, self.max_backoff_doublings)


@dataclass(frozen=True)
class LadderStep:
    """Decision of the ladder policy."""

    state: LadderState
    reason: str | None = None
    """Reason of the change of rung; None if it does not change."""


def decide_step(now_s: float, state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> LadderStep:
    """Return the next ladder state of a query.

    A query steps down immediately if its rung is overloaded or a surge is imminent, and after `late_duration_s` if
    requests would be late. It moves to the first lower rung with low load, else to the first that serves, else to the
    least loaded one with replicas. It steps up to the next higher rung with replicas after low load there for the dwell
    time. The low-load thresholds are well below those of overload, and each reverted step up doubles the dwell time, so
    that the rung converges under constant load. A query also steps up if no lower rung is better, but a higher one is.
    """
    current = rungs[state.rung]
    late_since_s = (now_s if state.late_since_s is None else state.late_since_s) if settings.late(current) else None
    state = replace(state, late_since_s=late_since_s)
    late = late_since_s is not None and now_s - late_since_s >= settings.late_duration_s
    if settings.overloaded(current) or settings.is_surging(current) or late:
        return _leave_rung(now_s, state, rungs, settings)
    if state.on_probation and now_s - state.changed_s >= settings.required_low_load_s(state):
        state = replace(state, failed_step_ups=0, on_probation=False)
    above = next((rung for rung in range(state.rung - 1, state.chosen - 1, -1) if rungs[rung].ready), None)
    if above is None or not settings.has_headroom(rungs[above]):
        return LadderStep(replace(state, low_load_since_s=None))
    low_load_since_s = now_s if state.low_load_since_s is None else state.low_load_since_s
    if now_s - low_load_since_s < settings.required_low_load_s(state):
        return LadderStep(replace(state, low_load_since_s=low_load_since_s))
    up = replace(state, rung=above, changed_s=now_s, low_load_since_s=None, on_probation=True)
    description = _description(rungs[above], rungs[above].expected_utilization, settings)
    return LadderStep(up, f"low load for {now_s - low_load_since_s:.3g} s: {description}")


def _leave_rung(now_s: float, state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> LadderStep:
    """Leave a rung that is overloaded, late or about to be late."""
    current = rungs[state.rung]
    target = _lower_rung(state, rungs, settings)
    if target is None:
        target = _higher_rung(now_s, state, rungs, settings)
    if target is None:
        return LadderStep(replace(state, low_load_since_s=None))
    failed = state.on_probation and now_s - state.changed_s < settings.required_low_load_s(state)
    next_state = replace(
        state,
        rung=target,
        changed_s=now_s,
        low_load_since_s=None,
        late_since_s=None,
        failed_step_ups=state.failed_step_ups + 1 if failed else state.failed_step_ups,
        on_probation=False,
    )
    kind, utilization = "late", current.expected_utilization
    if not current.ready or current.min_utilization > settings.max_utilization:
        kind, utilization = "overloaded", current.min_utilization
    elif settings.is_surging(current) and not settings.late(current):
        kind, utilization = "about to be late", current.recent_utilization
    suffix = ", and no lower rung is better" if target < state.rung else ""
    return LadderStep(next_state, f"{kind}{suffix}: {_description(current, utilization, settings)}")


def _lower_rung(state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> int | None:
    current = rungs[state.rung]
    below = [rung for rung in range(state.rung + 1, len(rungs)) if rungs[rung].ready]
    serving = [rung for rung in below if settings.serves(rungs[rung])]
    if serving:
        return next((rung for rung in serving if settings.has_headroom(rungs[rung])), serving[0])
    # If everything is overloaded, a plan with lower demand still drains sooner.
    max_load = math.inf if not current.ready else settings.load(current)
    better = [rung for rung in below if settings.is_sustainable(rungs[rung]) or settings.load(rungs[rung]) < max_load]
    return min(better, key=lambda rung: settings.load(rungs[rung]), default=None)


def _higher_rung(now_s: float, state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> int | None:
    """Return the nearest higher rung that serves; while the current one has replicas, only after the dwell time."""
    if rungs[state.rung].ready and now_s - state.changed_s < settings.required_low_load_s(state):
        return None
    above = range(state.rung - 1, state.chosen - 1, -1)
    return next((rung for rung in above if settings.serves(rungs[rung])), None)


def _description(rung: RungLoad, utilization: float, settings: LadderSettings) -> str:
    if not rung.ready:
        return "a deployment has no replica"
    text = f"utilization {utilization:.2f}"
    if settings.slo is not None:
        now_s = rung.unloaded_latency_s + rung.backlog_s
        text += f", a request arriving now takes {now_s:.3g} s of {settings.slo.limit_s:.3g} s"
    return text
