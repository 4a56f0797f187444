"""Alternatives to the ladder in the burst benchmark, and its figures."""

from __future__ import annotations

from collections import Counter

import pytest
from benchmarks.control.bursts import LADDER, PLAIN, SAME_COST, Burst, burst_figures, same_cost

from budget import seeds
from circinus.matching import Matching, plan_all_queries
from circinus.specification import Infrastructure
from circinus.testing.random_instances import random_specification


@pytest.fixture(scope="module")
def matchings() -> list[tuple[Matching, Infrastructure]]:
    found = []
    for seed in seeds(8):
        specification, profiles = random_specification(seed, queries=4, cpus=6.0, nodes=3)
        matching, _ = plan_all_queries(specification, profiles)
        assert specification.infrastructure is not None
        if matching.deployments:
            found.append((matching, specification.infrastructure))
    assert found
    return found


@pytest.mark.parametrize("usd_per_h", [0.0, 0.3, 2.0])
def test_more_of_the_same_costs_no_more_and_fits(
    matchings: list[tuple[Matching, Infrastructure]], usd_per_h: float
) -> None:
    for matching, infrastructure in matchings:
        found = same_cost(matching, infrastructure, usd_per_h)
        assert found.cost_usd_per_h <= usd_per_h * (1 + 1e-6)
        before = {one.deployment: one for one in matching.deployments}
        cost, used = 0.0, Counter[tuple[str, int]]()
        for one in found.deployments:
            extra = one.replicas - before[one.deployment].replicas
            assert extra == found.extra.get(one.deployment, 0) >= 0
            assert one.nodes[: before[one.deployment].replicas] == before[one.deployment].nodes
            cost += extra * one.demand.cost_usd_per_h
            for node in one.nodes:
                used[one.deployment.pool, node] += one.demand.cpus  # type: ignore[assignment]
        assert cost == pytest.approx(found.cost_usd_per_h)
        for (name, node), cpus in used.items():
            pool = infrastructure.pool(name)
            assert node < pool.nodes
            assert cpus <= pool.cpus + 1e-6


def test_money_is_spent_as_far_as_there_is_room(matchings: list[tuple[Matching, Infrastructure]]) -> None:
    bought = 0
    for matching, infrastructure in matchings:
        dearest = max(one.demand.cost_usd_per_h for one in matching.deployments)
        once = same_cost(matching, infrastructure, 50 * dearest)
        assert same_cost(matching, infrastructure, 100 * dearest + 1e3).cost_usd_per_h >= once.cost_usd_per_h
        bought += sum(once.extra.values())
    assert bought > 0


def test_figures_are_medians_and_name_every_way() -> None:
    def burst(way: str, repeat: int, share: float) -> Burst:
        first_s = 0.5 + repeat if way == LADDER else None
        return Burst(way, repeat, 0.1, 100, repeat, share, share + 0.01, 3 if way == LADDER else 0, first_s, {})

    shares = {LADDER: (0.9, 0.97, 0.96), PLAIN: (0.1, 0.2, 0.9), SAME_COST: (0.4, 0.3, 0.2)}
    found = burst_figures([burst(way, repeat, share[repeat]) for way, share in shares.items() for repeat in range(3)])
    values = {figure.name: figure for figure in found}
    assert values[f"burst to 5x for 20 s, in time: {LADDER}"].value == 0.96
    assert values[f"burst to 5x for 20 s, in time: {LADDER}"].met
    assert values[f"burst to 5x for 20 s, in time: {PLAIN}"].value == 0.2
    assert values[f"burst to 5x for 20 s, in time: {SAME_COST}"].value == 0.3
    assert values["from the begin of the burst to the first step down"].value == 1.5
    assert values["requests that failed in bursts"].value == 9.0
