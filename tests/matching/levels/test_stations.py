"""Loads at a limit keep it, and larger ones do not."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.estimation import QueryEstimators
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.matching.levels.stations import StationLevels, WaitTable
from circinus.specification import Network
from circinus.testing.random_instances import random_specification
from planning_instances import Instance, all_plans

SIZES = np.arange(1, 7)


def drawn(seed: int, operators: int = 1):
    specification, profiles = random_specification(seed, queries=1, operators=operators)
    (query,), (pipeline,), (profile,) = specification.queries, specification.pipelines.values(), profiles.values()
    network = Network(specification.required_infrastructure)
    measured = {c.configuration: c for c in profile.configurations}
    plan = next(iter(all_plans(Instance(query, pipeline, profile, network))))
    compiled = QueryEstimators(query, pipeline, network).of(measured[plan.configuration]).compiled(plan)
    return specification, query, compiled


def table_of(plan: CompiledPlan, limit: float = 0.8) -> WaitTable:
    use, stage = plan.deployments[0], plan.stages[0]
    return WaitTable.of(use, stage.service_s, plan.percentile.grid, SIZES, limit)


@pytest.mark.parametrize("seed", range(8))
def test_a_load_within_capacity_keeps_the_limit_and_one_beyond_does_not(seed: int) -> None:
    _, _, plan = drawn(seed)
    table = table_of(plan)
    bound_s = plan.percentile.upper(
        plan.composed_s([(table.waits_s[:, 12], 1.0)], lambda transfer: transfer.guaranteed_s)
    )
    for size, limit_s in zip(range(len(SIZES)), bound_s.tolist(), strict=True):
        levels, level = StationLevels.of_limits(table, [plan], [limit_s])
        assert level.tolist() == [0]
        busy = table.utilization[12] * SIZES[size]
        assert levels.capacity[0, size] >= busy * (1 - 1e-9)
        at_capacity = levels.capacity[0, size] / SIZES[size]
        following = table.utilization[np.searchsorted(table.utilization, at_capacity + 1e-9) :]
        column = len(table.utilization) - len(following)
        if len(following):
            later = plan.composed_s([(table.waits_s[size, column], 1.0)], lambda transfer: transfer.guaranteed_s)
            assert plan.percentile.upper(later[None])[0] >= limit_s * (1 - 1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_looser_levels_and_more_replicas_carry_more(seed: int) -> None:
    _, _, plan = drawn(seed, operators=2)
    levels = StationLevels.on_grid(table_of(plan), 7)
    assert (np.diff(levels.capacity, axis=0) >= -1e-9).all()
    assert (np.diff(levels.capacity, axis=1) >= -1e-9).all()
    assert levels.capacity[-1] == pytest.approx(0.8 * SIZES, rel=1e-6)
