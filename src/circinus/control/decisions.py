"""Decisions of the control loop, as pure functions of its state and of what was observed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from circinus.control.control_state import ControlState
from circinus.control.ladders.policy import decide_step
from circinus.control.ladders.rung_loads import DeploymentLoads, QueryLoad, RateBounds
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.canary import CanaryAnalysis
from circinus.control.replanning.replanner import ReplanReady
from circinus.control.settings import CanarySettings
from circinus.control.state_store import Event, EventKind
from circinus.matching import PlanDiff
from circinus.serving import EngineStatus

_BUSY_RATE_RATIO = 1.2
"""Minimum ratio to the planned rate at which a query counts as above its planned rate."""
_MAX_REASONS = 3
"""Number of queries that lose their plan whose reasons an event has."""


@dataclass(frozen=True, eq=False)
class LoopObservation:
    """Observation of one iteration of the control loop."""

    now_s: float
    """Monotonic time."""
    time_s: float
    """Seconds since 1970."""
    status: EngineStatus
    rates: Mapping[str, RateBounds]
    """Request rates by query, where they can be estimated."""
    nodes: Mapping[str, int]
    """Number of nodes per pool that are assumed to be live."""
    replanned: ReplanReady | None
    """New plans that were not adopted yet."""
    retries_apply: bool
    """True if the last apply failed."""
    paused: frozenset[str] = frozenset()
    """Queries whose requests waited for the deployment of the current plans."""


@dataclass(frozen=True, eq=False)
class Decision:
    """Next state of the controller, to be stored with its events before it is carried out."""

    state: ControlState
    events: tuple[Event, ...] = ()
    adopted: ReplanReady | None = None
    """New plans that the state follows."""
    refused: ManagedPlans | None = None
    """Plans that are rolled back."""

    def then(self, following: Decision) -> Decision:
        """Return this decision and one that was made from its state."""
        return replace(following, events=(*self.events, *following.events), adopted=following.adopted or self.adopted)


def decide(state: ControlState, seen: LoopObservation, settings: CanarySettings) -> Decision:
    """Return the decision of one iteration: steps on ladders, new plans, and the verdict of canary analysis."""
    decision = Decision(state)
    if not state.is_deploying or seen.retries_apply or seen.status.state == state.desired()[1]:
        decision = step_ladders(state, seen)
    if seen.replanned is not None:
        decision = decision.then(_adopt(decision.state, seen.replanned, seen.time_s))
    return decision.then(_judge_canary(decision.state, seen, settings))


def step_ladders(state: ControlState, seen: LoopObservation) -> Decision:
    """Return the decision on the steps of all queries along their ladders."""
    plans, ladders, events = state.controlled, dict(state.ladders), []
    loads = DeploymentLoads(
        {
            name: QueryLoad(plans.rungs[name][ladders[name].rung], rate, plans.dispersions[name])
            for name, rate in seen.rates.items()
            if name in plans.rungs  # a rollback may have removed the query since
        },
        {entry.deployment: entry for entry in seen.status.deployments},
    )
    for name, settings in plans.ladder_settings.items():
        if name not in loads:
            continue
        before = ladders[name]
        step = decide_step(seen.now_s, before, loads.rung_loads(name, plans.rungs[name]), settings)
        ladders[name] = step.state
        if step.reason is not None:
            details = {"from": before.rung, "to": step.state.rung, "rate_per_s": seen.rates[name].expected_per_s}
            events.append(Event(seen.time_s, EventKind.STEP, name, step.reason, details))
            loads.move(name, plans.rungs[name][step.state.rung])
    return Decision(replace(state, ladders=ladders), tuple(events))


def roll_back(state: ControlState, reason: str, nodes: Mapping[str, int], time_s: float) -> Decision:
    """Return the decision to roll back to the last good plans, if the present nodes suffice for them."""
    if state.last_good is None or not state.last_good.fits_nodes(nodes):
        message = f"{reason}; no previous plans to roll back to"
        return Decision(_accepted(state), (Event(time_s, EventKind.FAILED, "plans", message),))
    event = Event(time_s, EventKind.ROLLBACK, "plans", reason)
    return Decision(state.with_plans(state.last_good), (event,), refused=state.controlled)


def _adopt(state: ControlState, ready: ReplanReady, time_s: float) -> Decision:
    previous = state.controlled
    adopted = state.with_plans(ready.controlled, ready.base, state.last_good or previous)
    if adopted.desired()[1] == state.desired()[1]:  # nothing to deploy, and nothing to judge
        adopted = replace(adopted, last_good=state.last_good, canary=state.canary, is_deploying=state.is_deploying)
    changes = PlanDiff.between(previous.matching, ready.controlled.matching)
    details = {"why": ready.trigger, **vars(changes), "warnings": ready.warnings}
    rejections = {rejection.query: rejection.reason for rejection in ready.controlled.matching.rejections}
    stopped = [f"{query}: {rejections[query]}" for query in changes.stopped[:_MAX_REASONS]]
    reason = "; warning: ".join(("; ".join((f"{ready.reason}: {changes}", *stopped)), *ready.warnings))
    event = Event(time_s, EventKind.REPLAN, "plans", reason, details)
    return Decision(adopted, (event,), ready)


def _judge_canary(state: ControlState, seen: LoopObservation, settings: CanarySettings) -> Decision:
    if state.last_good is None or seen.status.state != state.desired()[1]:
        return Decision(state)
    queries = state.controlled.queries
    if state.canary is None:
        return Decision(replace(state, canary=CanaryAnalysis.begin(seen.now_s, seen.status, queries)))
    busy = {
        name
        for name, rate in seen.rates.items()
        if name in queries and rate.expected_per_s > _BUSY_RATE_RATIO * queries[name].rate_per_s
    }
    canary = state.canary.observed(seen.status, queries, settings)
    reason = canary.regression_reason(seen.status, queries, busy | seen.paused, settings)
    if reason is not None:
        return roll_back(state, reason, seen.nodes, seen.time_s)
    return Decision(_accepted(state) if canary.is_complete(seen.now_s, settings) else replace(state, canary=canary))


def _accepted(state: ControlState) -> ControlState:
    """Return the state with the current plans as the last good ones."""
    return replace(state, last_good=None, canary=None)
