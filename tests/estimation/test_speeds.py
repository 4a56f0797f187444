"""Speeds that were measured of operators on hardware classes, in estimates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from budget import share_of
from circinus.estimation import Estimator
from circinus.planning import plan_query
from circinus.profiling import MeasuredSpeed, OperatorProfile, Speeds
from circinus.profiling.hardware.machine import ClassBatchRatios
from circinus.specification import BurstyArrivals, Configuration, HardwareClass, Network
from circinus.statistics.interval import Interval
from planning_instances import Instance, all_plans, measured_there, random_instance

UNSURE = HardwareClass(name="edge", relative_speed=2.0, relative_speed_bounds=(1.5, 3.0))


def _declared(instance: Instance, factor: float) -> Instance:
    """The same on pools that are declared to be `factor` times as fast."""
    infrastructure = instance.network.infrastructure
    pools = []
    for pool in infrastructure.pools:
        hardware = pool.hardware
        bounds = hardware.relative_speed_bounds
        scaled = HardwareClass(
            name=hardware.name,
            relative_speed=factor * hardware.speed,
            relative_speed_bounds=None if bounds is None else (factor * bounds[0], factor * bounds[1]),
        )
        pools.append(pool.model_copy(update={"hardware": scaled}))
    return replace(instance, network=Network(infrastructure.model_copy(update={"pools": tuple(pools)})))


def _estimators(instance: Instance) -> dict[Configuration, Estimator]:
    return {
        found.configuration: Estimator(instance.query, instance.pipeline, found, instance.network)
        for found in instance.profile.configurations
    }


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("seed", (5, 9, 10, 4, 0, 1, 2, 3, 6, 7, 8, 11)[: share_of(12)])
def test_measured_speeds_are_as_if_they_had_been_declared(seed: int, factor: float) -> None:
    instance = random_instance(seed)
    both = [_estimators(one) for one in (measured_there(instance, factor=factor), _declared(instance, factor))]
    for plan in list(all_plans(instance))[::7][:200]:
        found, expected = (of[plan.configuration].candidate(plan).estimate for of in both)
        np.testing.assert_allclose(
            [found.latency_s.value, found.latency_s.upper, found.cost_usd_per_h.upper],
            [expected.latency_s.value, expected.latency_s.upper, expected.cost_usd_per_h.upper],
            rtol=1e-9,
        )


@pytest.mark.parametrize("seed", (23, 7, 11, 12)[: share_of(8)])
def test_batch_ratios_of_a_class_are_as_if_the_profile_had_them(seed: int) -> None:
    """Estimates and searched plans are the same; the profile's own ratios play no part."""
    instance = measured_there(random_instance(seed), factor=0.7)
    classes = {pool.hardware.name for pool in instance.network.infrastructure.pools}

    def imported(operator: OperatorProfile) -> OperatorProfile:
        ratios = operator.batch_ratio
        batches = ClassBatchRatios(ratios, frozenset(ratios), "table.csv")
        by_class = {name: replace(operator.speeds.measured[name], batches=batches) for name in classes}
        return replace(operator, batch_ratio=dict.fromkeys(ratios, 7.0), speeds=Speeds(by_class))

    other = replace(instance, profile=instance.profile.with_operators(imported))
    assert any(size > 1 for o in instance.pipeline.operators for size in o.batch_sizes)
    both = [_estimators(one) for one in (instance, other)]
    for plan in list(all_plans(instance))[::7][:50]:
        expected, found = (of[plan.configuration].candidate(plan).estimate for of in both)
        assert (found.latency_s, found.cost_usd_per_h) == (expected.latency_s, expected.cost_usd_per_h)
    bursty = instance.query.model_copy(update={"arrivals": BurstyArrivals()})
    for query in (instance.query, bursty):
        frontiers = [plan_query(query, i.pipeline, i.profile, i.network) for i in (instance, other)]
        assert [c.plan for c in frontiers[0].plans] == [c.plan for c in frontiers[1].plans]


def test_promises_are_made_with_the_lower_bound_and_what_was_not_measured_as_declared() -> None:
    speeds = Speeds({"edge": MeasuredSpeed(Interval(0.8, 0.7, 0.9), 24)})
    assert (speeds.guaranteed(UNSURE), speeds.expected(UNSURE)) == (0.7, 0.8)
    other = UNSURE.model_copy(update={"name": "other"})
    assert (speeds.guaranteed(other), speeds.expected(other)) == (1.5, 2.0)


def test_what_traffic_taught_of_a_declared_speed_is_not_believed_of_a_measured_one() -> None:
    operator = next(iter(random_instance(0).profile.configurations[0].operators.values()))
    taught = replace(operator, corrections={("edge", 1.5): 2.0, ("edge", 0.7): 1.1})
    assert taught.slowdown(UNSURE) == 2.0 / 1.5
    measured = replace(taught, speeds=Speeds({"edge": MeasuredSpeed(Interval(0.8, 0.7, 0.9), 24)}))
    assert measured.slowdown(UNSURE) == 1.1 / 0.7
