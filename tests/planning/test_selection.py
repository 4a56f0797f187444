from __future__ import annotations

import numpy as np
import pytest

from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.planner import select_representatives
from circinus.planning.resource_columns import ResourceColumns
from circinus.specification import DirectedLink, HardwareClass, Pool

COLUMNS = ResourceColumns(
    pools=tuple(
        Pool(
            name=name, site=name, tier=name, cpus=8.0, memory=1e9, hardware=HardwareClass(name="h", relative_speed=1.0)
        )
        for name in ("device", "edge", "cloud")
    ),
    links=(DirectedLink("device", "edge", 1e6, 0.01, 0.0),),
    usable_link_share=0.7,
)


def _plans(count: int, seed: int) -> PlanArrays:
    rng = np.random.default_rng(seed)
    return PlanArrays(
        configuration=rng.integers(0, 6, count),
        pools=rng.integers(0, 3, (count, 2)),
        options=np.zeros((count, 2), dtype=np.int64),
        resources=rng.random((count, COLUMNS.count)),
    )


@pytest.mark.parametrize("max_plans", [1, 5, 40, 300])
@pytest.mark.parametrize("seed", range(5))
def test_no_more_than_asked_for_each_once_by_cost(max_plans: int, seed: int) -> None:
    plans = _plans(200, seed)
    chosen = select_representatives(plans, COLUMNS, "device", max_plans)
    assert len(chosen) == len(set(chosen.tolist())) == min(max_plans, 200)
    cost = plans.resources[chosen, COLUMNS.dedicated_cost]
    assert (np.diff(cost) >= 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_extremes_stay(seed: int) -> None:
    plans = _plans(200, seed)
    chosen = set(select_representatives(plans, COLUMNS, "device", 40).tolist())
    assert int(plans.resources[:, COLUMNS.dedicated_cost].argmin()) in chosen
    assert int(plans.resources[:, COLUMNS.shared_cost].argmin()) in chosen
    for pool in range(3):
        for columns in (COLUMNS.shared(pool), COLUMNS.dedicated(pool)):
            assert set(plans.resources[:, columns].argmin(axis=0).tolist()) <= chosen
    assert int(plans.resources[:, COLUMNS.link(0)].argmin()) in chosen


@pytest.mark.parametrize("seed", range(5))
def test_the_cheapest_of_each_placement_and_configuration_stay(seed: int) -> None:
    plans = _plans(400, seed)
    chosen = select_representatives(plans, COLUMNS, "device", 60)
    cost = plans.resources[:, COLUMNS.dedicated_cost]
    for configuration in range(6):
        alike = np.flatnonzero(plans.configuration == configuration)
        assert alike[cost[alike].argmin()] in chosen
    for placement in np.unique(plans.pools, axis=0):
        alike = np.flatnonzero((plans.pools == placement).all(axis=1))
        assert alike[cost[alike].argmin()] in chosen


def test_columns_do_not_overlap_and_cover_everything() -> None:
    counted = np.zeros(COLUMNS.count, dtype=int)
    for pool in range(3):
        counted[COLUMNS.shared(pool)] += 1
        counted[COLUMNS.dedicated(pool)] += 1
    counted[[COLUMNS.link(0), COLUMNS.shared_cost, COLUMNS.dedicated_cost]] += 1
    assert (counted == 1).all()
    assert np.isfinite(COLUMNS.capacity).sum() == 3 * 4 + 1


def test_of_plans_of_equal_cost_those_that_stay_at_the_source_come_first() -> None:
    plans = _plans(200, 0)
    plans.resources[:, [COLUMNS.shared_cost, COLUMNS.dedicated_cost]] = 0.0
    chosen = select_representatives(plans, COLUMNS, "device", 40)
    moves = [(np.diff([0, *pools, 0]) != 0).sum() for pools in plans.pools[chosen]]
    assert moves == sorted(moves)
    assert moves[0] == 0
