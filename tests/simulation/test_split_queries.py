"""Queries with split plans: their requests are those of the query, divided among the parts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from budget import seeds
from circinus.estimation import Estimate, merge_loads
from circinus.queueing.arrivals import Poisson
from circinus.queueing.fcfs import Station
from circinus.queueing.split_sequence import split_part
from circinus.simulation import PlannedQuery, simulate
from circinus.simulation.engine import Simulation
from circinus.simulation.model import QueryModel, Requests, Visit
from circinus.simulation.model_builder import build_model
from circinus.simulation.report import percentile_interval
from circinus.simulation.simulate import _score
from circinus.specification import Deployment, Network
from circinus.statistics.interval import Interval
from planning_instances import random_split


def _sized(seed: int) -> tuple[PlannedQuery, Mapping[Deployment, int], Network, Estimate]:
    """Return a query with a split plan, the replicas it needs alone, and its estimate on them."""
    instance, estimators, candidate = random_split(seed, rate_per_s=1.0)
    profiles = {measured.configuration: measured for measured in instance.profile.configurations}
    conditions = merge_loads([candidate])
    estimate = estimators.candidate(candidate.plan, profiles.__getitem__, conditions).estimate
    first, *others = (profiles[part.plan.configuration] for part in candidate.plan.parts)
    planned = PlannedQuery(
        instance.query, instance.pipeline, candidate.plan, first, Poisson(1.0), other_profiles=tuple(others)
    )
    replicas = {deployment: load.replicas for deployment, load in conditions.deployments.items()}
    return planned, replicas, instance.network, estimate


@pytest.mark.parametrize("seed", seeds(24))
def test_a_split_query_is_several_queries_that_divide_its_requests(seed: int) -> None:
    planned, replicas, network, _ = _sized(seed)
    model = build_model([planned], replicas, network)
    shares = tuple(part.share for part in planned.plan.parts)
    assert model.parts == (range(len(shares)),)
    assert tuple(query.share for query in model.queries) == shares
    split = Simulation(model.stations, model.queries, duration_s=600.0, seed=seed)
    split.run()

    whole = Requests.sample(replace(model.queries[0], shares=(1.0,)), 600.0, seed)
    taken = split_part(planned.query.name, shares, np.arange(len(whole.items)))
    apart = build_model([replace(part, query=planned.query) for part in planned.parts], replicas, network)
    requests = [Requests(whole.arrival_s[taken == part], whole.items[taken == part]) for part in range(len(shares))]
    expected = Simulation(apart.stations, apart.queries, duration_s=600.0, requests=requests)
    expected.run()
    for found, one in zip(split.runs, expected.runs, strict=True):
        np.testing.assert_array_equal(found.latency_s, one.latency_s)
    together = split.merged_run(model.parts[0])
    np.testing.assert_array_equal(together.arrival_s, whole.arrival_s)
    for part, run in enumerate(expected.runs):
        np.testing.assert_array_equal(together.latency_s[taken == part], run.latency_s)
        scores = planned.profiles[part].scores[whole.items[taken == part]]
        np.testing.assert_array_equal(planned.scores[together.items[taken == part]], scores)


@pytest.mark.parametrize("seed", seeds(24))
def test_rare_requests_of_a_split_query_take_what_those_of_its_parts_take(seed: int) -> None:
    planned, replicas, network, _ = _sized(seed)
    alone_s = []
    for part in planned.parts:
        model, items = build_model([part], replicas, network), np.arange(len(part.profile.items))
        apart = Simulation(model.stations, model.queries, duration_s=1.0, requests=[Requests(items * 1e6, items)])
        apart.run()
        alone_s.append(apart.runs[0].latency_s)
    rare = replace(planned, arrivals=Poisson(1e-3))
    (found,) = simulate([rare], replicas, network, duration_s=4e6, warm_up_s=None).queries
    assert found.requests == pytest.approx(4000, rel=0.1)
    for name, at in found.latency_s.items():
        for limit_s, difference in ((at.value * (1 - 1e-6), 0.03), (at.value * (1 + 1e-6), -0.03)):
            shares = [
                part.share * (its_s <= limit_s).mean() for part, its_s in zip(planned.plan.parts, alone_s, strict=True)
            ]
            assert (sum(shares) - float(name[1:]) / 100 - difference) * difference <= 0
    assert found.score == planned.accuracy


@pytest.mark.parametrize("seed", seeds(40))
def test_a_split_query_keeps_what_is_estimated_for_all_its_parts(seed: int) -> None:
    planned, replicas, network, estimate = _sized(seed)
    model = build_model([planned], replicas, network, with_margins=True)
    simulation = Simulation(model.stations, model.queries, duration_s=4000.0, seed=seed, warm_up_s=400.0)
    simulation.run()
    for run in (simulation.merged_run(model.parts[0]), *simulation.runs):
        latency_s = run.latency_s[run.arrival_s >= 400.0]
        assert percentile_interval(latency_s, estimate.percentile).lower <= estimate.latency_s.upper
    (found,) = simulate([planned], replicas, network, duration_s=4000.0, warm_up_s=None).queries
    assert estimate.accuracy.lower <= found.score <= estimate.accuracy.upper


def test_dropped_requests_of_one_part_change_the_accuracy_by_their_scores() -> None:
    planned, *_ = _sized(0)
    profiles = [
        replace(profile, scores=np.full(len(profile.items), score), accuracy=Interval.exact(score))
        for profile, score in zip(planned.profiles, (0.6, 0.4, 0.4), strict=True)
    ]
    planned = replace(planned, profile=profiles[0], other_profiles=tuple(profiles[1:]))
    items = np.array([0, len(profiles[0].items)] * 50)
    change = _score(planned, items, items == 0) - planned.accuracy
    assert change == pytest.approx(0.6 - 0.5)
    each = replace(planned, query=planned.query.model_copy(update={"accuracy_of": "each"}))
    assert _score(each, items, items >= 0) == (0.4 if each.pipeline.metric.direction == "maximize" else 0.6)
    assert _score(each, items, items == 0) == 0.6


def test_halves_of_random_requests_wait_less_than_random_halves() -> None:
    """At two stations of utilization 0.7: less than at M/M/1, and more than behind an alternating route, E2/M/1."""
    service_s = -np.log1p(-(np.arange(4096) + 0.5) / 4096)
    halves = [
        QueryModel("query", Poisson(1.4), 4096, (Visit(part, (), service_s),), (0,), shares=(0.5, 0.5), part=part)
        for part in (0, 1)
    ]
    simulation = Simulation([Station("first", 1), Station("second", 1)], halves, duration_s=1e5)
    simulation.run()
    wait_s = sum(stats.wait_s for stats in simulation.station_stats) / sum(len(run.items) for run in simulation.runs)
    waiting = (2 * 1.4 + 1 - math.sqrt(4 * 1.4 + 1)) / 2
    assert waiting / (1 - waiting) < wait_s < 0.7 / 0.3
