"""Labels agree with the estimator, and more capacity or time never means fewer plans."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from listing import EXACT, point_of, small_instance

from budget import half_share_of
from circinus.estimation import Estimator
from circinus.estimation.estimator import latency_percentile
from circinus.planning import plan_query
from circinus.planning.allocation_search import AllocationSearch
from circinus.planning.placement_search import CHEAPEST, FASTEST, PlacementSearch
from circinus.planning.plan_arrays import PlanNames
from circinus.planning.profile_arrays import compile_profile
from circinus.planning.search_space import Limits, SearchSpace, compile_query
from circinus.specification import Network
from planning_instances import Instance


def _space(instance: Instance) -> SearchSpace:
    arrays = compile_profile(instance.pipeline, instance.profile, latency_percentile(instance.query))
    return compile_query(instance.query, instance.network, arrays, EXACT)


@pytest.mark.parametrize("seed", range(half_share_of(80)))
def test_latency_and_resources_of_labels_are_those_of_the_estimator(seed: int) -> None:
    instance = small_instance(seed)
    space = _space(instance)
    configurations = np.arange(len(space.arrays.configurations))
    limits = Limits.of(space, latency=False, cost=False)
    search = PlacementSearch(space, configurations)
    cells = search.run(limits, 10**6, Counter())
    plans, latency_s = AllocationSearch(space, configurations, cells, limits).fastest()
    estimators = [
        Estimator(instance.query, instance.pipeline, profile, instance.network)
        for profile in space.arrays.configurations
    ]
    bounds_s = search.lower_bounds_s()
    for index in range(plans.count):
        plan = plans.plan(PlanNames.of(space), index)
        configuration = int(plans.configuration[index])
        candidate = estimators[configuration].candidate(plan)
        expected_s = estimators[configuration].latency_s(plan, cautious=True)
        np.testing.assert_allclose(latency_s[index], expected_s, rtol=1e-12)
        assert (bounds_s[configuration] <= expected_s * (1 + 1e-12)).all()
        cost = candidate.estimate.cost_usd_per_h
        assert plans.resources[index, space.columns.shared_cost] == pytest.approx(cost.lower)
        assert plans.resources[index, space.columns.dedicated_cost] == pytest.approx(cost.upper)


@pytest.mark.parametrize("seed", range(half_share_of(80)))
def test_a_placement_lies_between_its_extremes(seed: int) -> None:
    space = _space(small_instance(seed))
    configurations = np.arange(len(space.arrays.configurations))
    limits = Limits.of(space, latency=False, cost=False)
    cells = PlacementSearch(space, configurations).run(limits, 10**6, Counter())
    assert (cells.latency_s[:, FASTEST] <= cells.latency_s[:, CHEAPEST] + 1e-12).all()
    assert (cells.min_resources <= cells.cheapest * (1 + 1e-12)).all()
    for cell in range(cells.count):
        plans, latency_s = AllocationSearch(space, configurations, cells.take(np.array([cell])), limits).fastest()
        if plans.count:
            assert (cells.latency_s[cell, FASTEST] <= latency_s.min(axis=0) * (1 + 1e-12) + 1e-12).all()
            assert (cells.min_resources[cell] <= plans.resources * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize("seed", range(half_share_of(80)))
def test_a_looser_limit_or_more_nodes_lose_no_plan(seed: int) -> None:
    instance = small_instance(seed)
    query, network = instance.query, instance.network
    slos = query.slos
    looser = slos.model_copy(
        update={
            "latency": slos.latency and slos.latency.model_copy(update={"limit_s": slos.latency.limit_s * 1.3}),
            "cost": slos.cost and slos.cost.model_copy(update={"limit_usd_per_h": slos.cost.limit_usd_per_h * 1.3}),
        }
    )
    infrastructure = network.infrastructure
    larger = Network(
        infrastructure.model_copy(
            update={"pools": tuple(p.model_copy(update={"nodes": p.nodes + 1}) for p in infrastructure.pools)}
        )
    )
    before = plan_query(query, instance.pipeline, instance.profile, network, EXACT)
    for changed, where in ((query.model_copy(update={"slos": looser}), network), (query, larger)):
        after = plan_query(changed, instance.pipeline, instance.profile, where, EXACT)
        points = [point_of(replace(instance, network=where), candidate) for candidate in after.candidates]
        for candidate in before.candidates:
            ceiling = np.array(point_of(instance, candidate)) * (1 + 1e-9)
            assert any((np.array(point) <= ceiling).all() for point in points)
