"""Tests of drift and lost nodes on the simulated clock: detection, re-profiling, replanning, no false alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circinus.control.drift.drift_monitor import DriftDependencies
from circinus.control.drift.reference_outputs import ReplayReferenceRunner
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import ReplanDependencies
from circinus.control.settings import ControlSettings
from circinus.control.state_store import ControlStateStore, Event
from circinus.profiling import OperatorProfile, PipelineProfile, ServiceTimeObservation
from circinus.simulation.model import Requests
from circinus.testing.simulated_engine import SimulatedEngine
from circinus.testing.simulated_run import ScheduledEvent, run_controlled
from managed_plans import Profiles, planned

pytestmark = pytest.mark.slow

UNTIL_S = 420.0
ALLOCATIONS = {(1.0, 1)}
TIMES = 2.5
"""Slowdown of drift; profiles of twenty items hardly reveal smaller ones."""


def slower(profiles: Profiles, operator: str, times: float) -> dict[str, PipelineProfile]:
    """Return the scene with one slower operator."""
    found = {}
    for name, profile in profiles.items():
        configurations = tuple(
            replace(
                one,
                operators={
                    o: replace(p, service_s=p.service_s * times) if o == operator else p
                    for o, p in one.operators.items()
                },
            )
            for one in profile.configurations
        )
        found[name] = replace(profile, configurations=configurations)
    return found


def _with_code_of_their_own(controlled: ManagedPlans) -> ManagedPlans:
    """Return the specification with distinct code per operator, because corrections are learned by code."""
    pipelines = {
        name: pipeline.model_copy(
            update={"operators": tuple(o.model_copy(update={"uses": f"random:{o.name}"}) for o in pipeline.operators)}
        )
        for name, pipeline in controlled.specification.pipelines.items()
    }
    return replace(controlled, specification=replace(controlled.specification, pipelines=pipelines))


def _allocated(profile: PipelineProfile) -> PipelineProfile:
    """Return the profile as if measured with the CPUs and batch sizes of the plans."""
    configurations = tuple(
        replace(
            one,
            operators={
                name: replace(found, measured_allocations=frozenset({(1.0, 1)}))
                for name, found in one.operators.items()
            },
        )
        for one in profile.configurations
    )
    return replace(profile, configurations=configurations)


def _slower(found: OperatorProfile, times: float) -> OperatorProfile:
    return replace(found, service_s=found.service_s * times)


def _requests(controlled: ManagedPlans, times: float = 0.7) -> Mapping[str, Requests]:
    rng, found = np.random.default_rng(1), {}
    for name, query in controlled.queries.items():
        arrival_s = np.sort(rng.uniform(0.0, UNTIL_S, rng.poisson(times * query.rate_per_s * UNTIL_S)))
        found[name] = Requests(arrival_s, rng.integers(20, size=len(arrival_s)))
    return found


def _run(
    controlled: ManagedPlans,
    profiles: Profiles,
    folder: Path,
    happenings: list[ScheduledEvent],
    kept: list[ServiceTimeObservation] | None = None,
) -> tuple[SimulatedEngine, list[Event]]:
    engine = SimulatedEngine(controlled, profiles, _requests(controlled), startup_s=5.0)
    tools = DriftDependencies(
        answers=lambda specification: ReplayReferenceRunner(specification, folder / "profiles.sqlite"),
        agreements=lambda specification, pairs: {},
        keep=lambda observations: None if kept is None else kept.extend(observations),
    )
    events = run_controlled(
        engine,
        controlled,
        ControlStateStore(folder / "control.sqlite"),
        until_s=UNTIL_S,
        settings=ControlSettings(interval_s=1.0),
        happenings=happenings,
        planner=ReplanDependencies(lambda plans: profiles),
        drift=tools,
    )
    return engine, events


@pytest.fixture(scope="module")
def scene() -> tuple[ManagedPlans, Profiles, str]:
    """Return plans, and the operator with most requests."""
    alike, random = planned(3, queries=4)
    controlled = _with_code_of_their_own(alike)
    profiles = {name: _allocated(profile) for name, profile in random.items()}
    rates_per_s: dict[str, float] = {}
    for assignment in controlled.matching.assignments:
        for operator, _ in assignment.chosen.plan.placement:
            rates_per_s[operator] = rates_per_s.get(operator, 0.0) + controlled.queries[assignment.query].rate_per_s
    return controlled, profiles, max(rates_per_s, key=lambda name: rates_per_s[name])


def test_an_operator_that_takes_longer_is_noticed_measured_again_and_planned_for_once(
    scene: tuple[ManagedPlans, Profiles, str], tmp_path: Path
) -> None:
    controlled, profiles, operator = scene
    kept: list[ServiceTimeObservation] = []
    change = ScheduledEvent(200.0, lambda engine: engine.drift(slower(profiles, operator, TIMES)))
    _, events = _run(controlled, profiles, tmp_path, [change], kept)
    drift = [event for event in events if event.kind == "drift" and f"/{operator}" in event.subject]
    assert drift
    assert all(event.time_s > 200.0 for event in events if event.kind == "drift")
    assert drift[0].time_s < 320.0
    assert "when profiled" in drift[0].reason
    assert drift[0].subject not in drift[0].reason
    replans = [event for event in events if event.kind == "replan"]
    assert replans
    assert all(event.details["why"] == "drift" for event in replans)
    assert replans[0].time_s >= drift[0].time_s
    subjects = [event.subject for event in events if event.kind == "drift"]
    assert len(subjects) == len(set(subjects)), "what was measured again is as it was measured"
    assert {found.operator for found in kept} >= {operator}
    ratios = [found.log_ratio for found in kept if found.operator == operator]
    assert np.exp(np.mean(ratios)) == pytest.approx(TIMES, rel=0.25)


def test_nothing_is_noticed_where_nothing_moves(scene: tuple[ManagedPlans, Profiles, str], tmp_path: Path) -> None:
    controlled, profiles, _ = scene
    _, events = _run(controlled, profiles, tmp_path, [])
    assert [event for event in events if event.kind in ("drift", "replan", "failed", "rollback")] == []


def test_a_lost_pool_is_planned_around_until_it_comes_back(
    scene: tuple[ManagedPlans, Profiles, str], tmp_path: Path
) -> None:
    controlled, profiles, _ = scene
    used: dict[str, float] = {}
    for found in controlled.deployments:
        used[found.deployment.pool] = used.get(found.deployment.pool, 0.0) + found.utilization * found.replicas
    pool = max(used, key=lambda name: used[name])
    engine, events = _run(
        controlled,
        profiles,
        tmp_path,
        [
            ScheduledEvent(200.0, lambda simulated: simulated.fail_nodes(pool)),
            ScheduledEvent(300.0, lambda simulated: simulated.restore_nodes(pool)),
        ],
    )
    lost, back = [event for event in events if event.kind == "replan"]
    assert 200.0 < lost.time_s < 203.0
    assert 315.0 <= back.time_s < 318.0
    assert [event for event in events if event.kind == "rollback"] == []
    served = set(controlled.queries) - set(lost.details["stopped"])
    for name in served:
        arrival_s, latency_s = engine.latency_s(name)
        after = (arrival_s > 210.0) & (arrival_s < 410.0)
        assert np.isfinite(latency_s[after]).all(), name
