"""Costs of queries that are searched together equal those of each query alone, on random instances."""

from __future__ import annotations

import numpy as np
import pytest
from listing import EXACT

from budget import seeds
from circinus.estimation.percentiles import PercentileEstimator
from circinus.planning.joint_search_space import joint_spaces
from circinus.planning.profile_arrays import compile_profile
from circinus.planning.sampler.plan_costs import min_plan_costs
from circinus.planning.search_space import network_shape
from circinus.specification import CostSlo, Network, Query
from planning_instances import Instance, random_instance


def _queries(instance: Instance, seed: int) -> list[Query]:
    """Return queries at every site that differ in rate and limits, some without a cost SLO."""
    rng, queries = np.random.default_rng(seed), []
    for site in instance.network.infrastructure.sites:
        for number in range(3):
            slos = instance.query.slos
            if slos.latency is not None:
                limit_s = slos.latency.limit_s * float(rng.uniform(0.5, 3.0))
                slos = slos.model_copy(update={"latency": slos.latency.model_copy(update={"limit_s": limit_s})})
            cost = CostSlo(limit_usd_per_h=float(rng.uniform(0.5, 20.0))) if number else None
            update = {
                "name": f"{site.name}-{number}",
                "source": site.name,
                "rate_per_s": instance.query.rate_per_s * float(rng.uniform(0.3, 2.0)),
                "slos": slos.model_copy(update={"cost": cost}),
            }
            queries.append(instance.query.model_copy(update=update))
    return queries


@pytest.mark.parametrize("seed", seeds(20))
@pytest.mark.parametrize("exact", [False, True])
def test_costs_of_queries_together_are_those_of_each_alone(seed: int, *, exact: bool) -> None:
    instance = random_instance(seed)
    queries = _queries(instance, seed)
    networks, profile = [instance.network] * len(queries), instance.profile
    configurations = [measured.configuration for measured in profile.configurations]
    requested = np.random.default_rng(seed).random((len(configurations), len(queries))) < 0.7
    together = min_plan_costs(
        instance.pipeline, queries, profile, networks, configurations, EXACT, requested=requested, exact=exact
    )
    for q, query in enumerate(queries):
        (alone,) = min_plan_costs(
            instance.pipeline, [query], profile, [instance.network], configurations, EXACT, exact=exact
        )
        np.testing.assert_allclose(together[q][requested[:, q]], alone[requested[:, q]], rtol=1e-7)
        assert np.isinf(together[q][~requested[:, q]]).all()


def test_queries_at_equal_places_are_searched_together() -> None:
    instance = random_instance(0)
    sites = instance.network.infrastructure.sites
    infrastructure = instance.network.infrastructure
    renamed = {site.name: f"other-{site.name}" for site in sites}
    copies = {
        "sites": tuple(site.model_copy(update={"name": renamed[site.name]}) for site in sites),
        "pools": tuple(
            pool.model_copy(update={"name": f"other-{pool.name}", "site": renamed[pool.site]})
            for pool in infrastructure.pools
        ),
        "links": tuple(
            link.model_copy(update={"source": renamed[link.source], "target": renamed[link.target]})
            for link in infrastructure.links
        ),
    }
    both = infrastructure.model_copy(update={name: getattr(infrastructure, name) + own for name, own in copies.items()})
    network, here = Network(both), instance.query
    there = here.model_copy(update={"name": "there", "source": renamed[here.source], "rate_per_s": 2 * here.rate_per_s})
    assert network_shape(here, network) == network_shape(there, network)
    percentile = PercentileEstimator.at(here.slos.percentile, here.risk)
    arrays = compile_profile(instance.pipeline, instance.profile, percentile)
    every = np.arange(len(arrays.configurations))
    (joint,) = joint_spaces([here, there], [network] * 2, arrays, [every, every[:1]], EXACT, lambda: None)
    np.testing.assert_array_equal(joint.queries, [0] * len(every) + [1])
    np.testing.assert_array_equal(joint.configurations, [*every, 0])
