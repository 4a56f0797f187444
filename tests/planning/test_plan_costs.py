"""Costs in every situation against those of all plans, on random small instances."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from listing import EXACT, Listed, list_plans, small_instance

from budget import seeds
from circinus.planning.sampler.plan_costs import KINDS, PlanCostCache, min_plan_costs, percentile_floor
from planning_instances import Instance


def _situations(plans: list[Listed], pools: list[str]) -> np.ndarray:
    """Return (s,) costs in every situation, by definition."""
    costs = []
    for avoided in (None, *pools):
        free = [p for p in plans if all(pool != avoided for _, pool in p.candidate.plan.placement)]
        costs += [
            min((p.shared_cost for p in free), default=np.inf),
            min((p.dedicated_cost for p in free), default=np.inf),
        ]
    return np.array(costs)


@pytest.fixture(scope="module", params=seeds(60))
def plans_by_configuration(request: pytest.FixtureRequest) -> tuple[Instance, list[list[Listed]]]:
    """Return the plans of each configuration that meet the latency and cost SLOs."""
    instance = small_instance(request.param)
    slos = instance.query.slos.model_copy(update={"accuracy": None})
    kept = [plan for plan in list_plans(instance) if not plan.violations(slos)]
    configurations = [profile.configuration for profile in instance.profile.configurations]
    return instance, [[p for p in kept if p.candidate.plan.configuration == c] for c in configurations]


def test_costs_of_sure_ones_are_those_of_their_cheapest_plans(
    plans_by_configuration: tuple[Instance, list[list[Listed]]],
) -> None:
    instance, plans = plans_by_configuration
    pools = [pool.name for pool in instance.network.pools_for(instance.query.source)]
    configurations = [profile.configuration for profile in instance.profile.configurations]
    sure = np.arange(len(configurations))[:, None] % 3 != 2
    costs = PlanCostCache(instance.pipeline, [instance.query], [instance.network], EXACT)
    half = sure & (np.arange(len(sure))[:, None] % 2 == 0)
    (first,) = costs.of(instance.profile, configurations, half)
    (found,) = costs.of(instance.profile, configurations, sure)
    np.testing.assert_array_equal(first[half[:, 0]], found[half[:, 0]])
    assert np.isinf(first[~half[:, 0]]).all()
    assert found.shape == (len(configurations), KINDS * (1 + len(pools)))
    for number, its in enumerate(plans):
        expected = _situations(its, pools) if sure[number, 0] else np.full(found.shape[1], np.inf)
        np.testing.assert_allclose(found[number], expected, rtol=1e-7)


@pytest.mark.parametrize(("population", "percentile", "drawn"), [(20, 95.0, 4), (14, 50.0, 6), (12, 75.0, 5)])
def test_a_floor_is_rarely_above_its_percentile(population: int, percentile: float, drawn: int) -> None:
    """Of all equally likely draws, for times of which the slow ones are a thousand times the others."""
    slow = round(population * (1 - percentile / 100))
    times_s = np.where(np.arange(population) < slow, 1000.0, 1.0)
    above = [
        percentile_floor(times_s[list(draw)], percentile, population) > 1.0
        for draw in combinations(range(population), drawn)
    ]
    assert np.mean(above) <= 0.05


def test_no_plan_costs_less_than_the_least(plans_by_configuration: tuple[Instance, list[list[Listed]]]) -> None:
    instance, plans = plans_by_configuration
    pools = [pool.name for pool in instance.network.pools_for(instance.query.source)]
    configurations = [profile.configuration for profile in instance.profile.configurations]
    (found,) = min_plan_costs(
        instance.pipeline, [instance.query], instance.profile, [instance.network], configurations, EXACT
    )
    for number, its in enumerate(plans):
        assert (found[number] <= _situations(its, pools) * (1 + 1e-9)).all()
