"""Tests of decisions as pure functions of state and observation."""

from __future__ import annotations

from dataclasses import replace

from circinus.control.control_state import ControlState
from circinus.control.decisions import Decision, LoopObservation, decide, roll_back
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.replanning.replanner import ReplanReady, ReplanTrigger
from circinus.control.settings import CanarySettings
from circinus.control.state_store import EventKind
from circinus.serving import EngineStatus, Mode
from circinus.serving.engine import QueryStatus
from managed_plans import lossy_plans, replanned_once

SETTINGS = CanarySettings(duration_s=10.0)


def _seen(state: ControlState, now_s: float, *, failed: int = 0, ready: ReplanReady | None = None) -> LoopObservation:
    """Return an observation of an engine that runs the desired state."""
    queries = tuple(QueryStatus(name, 100 + failed, 100, failed) for name in state.controlled.queries)
    status = EngineStatus(Mode.REAL, (), (), state.desired()[1], queries)
    return LoopObservation(now_s, 1e9 + now_s, status, {}, state.controlled.nodes, ready, retries_apply=False)


def _kinds(decision: Decision) -> list[EventKind]:
    return [event.kind for event in decision.events]


def test_new_plans_are_adopted_then_judged_and_rolled_back_or_kept() -> None:
    plans, profiles, pool = lossy_plans()
    state = replace(ControlState.of(plans), is_deploying=False)
    fewer = replanned_once(plans, {**plans.nodes, pool: 0}, profiles).controlled
    ready = ReplanReady(fewer, ReplanTrigger.NODES, "a pool is lost", None, ProfileOverrides())
    adopted = decide(state, _seen(state, 0.0, ready=ready), SETTINGS)
    assert _kinds(adopted) == [EventKind.REPLAN]
    rejections = {rejection.query: rejection.reason for rejection in fewer.matching.rejections}
    assert rejections
    assert all(f"{name}: {reason}" in adopted.events[0].reason for name, reason in rejections.items())
    assert adopted.adopted is ready
    assert (adopted.state.controlled, adopted.state.last_good) == (fewer, plans)
    assert adopted.state.is_deploying
    assert state.controlled is plans, "the state before is unchanged"

    running = replace(adopted.state, is_deploying=False)
    begun = decide(running, _seen(running, 1.0), SETTINGS)
    assert begun.state.canary is not None
    worse = replace(_seen(begun.state, 5.0, failed=50), nodes=plans.nodes)
    for _ in range(2):
        refused = decide(begun.state, worse, SETTINGS)
        assert _kinds(refused) == [EventKind.ROLLBACK]
        assert (refused.refused, refused.state.controlled, refused.state.last_good) == (fewer, plans, None)
    kept = decide(begun.state, _seen(begun.state, 11.0), SETTINGS)
    assert _kinds(kept) == []
    assert (kept.state.controlled, kept.state.last_good, kept.state.canary) == (fewer, None, None)


def test_latencies_of_queries_whose_requests_waited_for_the_deployment_are_not_compared() -> None:
    plans, profiles, pool = lossy_plans()
    fewer = replanned_once(plans, {**plans.nodes, pool: 0}, profiles).controlled
    state = replace(ControlState.of(plans).with_plans(fewer, last_good=plans), is_deploying=False)
    begun = decide(state, _seen(state, 1.0), SETTINGS).state
    late = _seen(begun, 5.0)
    queries = (replace(query, answered=150, recent_latency_s=(1e3,) * 50) for query in late.status.queries)
    late = replace(late, status=replace(late.status, queries=tuple(queries)), nodes=plans.nodes)
    assert _kinds(decide(begun, late, SETTINGS)) == [EventKind.ROLLBACK]
    assert _kinds(decide(begun, replace(late, paused=frozenset(fewer.queries)), SETTINGS)) == []


def test_plans_on_lost_nodes_are_not_gone_back_to() -> None:
    plans, profiles, pool = lossy_plans()
    nodes = {**plans.nodes, pool: 0}
    fewer = replanned_once(plans, nodes, profiles).controlled
    state = ControlState.of(plans).with_plans(fewer, last_good=plans)
    decision = roll_back(state, "query a: all requests failed", nodes, 1e9)
    assert _kinds(decision) == [EventKind.FAILED]
    assert (decision.refused, decision.state.controlled, decision.state.last_good) == (None, fewer, None)
