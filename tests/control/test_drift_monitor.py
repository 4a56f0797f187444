"""Tests of the background drift monitor on a computing engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from drift_scenario import Listening, configuration, item

from circinus.control.drift import drift_monitor
from circinus.control.drift.drift_monitor import DriftDependencies, DriftMonitor
from circinus.control.drift.drift_tests import AccuracyMonitor, DriftAlarm, ServiceTimeMonitor
from circinus.control.drift.ground_truth import GroundTruth
from circinus.control.drift.profile_overrides import ProfileOverrides
from circinus.control.drift.reference_outputs import LiveReferenceRunner
from circinus.control.drift.reprofile import DriftOutcome, reprofile
from circinus.control.managed_plans import ManagedPlans
from circinus.control.settings import DriftSettings
from circinus.control.state_store import Event, EventKind
from circinus.matching import plan_all_queries
from circinus.profiling import PipelineProfile, ServiceTimeObservation
from circinus.serving import DeploymentStatus, EngineStatus, Mode, Request, ServedBatch
from circinus.serving.configuration_hash import configuration_hash
from circinus.serving.local.capacity import MachineCapacity
from circinus.serving.local.engine import LocalEngine
from circinus.specification import AccuracySlo, Slos, prefix_configuration

A_LOOK, MOST_LOOKS = 6, 200
"""Requests of each query per poll (ten seconds), and maximum number of polls."""


class _Sent:
    """Ground truth of all items sent so far."""

    def __init__(self) -> None:
        self.known: dict[str, GroundTruth] = {}

    def find(self, pipeline: str, item_key: str) -> GroundTruth | None:
        return self.known.get(item_key)


def _controlled(listening: Listening) -> ManagedPlans:
    slos = Slos(accuracy=AccuracySlo(threshold=0.3))
    queries = tuple(query.model_copy(update={"slos": slos}) for query in listening.specification.queries)
    specification = replace(listening.specification, queries=queries)
    matching, _ = plan_all_queries(specification, listening.profiles)
    planned = {assignment.chosen.plan.configuration for assignment in matching.assignments}
    assert planned == {configuration("small")}, "of all, it is noise that this one hears the least through"
    versions = listening.profile.code_versions
    return ManagedPlans(
        matching, specification, matching.deployments, Mode.REAL, None, versions, audited_share=0.5, peak=1.0
    )


def test_what_was_measured_is_not_measured_again_while_something_else_waits(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    controlled = replace(_controlled(listening), audited_share=0.0)
    plan = controlled.matching.assignments[0].chosen.plan
    before = prefix_configuration(listening.specification.pipelines["listen"], plan.configuration, "hear")
    kept: list[ServiceTimeObservation] = []
    now_s = 0.0
    tools = DriftDependencies(answers=LiveReferenceRunner, agreements=lambda specification, pairs: {}, keep=kept.extend)
    drifting = DriftMonitor(
        tools, lambda _: listening.profiles, DriftSettings(), clock=lambda: now_s, wall_clock=lambda: now_s
    )
    engine = LocalEngine(MachineCapacity(64.0, 2.0**40, 0))
    data = DriftAlarm(AccuracyMonitor("one", "listen"), 0.0, 0.2, 0.6, 7)
    calls: list[tuple[DriftAlarm, ...]] = []

    def with_data(alarms: tuple[DriftAlarm, ...], *others: Any, **options: Any) -> DriftOutcome:
        if not calls:
            drifting._pending_alarms.append(data)
            alarms = (*alarms, data)
        calls.append(alarms)
        return reprofile(alarms, *others, **options)

    monkeypatch.setattr(drift_monitor, "reprofile", with_data)

    async def run() -> None:
        """Poll every half a second, after a slow batch until service times are measured again."""
        nonlocal now_s
        while len(calls) < 2:
            now_s += 0.5
            assert now_s < 1000.0
            slow = ServedBatch(0.5, 1, configuration_hash(before), 50)
            one = DeploymentStatus(
                plan.deployment_of("hear"), 1, 1, 0, 0, 0, batches=int(2 * now_s), recent_batches=(slow,)
            )
            await drifting.poll(engine, EngineStatus(Mode.REAL, () if calls else (one,), ()), controlled)
            await drifting.wait()

    asyncio.run(run())
    (service, _), again = calls
    assert isinstance(service.watch, ServiceTimeMonitor)
    assert again == (data,), "service times are known by now"
    assert len(kept) == 1
    assert list(drifting.overrides.profiles) == ["listen"]


def test_what_moved_in_a_pipeline_that_is_gone_keeps_nothing_else_from_being_measured(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    controlled, now_s = replace(_controlled(listening), audited_share=0.0), 0.0
    pipelines = controlled.specification.pipelines
    both = {**pipelines, "gone": pipelines["listen"].model_copy(update={"name": "gone"})}
    before = replace(controlled, specification=replace(controlled.specification, pipelines=both))
    tools = DriftDependencies(answers=LiveReferenceRunner, agreements=lambda specification, pairs: {})

    def profiles(plans: ManagedPlans) -> Mapping[str, PipelineProfile]:
        return dict.fromkeys(plans.specification.pipelines, listening.profile)

    drifting = DriftMonitor(tools, profiles, DriftSettings(), clock=lambda: now_s, wall_clock=lambda: now_s)
    engine = LocalEngine(MachineCapacity(64.0, 2.0**40, 0))
    moved = tuple(DriftAlarm(AccuracyMonitor("one", name), 0.0, 0.2, 0.6, 7) for name in both)
    calls: list[tuple[DriftAlarm, ...]] = []

    def measured_once(alarms: tuple[DriftAlarm, ...], *_: Any, **__: Any) -> DriftOutcome:
        calls.append(alarms)
        if len(calls) > 1:
            return DriftOutcome(pending=dict.fromkeys(both, "too few items"))
        counts = {alarm.watch.pipeline: (alarm, 0) for alarm in alarms if isinstance(alarm.watch, AccuracyMonitor)}
        return DriftOutcome(ProfileOverrides(profiles(before)), settled=alarms, item_counts=counts)

    monkeypatch.setattr(drift_monitor, "reprofile", measured_once)

    async def until_calls(plans: ManagedPlans, count: int) -> None:
        nonlocal now_s
        while len(calls) < count:
            now_s += 0.5
            assert now_s < 300.0
            await drifting.poll(engine, EngineStatus(Mode.REAL, (), ()), plans)
            await drifting.wait()

    async def run() -> None:
        drifting._pending_alarms += moved
        await until_calls(before, 2)
        assert calls == [moved, moved], "on twice as many items"
        await until_calls(controlled, 3)
        assert calls[2] == moved[:1]

    asyncio.run(run())


def test_what_is_not_watched_is_told_once(listening: Listening) -> None:
    few = [
        replace(found, operators={n: replace(o, service_s=o.service_s[:5]) for n, o in found.operators.items()})
        for found in listening.profile.configurations
    ]
    profiles = {"listen": replace(listening.profile, configurations=tuple(few))}
    controlled, now_s = replace(_controlled(listening), audited_share=0.0), 0.0
    tools = DriftDependencies(answers=LiveReferenceRunner, agreements=lambda specification, pairs: {})
    drifting = DriftMonitor(tools, lambda _: profiles, DriftSettings(), clock=lambda: now_s, wall_clock=lambda: now_s)
    engine = LocalEngine(MachineCapacity(64.0, 2.0**40, 0))

    async def looks(controlled: ManagedPlans) -> list[Event]:
        nonlocal now_s
        found = []
        for _ in range(5):
            now_s += 0.5
            found += await drifting.poll(engine, EngineStatus(Mode.REAL, (), ()), controlled)
            await drifting.wait()
        return found

    async def run() -> tuple[list[Event], list[Event]]:
        return await looks(controlled), await looks(replace(controlled))

    (event,), again = asyncio.run(run())
    assert event.kind == EventKind.NOT_MONITORED
    assert "on local: profiled on only 5 items" in event.reason
    assert 0 < len(event.details["all"]) < 4 or event.reason.endswith("more")
    assert again == [], "reported already, for other plans"


@pytest.mark.slow
def test_data_that_moved_is_measured_again_and_once_more_on_twice_as_many_items(listening: Listening) -> None:
    controlled, rng, now_s = _controlled(listening), random.Random(1), 0.0
    sent = _Sent()

    async def run() -> list[int]:
        nonlocal now_s
        engine, measured = LocalEngine(MachineCapacity(64.0, 2.0**40, 0)), []
        tools = DriftDependencies(
            answers=LiveReferenceRunner,
            agreements=lambda specification, pairs: {},
            truths=sent,
            ground_truth_timeout_s=1e9,
        )
        drifting = DriftMonitor(
            tools, lambda _: listening.profiles, DriftSettings(), clock=lambda: now_s, wall_clock=lambda: now_s
        )
        try:
            await engine.apply(controlled.desired_state(controlled.initial_ladder_states()))
            for number in range(MOST_LOOKS):
                noise = (0.0, 0.5) if number < 20 else (0.62, 0.9)
                came = [item(rng.randrange(10**9), rng.uniform(*noise)) for _ in range(A_LOOK)]
                sent.known |= {one.key: GroundTruth(one.truth) for one in came}
                for query in controlled.queries:
                    await asyncio.gather(*(engine.submit(Request(query, i.key, i.value, 10.0)) for i in came))
                now_s += 10.0
                await drifting.poll(engine, await engine.status(), controlled)
                await drifting.wait()
                profile = drifting.overrides.profiles.get("listen", listening.profile)
                if profile.dataset_fingerprint != listening.profile.dataset_fingerprint:
                    measured.append(len(profile.configurations[0].items))
                if len(set(measured)) >= 3:
                    break
        finally:
            await drifting.close(60.0)
            await engine.close()
        return measured

    counts = list(dict.fromkeys(asyncio.run(run())))
    assert len(counts) >= 3
    assert counts[1] >= 2 * counts[0]
    assert counts[2] >= 2 * counts[1]
