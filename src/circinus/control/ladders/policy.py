"""When a query steps down its ladder, and when up again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class RungLoad:
    """One plan of a query's ladder as things are now."""

    unloaded_latency_s: float
    """Mean latency of a request that waits for nobody."""
    backlog_s: float
    """How long a request that came now would wait for those that are there."""
    min_utilization: float
    """Of the busiest deployment that it uses, surely at least, if all requests of the query went there as often as they
    come now, beside what others ask of it."""
    expected_utilization: float
    """The same, likely."""
    relative_utilization: float
    """The same as a share of what the deployment may be busy by plan, of that where it is greatest."""
    recent_utilization: float
    """Of the busiest deployment, by what all queries asked of it in the last moments, less what chance may have
    brought together."""
    ready: bool
    """Whether all its deployments have a replica that serves."""


@dataclass(frozen=True)
class LadderState:
    """Where a query stands."""

    rung: int
    """Whose plan is in force; 0 is the top of the ladder."""
    chosen: int
    """Of the plan that the query got: nothing above it is deployed for it."""
    changed_s: float = -math.inf
    """When `rung` last changed."""
    calm_s: float | None = None
    """Since when the rung above would have done; None: it would not."""
    late_s: float | None = None
    """Since when requests that come would be late; None: they would not."""
    failed_step_ups: int = 0
    """Steps up in a row that were taken back before they had proved themselves."""
    on_probation: bool = False
    """Whether the last change was a step up that has not proved itself yet."""


@dataclass(frozen=True)
class LadderSettings:
    """Bounds of the policy."""

    limit_s: float | None
    """Of the query's latency; None: it has none, and only utilisations count."""
    dwell_s: float = 10.0
    """How long the rung above must do without a break before it is stepped up to."""
    max_utilization: float = 0.95
    """Beyond it a rung is overloaded: queues would grow, or nearly so."""
    calm_utilization: float = 0.8
    """Up to it a rung does."""
    calm_strain: float = 1.25
    """Up to it, too: above what plans are sized for, so that the planned rate is calm whatever chance adds."""
    late_for_s: float = 0.5
    """How long requests must be about to be late: a few that come together are soon through, and some may be late."""
    very_late: float = 3.0
    """Times the limit that a request would wait: reason enough at once."""
    calm_backlog: float = 0.3
    """Share of the time that the limit leaves for waiting, up to which a rung does."""
    max_backoff_doublings: int = 4
    """Every step up that fails doubles the dwell time of the next one, at most so often."""

    def late(self, rung: RungLoad) -> bool:
        """Whether a request that came now would be late even in the mean."""
        return (
            self.limit_s is not None and rung.backlog_s > 0 and rung.unloaded_latency_s + rung.backlog_s > self.limit_s
        )

    def is_surging(self, rung: RungLoad) -> bool:
        """Whether requests would be late after `late_for_s` more of what came in the last moments."""
        if self.limit_s is None or rung.backlog_s <= 0 or rung.recent_utilization <= self.max_utilization:
            return False
        grows_s = (rung.recent_utilization - 1.0) * self.late_for_s
        return rung.unloaded_latency_s + rung.backlog_s + grows_s > self.limit_s

    def overloaded(self, rung: RungLoad) -> bool:
        """Whether it can surely not go on so, even if nobody is late yet."""
        very_late = self.limit_s is not None and rung.backlog_s > self.very_late * self.limit_s
        return not rung.ready or very_late or rung.min_utilization > self.max_utilization

    def serves(self, rung: RungLoad) -> bool:
        """Whether requests that came now, and those that come soon, would be in time."""
        return self.is_sustainable(rung) and self.load(rung) <= self.max_utilization

    def is_sustainable(self, rung: RungLoad) -> bool:
        """The same, whatever came in the last moments."""
        return not self.overloaded(rung) and not self.late(rung)

    def load(self, rung: RungLoad) -> float:
        """Utilisation, surely at least; where latency matters, in the last moments, too."""
        if self.limit_s is None:
            return rung.min_utilization
        return max(rung.min_utilization, rung.recent_utilization)

    def has_headroom(self, rung: RungLoad) -> bool:
        """Whether a rung does with room to spare."""
        busy = rung.expected_utilization > self.calm_utilization or rung.relative_utilization > self.calm_strain
        if not rung.ready or busy:
            return False
        return self.limit_s is None or rung.backlog_s <= self.calm_backlog * max(
            0.0, self.limit_s - rung.unloaded_latency_s
        )

    def required_calm_s(self, state: LadderState) -> float:
        """How long it must be calm, or a step up must hold, by now."""
        return self.dwell_s * 2.0 ** min(state.failed_step_ups, self.max_backoff_doublings)


@dataclass(frozen=True)
class LadderStep:
    """What the policy says."""

    state: LadderState
    reason: str
    """Why the rung changes; empty where it does not."""


def decide_step(now_s: float, state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> LadderStep:
    """The next state of a query.

    Down at once where a rung is overloaded or about to be late, and after a moment where requests would be late: a
    burst does not wait. It goes to the first rung below that would be calm, or else that serves, or else to the least
    loaded of those that have replicas. Up to the next rung above that has replicas, when it has been calm there for the
    dwell time; what counts as calm is well below what counts as overloaded, and a step up that had to be taken back
    doubles the time before the next, so that a constant load ends in a constant rung. Up also where no rung below is
    any better, but one above is.

    Args:
        now_s: not before the last call.
        state: of the query.
        rungs: of its ladder, from the top down.
        settings: of the query.
    """
    current = rungs[state.rung]
    late_s = (now_s if state.late_s is None else state.late_s) if settings.late(current) else None
    state = replace(state, late_s=late_s)
    late = late_s is not None and now_s - late_s >= settings.late_for_s
    if settings.overloaded(current) or settings.is_surging(current) or late:
        return _away(now_s, state, rungs, settings)
    if state.on_probation and now_s - state.changed_s >= settings.required_calm_s(state):
        state = replace(state, failed_step_ups=0, on_probation=False)
    above = next((rung for rung in range(state.rung - 1, state.chosen - 1, -1) if rungs[rung].ready), None)
    if above is None or not settings.has_headroom(rungs[above]):
        return LadderStep(replace(state, calm_s=None), "")
    calm_s = now_s if state.calm_s is None else state.calm_s
    if now_s - calm_s < settings.required_calm_s(state):
        return LadderStep(replace(state, calm_s=calm_s), "")
    up = replace(state, rung=above, changed_s=now_s, calm_s=None, on_probation=True)
    words = _words(rungs[above], rungs[above].expected_utilization, settings)
    return LadderStep(up, f"calm for {now_s - calm_s:.3g} s: {words}")


def _away(now_s: float, state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> LadderStep:
    """From a rung that is overloaded or late, or about to be."""
    current = rungs[state.rung]
    target = _below(state, rungs, settings)
    if target is None:
        target = _above(now_s, state, rungs, settings)
    if target is None:
        return LadderStep(replace(state, calm_s=None), "")
    failed = state.on_probation and now_s - state.changed_s < settings.required_calm_s(state)
    away = replace(
        state,
        rung=target,
        changed_s=now_s,
        calm_s=None,
        late_s=None,
        failed_step_ups=state.failed_step_ups + 1 if failed else state.failed_step_ups,
        on_probation=False,
    )
    kind, utilization = "late", current.expected_utilization
    if not current.ready or current.min_utilization > settings.max_utilization:
        kind, utilization = "overloaded", current.min_utilization
    elif settings.is_surging(current) and not settings.late(current):
        kind, utilization = "about to be late", current.recent_utilization
    where = ", and no rung below is any better" if target < state.rung else ""
    return LadderStep(away, f"{kind}{where}: {_words(current, utilization, settings)}")


def _below(state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> int | None:
    current = rungs[state.rung]
    below = [rung for rung in range(state.rung + 1, len(rungs)) if rungs[rung].ready]
    serve = [rung for rung in below if settings.serves(rungs[rung])]
    if serve:
        return next((rung for rung in serve if settings.has_headroom(rungs[rung])), serve[0])
    # Where everything is overloaded, a plan that asks for less still drains sooner.
    least = math.inf if not current.ready else settings.load(current)
    better = [rung for rung in below if settings.is_sustainable(rungs[rung]) or settings.load(rungs[rung]) < least]
    return min(better, key=lambda rung: settings.load(rungs[rung]), default=None)


def _above(now_s: float, state: LadderState, rungs: Sequence[RungLoad], settings: LadderSettings) -> int | None:
    """The nearest rung above that serves well; only after a while, unless nothing serves here."""
    if rungs[state.rung].ready and now_s - state.changed_s < settings.required_calm_s(state):
        return None
    above = range(state.rung - 1, state.chosen - 1, -1)
    return next((rung for rung in above if settings.serves(rungs[rung])), None)


def _words(rung: RungLoad, utilization: float, settings: LadderSettings) -> str:
    if not rung.ready:
        return "a deployment has no replica"
    words = f"utilisation {utilization:.2f}"
    if settings.limit_s is not None:
        now_s = rung.unloaded_latency_s + rung.backlog_s
        words += f", a request that comes now takes {now_s:.3g} s of {settings.limit_s:.3g} s"
    return words
