"""What a further replica takes to start, as the plan says it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circinus.estimation import ReplicaDemand
from circinus.matching import Matching, SizedDeployment, admit_query, plan_all_queries
from circinus.matching.startup_times import add_startup_times
from circinus.profiling import MeasuredSpeed, PipelineProfile, Speeds
from circinus.profiling.hardware.machine import ClassBatchRatios
from circinus.specification import Allocation, Deployment, HardwareClass, KnobValues, Specification
from circinus.statistics.interval import Interval
from circinus.testing.random_instances import random_specification
from planning_instances import SIMPLE

DEMAND = ReplicaDemand(1.0, 2.0**20, 0.0, 0.0, 0.1)


def _with_start_ups_by_operator(profile: PipelineProfile, start_ups_s: dict[str, float | None]) -> PipelineProfile:
    return replace(
        profile,
        configurations=tuple(
            replace(
                found,
                operators={name: replace(one, startup_s=start_ups_s[name]) for name, one in found.operators.items()},
            )
            for found in profile.configurations
        ),
    )


def _planned(seed: int) -> tuple[Specification, PipelineProfile, dict[str, float]]:
    specification, profiles = random_specification(seed, queries=5)
    ((name, profile),) = profiles.items()
    start_ups_s = {o.name: 2.0 + number for number, o in enumerate(specification.pipelines[name].operators)}
    return specification, _with_start_ups_by_operator(profile, dict(start_ups_s)), start_ups_s


def _check(specification: Specification, matching: Matching, start_ups_s: dict[str, float]) -> None:
    assert specification.infrastructure is not None
    assert matching.deployments
    for sized in matching.deployments:
        hardware = specification.infrastructure.pool(sized.deployment.pool).hardware
        assert sized.startup_s == pytest.approx(start_ups_s[sized.deployment.operator] / hardware.guaranteed_speed)


def test_what_was_measured_in_the_pool_goes_before_what_its_speed_says() -> None:
    specification, profile, start_ups_s = _planned(0)
    assert specification.infrastructure is not None
    pool = specification.infrastructure.pools[0]
    batches = ClassBatchRatios({(1.0, 1): 1.0, (1.0, 4): 2.0, (2.0, 1): 0.7}, frozenset(), "a table")
    speeds = Speeds({pool.hardware.name: MeasuredSpeed(Interval(0.5, 0.4, 0.6), 24, 7.0, batches)})
    unseen = Speeds({pool.hardware.name: MeasuredSpeed(Interval(0.5, 0.4, 0.6), 24, None)})
    configuration = profile.configurations[0]
    for known, expected in ((speeds, lambda _: 7.0), (unseen, lambda name: start_ups_s[name] / 0.4)):
        operators = {name: replace(one, speeds=known) for name, one in configuration.operators.items()}
        told = replace(profile, configurations=(replace(configuration, operators=operators),))
        sized = [
            SizedDeployment(
                Deployment(
                    pipeline=profile.pipeline,
                    operator=name,
                    knobs=one.prefix[name],
                    pool=pool.name,
                    allocation=Allocation(cpus=1.0, batch_size=1, utilization_target=0.5),
                ),
                DEMAND,
                (0,),
                0.5,
            )
            for name, one in operators.items()
        ]
        for found in add_startup_times(sized, {profile.pipeline: told}, specification.infrastructure):
            assert found.startup_s == pytest.approx(expected(found.deployment.operator))
            assert found.relative_speed == 0.5
            assert found.batch_ratio == (((1, 1.0), (4, 2.0)) if known is speeds else ())


def test_every_deployment_of_a_plan_says_it_for_the_hardware_of_its_pool() -> None:
    speeds: set[float] = set()
    for seed in range(3):
        specification, profile, start_ups_s = _planned(seed)
        matching, _ = plan_all_queries(
            specification, {profile.pipeline: profile}, settings=SIMPLE, explain_rejections=()
        )
        _check(specification, matching, start_ups_s)
        speeds |= {s.startup_s / start_ups_s[s.deployment.operator] for s in matching.deployments if s.startup_s}
    assert len(speeds) > 1


def test_so_do_deployments_once_another_query_was_let_in() -> None:
    admitted = 0
    for seed in range(4):
        specification, profile, start_ups_s = _planned(seed)
        *others, last = specification.queries
        without_last = replace(specification, queries=tuple(others))
        ran, _ = plan_all_queries(without_last, {profile.pipeline: profile}, settings=SIMPLE, explain_rejections=())
        if not ran.assignments:
            continue
        before = replace(ran, deployments=tuple(replace(sized, startup_s=None) for sized in ran.deployments))
        admission, after = admit_query(specification, {profile.pipeline: profile}, before, last.name)
        if admission.assignment is not None:
            admitted += 1
            _check(specification, after, start_ups_s)
    assert admitted


def test_it_is_slower_where_the_hardware_may_be() -> None:
    specification, profile, _ = _planned(0)
    assert specification.infrastructure is not None
    pool = specification.infrastructure.pools[0]
    slow = HardwareClass(name="slow", relative_speed=0.5, relative_speed_bounds=(0.25, 1.0))
    infrastructure = specification.infrastructure.model_copy(
        update={"pools": (pool.model_copy(update={"hardware": slow}),)}
    )
    name, knobs = specification.pipelines[profile.pipeline].operators[0].name, profile.configurations[0].configuration
    allocation = Allocation(1.0, 1, 0.5)
    known = SizedDeployment(Deployment(profile.pipeline, name, knobs[name], pool.name, allocation), DEMAND, (0,), 0.5)
    unknown = [
        replace(known, deployment=replace(known.deployment, pipeline="another"), startup_s=7.0),
        replace(known, deployment=replace(known.deployment, knobs=KnobValues.of({"no": "such"}))),
    ]
    found = add_startup_times([known, *unknown], {profile.pipeline: profile}, infrastructure)
    assert [sized.startup_s for sized in found] == [2.0 / 0.25, 7.0, None]
    own = [p for c in profile.configurations if (p := c.operators[name]).prefix[name] == knobs[name]]
    longest_s = max(p.service_s.max() * p.batch_ratio[1.0, 1] for p in own) / 0.25
    assert found[0].max_batch_s == pytest.approx(longest_s, rel=0.05)
    for before, after in zip((known, *unknown), found, strict=True):
        assert replace(after, startup_s=before.startup_s, max_batch_s=before.max_batch_s) == before


def test_a_replica_waits_for_a_further_node_where_those_that_run_are_full() -> None:
    specification, profile, _ = _planned(0)
    assert specification.infrastructure is not None
    pool = specification.infrastructure.pools[0]
    elastic = {"nodes": 3, "min_nodes": 0, "node_startup_s": 90.0, "cpus": 2.5, "hardware": HardwareClass(name="local")}
    infrastructure = specification.infrastructure.model_copy(update={"pools": (pool.model_copy(update=elastic),)})
    name, knobs = specification.pipelines[profile.pipeline].operators[0].name, profile.configurations[0].configuration
    deployment = Deployment(profile.pipeline, name, knobs[name], pool.name, Allocation(1.0, 1, 0.5))
    waits_s = []
    for nodes in ((0,), (0, 0), (0, 0, 2)):
        (sized,) = add_startup_times(
            [SizedDeployment(deployment, DEMAND, nodes, 0.5)], {profile.pipeline: profile}, infrastructure
        )
        waits_s.append(sized.startup_s)
    assert waits_s == [2.0, 92.0, 2.0]


def test_where_it_was_not_profiled_nothing_is_said() -> None:
    specification, profiles = random_specification(0)
    ((name, profile),) = profiles.items()
    unknown = _with_start_ups_by_operator(profile, dict.fromkeys(profile.configurations[0].operators))
    matching, _ = plan_all_queries(specification, {name: unknown}, settings=SIMPLE)
    assert matching.deployments
    assert all(sized.startup_s is None for sized in matching.deployments)
