"""Control of split plans: every part counts in loads, standby replicas, monitors and after the loss of nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples, share_of
from circinus.control.drift.monitors import Baselines
from circinus.control.ladders.rung_loads import DeploymentLoads, QueryLoad, RateBounds, RungDemand
from circinus.control.ladders.standby import plan_standby
from circinus.control.managed_plans import ladders_fingerprint
from circinus.control.replanning import replan
from circinus.control.replanning.replan import replan_for_nodes
from circinus.control.settings import DriftSettings
from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate
from circinus.estimation.merged_load import replicas_for
from circinus.matching import Assignment, plan_all
from circinus.planning import Ladder
from circinus.planning.rungs import plan_changes
from circinus.serving import DeploymentStatus
from circinus.serving.configuration_hash import configuration_hash
from circinus.specification import Query
from random_matchings import candidate, deployment, infrastructure, use
from split_plans import split_candidate, split_plans

INFRA = infrastructure([("near", 8, 8.0, 64.0, 0.5), ("far", 8, 8.0, 64.0, 2.0)])
SEEDS = (11, 3, 7)[: share_of(8)]
"""Seeds of split plans for which standby replicas are added."""
SHARES = st.floats(0.05, 0.45).map(lambda share: round(share, 4))


def _parts(share: float) -> list[tuple[float, PlanCandidate]]:
    """Return parts that differ in the model of an operator and its pool, estimated at their shares of 2 requests/s."""
    uses = (("near", 0, 0.8), ("far", 1, 3.0))
    plans = [
        candidate("q", [use(deployment("read", model, pool), part * busy, INFRA)], latency_s=busy)
        for part, (pool, model, busy) in zip((1.0 - share, share), uses, strict=True)
    ]
    return list(zip((1.0 - share, share), plans, strict=True))


@settings(max_examples=examples(40))
@given(SHARES, st.integers(0, 20), st.integers(0, 20))
def test_the_backlog_of_a_split_rung_is_that_of_the_part_that_answers_last(share: float, near: int, far: int) -> None:
    query, parts = Query(name="q", pipeline="p", source="home", rate="2/s"), _parts(share)
    rung = RungDemand.of(split_candidate(parts), query)
    replicas = dict(zip(rung.busy, (2, 3), strict=True))
    queued = dict(zip(rung.busy, (near, far), strict=True))
    statuses = {d: DeploymentStatus(d, n, n, queued[d], requests=0, restarts=0) for d, n in replicas.items()}
    rate = RateBounds(2.0, 1.8, 2.2, 0.25, 1)
    (load,) = DeploymentLoads({"q": QueryLoad(rung, rate)}, statuses).rung_loads("q", (rung,))
    latencies, utilizations = [], []
    for part, plan in parts:
        (used,) = plan.deployments
        service_s = used.busy_replicas / (2.0 * part)
        utilizations.append(2.0 * part * service_s / replicas[used.deployment])
        unloaded_s = RungDemand.of(plan, query).unloaded_latency_s
        latencies.append(unloaded_s + queued[used.deployment] * service_s / replicas[used.deployment])
    assert load.unloaded_latency_s + load.backlog_s == pytest.approx(max(latencies), rel=1e-3)
    assert load.expected_utilization == pytest.approx(max(utilizations), rel=1e-3)
    gone = dict(list(statuses.items())[:1])
    assert not DeploymentLoads({"q": QueryLoad(rung, rate)}, gone).rung_loads("q", (rung,))[0].ready


def test_an_unsplit_rung_is_demanded_as_before() -> None:
    query, (_, plan) = Query(name="q", pipeline="p", source="home", rate="2/s"), _parts(0.3)[0]
    rung, (used,) = RungDemand.of(plan, query), plan.deployments
    assert (rung.parts, dict(rung.busy)) == ((), {used.deployment: used.busy_replicas / 2.0})


@pytest.mark.parametrize("seed", SEEDS)
def test_standby_replicas_hold_the_burst_of_every_part_of_a_bottom_rung(seed: int) -> None:
    controlled, _, _ = split_plans(seed)
    split = next(a for a in controlled.matching.assignments if a.chosen.plan.is_split)
    assert split.ladder is not None
    selected = split.ladder.rungs[split.ladder.chosen]
    below = replace(split, ladder=Ladder((selected, replace(selected, candidate=split.chosen)), 0))
    others = (replace(a, ladder=None) for a in controlled.matching.assignments if a is not split)
    matching, peak = replace(controlled.matching, assignments=(below, *others)), 3.0
    ready = plan_standby(matching, controlled.specification.required_infrastructure, peak)
    assert ready.extra
    busy = {sized.deployment: sized.utilization * sized.replicas for sized in matching.deployments}
    replicas = {sized.deployment: sized.replicas for sized in ready.deployments}
    for used in split.chosen.deployments:
        total = busy[used.deployment] + peak * used.busy_replicas
        assert replicas[used.deployment] >= replicas_for(total, used.deployment.allocation.utilization_target)


@pytest.mark.parametrize("seed", SEEDS)
def test_all_parts_are_monitored_and_recorded(seed: int) -> None:
    controlled, profiles, _ = split_plans(seed)
    reachable = controlled.reachable_plans()
    baselines = Baselines.of(
        controlled.specification, controlled.unsplit_plans, profiles, DriftSettings(), replays=False
    )
    watched = {found for found, _ in baselines.prefixes}
    for assignment in controlled.matching.assignments:
        for part in assignment.chosen.plan.parts:
            assert part.plan in reachable
            assert set(part.plan.deployments) <= watched
            assert (part.plan.pipeline, configuration_hash(part.plan.configuration)) in baselines.accuracies


@pytest.mark.parametrize("seed", SEEDS)
def test_a_split_plan_stays_unless_nodes_of_any_part_are_lost(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replan, "_CHANGE_SHARE", 1e4)
    controlled, profiles, _ = split_plans(seed)
    for lost in sorted({sized.deployment.pool for sized in controlled.deployments}):
        try:
            found = replan_for_nodes(controlled, {**controlled.nodes, lost: 0}, profiles).controlled
        except PlanningError:  # no query can be served
            continue
        plans = {a.query: a.chosen.plan for a in found.matching.assignments}
        for before in controlled.matching.assignments:
            plan = before.chosen.plan
            if all(used.pool != lost for used in plan.deployments):
                assert plans[before.query] == plan
        assert all(used.pool != lost for plan in plans.values() for used in plan.deployments)
        states = found.migrate_ladder_states(controlled.initial_ladder_states(), controlled)
        assert {name: found.plans(states)[name].plan for name in states} == plans


def test_a_step_between_split_plans_names_what_changes_of_the_operator() -> None:
    whole, more, less = _parts(0.3)[0][1], split_candidate(_parts(0.3)), split_candidate(_parts(0.1))
    assert [(change.operator, change.changed) for change in plan_changes(more, whole)] == [("read", ("knobs", "pool"))]
    assert [(change.operator, change.changed) for change in plan_changes(more, less)] == [("read", ("share",))]
    assert plan_changes(more, more) == ()


def test_plans_are_recognized_by_all_their_parts_and_unsplit_ones_as_before() -> None:
    parts, empty = _parts(0.3), split_plans(SEEDS[0])[0].matching
    plans = [parts[0][1], *(split_candidate(_parts(share)) for share in (0.2, 0.3))]
    prints = [ladders_fingerprint(replace(empty, assignments=(Assignment("q", plan, ""),))) for plan in plans]
    assert prints[0] == "d4e5ac3d4bcffc2cdb50c4c7ae4d98a6f5161f288b6178e29e9e2824b084eb68"
    assert len(set(prints)) == 3


def test_a_plan_whose_bound_rested_on_the_replicas_of_a_lost_neighbour_changes_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replan, "_CHANGE_SHARE", 1e4)
    # A simulation would confirm the plan, which misses its SLO by formula.
    monkeypatch.setattr(plan_all, "consolidate", lambda planner, *_, **__: planner)
    controlled, profiles, _ = split_plans(16)
    before = {a.query: a.chosen for a in controlled.matching.assignments}
    assert {used.deployment.pool for used in before["q2"].deployments} > {"pool1"}
    assert "pool1" not in {used.deployment.pool for used in before["q1"].deployments}
    found = replan_for_nodes(controlled, {**controlled.nodes, "pool1": 0}, profiles)
    (reason,) = (reason for reason in found.explain_displaced() if reason.startswith("q1 ("))
    limit = controlled.queries["q1"].slos.latency
    assert limit is not None
    assert before["q1"].estimate.latency_s.upper < limit.limit_s
    assert f"> {1e3 * limit.limit_s:.3f}ms" in reason
