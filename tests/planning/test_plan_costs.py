"""Costs in every situation against those of all plans, on random small instances."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from listing import EXACT, Listed, list_plans, small_instance

from budget import seeds
from circinus.planning.sampler.plan_costs import PlanCostCache, min_plan_costs, percentile_floor, situation_count
from circinus.specification import Network
from planning_instances import Instance


def _situations(plans: list[Listed], network: Network, source: str) -> np.ndarray:
    """Return (s,) costs in every situation, by definition."""
    costs = []
    for avoided in (None, *(pool.name for pool in network.pools_for(source))):
        free = [p for p in plans if all(pool != avoided for _, pool in p.candidate.plan.placement)]
        costs += [
            min((p.shared_cost for p in free), default=np.inf),
            min((p.dedicated_cost for p in free), default=np.inf),
        ]
    usable = network.infrastructure.usable_link_share
    shares = [
        max(0.01, sum(use.bytes_per_s / (usable * use.link.bandwidth_bytes_per_s) for use in p.candidate.links))
        for p in plans
    ]
    costs += [
        min((share * p.shared_cost for share, p in zip(shares, plans, strict=True)), default=np.inf),
        min((share * p.dedicated_cost for share, p in zip(shares, plans, strict=True)), default=np.inf),
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
    configurations = [profile.configuration for profile in instance.profile.configurations]
    sure = np.arange(len(configurations))[:, None] % 3 != 2
    costs = PlanCostCache(instance.pipeline, [instance.query], [instance.network], EXACT)
    half = sure & (np.arange(len(sure))[:, None] % 2 == 0)
    (first,) = costs.of(instance.profile, configurations, half)
    (found,) = costs.of(instance.profile, configurations, sure)
    np.testing.assert_array_equal(first[half[:, 0]], found[half[:, 0]])
    assert np.isinf(first[~half[:, 0]]).all()
    assert found.shape == (len(configurations), situation_count(instance.query, instance.network))
    for number, its in enumerate(plans):
        expected = (
            _situations(its, instance.network, instance.query.source)
            if sure[number, 0]
            else np.full(found.shape[1], np.inf)
        )
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
    configurations = [profile.configuration for profile in instance.profile.configurations]
    (found,) = min_plan_costs(
        instance.pipeline, [instance.query], instance.profile, [instance.network], configurations, EXACT
    )
    for number, its in enumerate(plans):
        assert (found[number] <= _situations(its, instance.network, instance.query.source) * (1 + 1e-9)).all()
