"""What estimates take into account where the load is known: how requests come, and what they doubt."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from budget import seeds
from circinus.errors import PlanningError
from circinus.estimation import Estimator, MergedLoad, PlanCandidate, RequestStream, merge_loads
from circinus.estimation.transfer import bottleneck_links
from circinus.queueing.arrivals import MarkovModulatedPoisson
from circinus.queueing.response_time import mean_batch_size
from circinus.specification import (
    Allocation,
    AnyArrivals,
    BurstyArrivals,
    DirectedLink,
    LatencySlo,
    Network,
    PeriodicArrivals,
    Query,
    QueryPlan,
    Slos,
)
from circinus.testing.random_instances import random_infrastructure, random_pipeline, random_profile
from planning_instances import Instance, all_plans, random_instance

BURSTS = MarkovModulatedPoisson((8.0, 1.0), (2.0, 6.0))


def test_one_bursty_stream_among_others_keeps_its_bursts_beside_their_rates() -> None:
    plain, bursty = RequestStream(4.0, 0.1, 0.01, 0.001), RequestStream(2.75, 0.1, 0.01, 0.001, modulation=BURSTS)
    merged = RequestStream.merged([plain, bursty])
    assert merged.rate_per_s == pytest.approx(6.75)
    assert merged.modulation == MarkovModulatedPoisson((12.0, 5.0), (2.0, 6.0))
    assert merged.modulation is not None
    assert merged.modulation.rate_per_s == pytest.approx(merged.rate_per_s)


def test_two_bursty_streams_are_one_whose_rate_varies_as_much_as_both() -> None:
    mild = RequestStream(1.5, 0.1, 0.01, modulation=MarkovModulatedPoisson((2.0, 1.0), (2.0, 2.0)))
    wild = RequestStream(2.75, 0.1, 0.01, modulation=BURSTS)
    found = RequestStream.merged([mild, RequestStream(3.0, 0.1, 0.01), wild]).modulation
    assert found is not None
    assert found.rate_per_s == pytest.approx(7.25)
    assert found.variance == pytest.approx(0.25 + 7**2 * 3 / 16)
    assert BURSTS.memory_s > found.memory_s > 1.0


def test_several_cameras_together_are_random_and_one_is_regular() -> None:
    camera = RequestStream(10.0, 0.01, 0.0001, jitter_s=0.0)
    assert RequestStream.merged([camera]).jitter_s == 0.0
    assert RequestStream.merged([camera, camera]).jitter_s is None


def test_another_rate_keeps_the_shape() -> None:
    found = RequestStream(2.75, 0.1, 0.01, jitter_s=0.2, modulation=BURSTS).within(5.5)
    assert found.jitter_s == pytest.approx(0.1)
    assert found.modulation == BURSTS.superpose_poisson(2.75)
    assert found.modulation is not None
    assert found.modulation.rate_per_s == pytest.approx(5.5)


@cache
def _instance(seed: int) -> Instance:
    return random_instance(seed)


@cache
def _as_sized(seed: int, arrivals: AnyArrivals | None = None) -> list[tuple[QueryPlan, PlanCandidate, MergedLoad]]:
    """Some plans of an instance, with the replicas they need alone."""
    instance = _instance(seed)
    query = instance.query if arrivals is None else instance.query.model_copy(update={"arrivals": arrivals})
    found = []
    for profile in instance.profile.configurations[:2]:
        estimator = Estimator(query, instance.pipeline, profile, instance.network)
        plans = [p for p in all_plans(instance) if p.configuration == profile.configuration]
        for plan in plans[:: max(1, len(plans) // 5)]:
            try:
                conditions = merge_loads([estimator.candidate(plan)])
            except PlanningError:  # a link that the query alone would fill
                continue
            found.append((plan, estimator.candidate(plan, conditions), conditions))
    return found


@pytest.mark.parametrize("seed", seeds(12))
def test_bursts_take_longer_than_independent_requests_and_are_doubted(seed: int) -> None:
    bursty = _as_sized(seed, BurstyArrivals(peak=3.0, burst_s=5.0, every_s=20.0))
    for (_, calm, _), (_, found, _) in zip(_as_sized(seed), bursty, strict=True):
        assert found.estimate.latency_s.upper >= calm.estimate.latency_s.upper * 0.9
        assert any("burst" in caveat for caveat in found.estimate.caveats)


@pytest.mark.parametrize("seed", seeds(12))
def test_cameras_take_no_longer_than_independent_requests(seed: int) -> None:
    for (_, random, _), (_, found, _) in zip(_as_sized(seed), _as_sized(seed, PeriodicArrivals()), strict=True):
        assert found.estimate.latency_s.value <= random.estimate.latency_s.value * 1.1


def test_requests_come_as_those_before_them_let_them_go() -> None:
    """In groups behind batches, and more regularly from a busy server where all of it goes to one other."""
    grouped = smoothed = 0
    for seed in sorted({21, *seeds(60)}):  # with batches before others in 21
        for _, candidate, conditions in _as_sized(seed):
            for use in candidate.deployments:
                assert sum(share for _, share in use.after) == pytest.approx(1.0 if use.after else 0.0)
                load = conditions.deployments[use.deployment]
                assert 0.0 <= load.arrival_scv <= 1.0
                if len(use.after) != 1:
                    assert load.arrival_scv == 1.0
                smoothed += load.arrival_scv < 0.99
                before = [conditions.deployments[deployment] for deployment, share in use.after if share > 0]
                if all(other.batch_size == 1 and other.groups == (1.0,) for other in before):
                    assert mean_batch_size(load.groups) == pytest.approx(1.0)
                else:
                    assert (
                        1.0
                        <= mean_batch_size(load.groups)
                        <= max(max(other.batch_size, len(other.groups)) for other in before)
                    )
                    grouped += mean_batch_size(load.groups) > 1.01
    assert grouped
    assert smoothed


def test_a_promise_has_no_doubts() -> None:
    instance = _instance(1)
    for plan, _, _ in _as_sized(1):
        profile = next(c for c in instance.profile.configurations if c.configuration == plan.configuration)
        assert (
            not Estimator(instance.query, instance.pipeline, profile, instance.network).candidate(plan).estimate.caveats
        )


def test_busy_deployments_are_doubted() -> None:
    for seed in seeds(10):
        instance = _instance(seed)
        for plan, candidate, conditions in _as_sized(seed):
            profile = next(c for c in instance.profile.configurations if c.configuration == plan.configuration)
            busiest = max(conditions.deployments, key=lambda d: conditions.deployments[d].utilization)
            load = conditions.deployments[busiest]
            factor = 0.9 / load.utilization
            traffic = replace(load.traffic, rate_per_s=load.traffic.rate_per_s * factor)
            busy = {**conditions.deployments, busiest: replace(load, traffic=traffic)}
            estimator = Estimator(instance.query, instance.pipeline, profile, instance.network)
            found = estimator.candidate(plan, MergedLoad(busy, conditions.links)).estimate
            assert any(f"operator {busiest.operator}: " in caveat and "90%" in caveat for caveat in found.caveats)
            assert np.isfinite(found.latency_s.value)
            assert candidate.estimate.latency_s.value <= found.latency_s.value * 1.05


def _shared(
    seed: int, cpus: tuple[float, ...], batch_sizes: tuple[int, ...]
) -> tuple[list[Estimator], list[QueryPlan]]:
    """Two queries with bursts whose plans share the second operator behind different knobs of the first."""
    rng = np.random.default_rng(seed)
    pipeline = random_pipeline(rng, knobs=(2, 1), chain=True, cpus=cpus, batch_sizes=batch_sizes)
    profile = random_profile(rng, pipeline)
    network = Network(random_infrastructure(rng, sites=1, pools=1))
    arrivals = BurstyArrivals(peak=2.0, burst_s=5.0, every_s=20.0)
    slos = Slos(latency=LatencySlo(limit_s=1.0))
    estimators, plans = [], []
    for number, found in enumerate(profile.configurations):
        query = Query(
            name=f"q{number}", pipeline=pipeline.name, source="device", rate=2.0, slos=slos, arrivals=arrivals
        )
        estimators.append(Estimator(query, pipeline, found, network))
        allocation = Allocation(cpus[-1], batch_sizes[-1], 0.6)
        placement = tuple((operator.name, "pool0") for operator in pipeline.operators)
        plans.append(
            QueryPlan(pipeline.name, found.configuration, placement, tuple((name, allocation) for name, _ in placement))
        )
    return estimators, plans


@pytest.mark.parametrize("seed", range(5))
def test_a_query_takes_its_own_time_at_a_deployment_that_it_shares(seed: int) -> None:
    """More CPUs help each of them differently; who is named first does not matter."""
    estimators, plans = _shared(seed, (1.0, 2.0), (1,))
    alone = [estimator.candidate(plan) for estimator, plan in zip(estimators, plans, strict=True)]
    one, other = merge_loads(alone), merge_loads(alone[::-1])
    shared = alone[1].deployments[1].deployment
    assert shared == alone[0].deployments[1].deployment
    assert one.deployments[shared].fill_ratios != other.deployments[shared].fill_ratios
    for estimator, plan in zip(estimators, plans, strict=True):
        found, again = estimator.latency_s(plan, one), estimator.latency_s(plan, other)
        np.testing.assert_allclose(found, again, rtol=1e-9)


@pytest.mark.parametrize("wait_s", [0.0, 5.0])
def test_links_behind_batches_are_doubted(wait_s: float) -> None:
    """Batches that wait for five seconds are full of requests that come twice a second."""
    rng = np.random.default_rng(0)
    pipeline = random_pipeline(rng, knobs=(1, 1), chain=True, batch_sizes=(4,))
    waiting = tuple(operator.model_copy(update={"batch_wait_s": wait_s}) for operator in pipeline.operators)
    pipeline = pipeline.model_copy(update={"operators": waiting})
    (found,) = random_profile(rng, pipeline).configurations
    network = Network(random_infrastructure(rng, sites=2, pools=2))
    allocation = Allocation(1.0, 4, 0.6)
    plan = QueryPlan(
        pipeline.name,
        found.configuration,
        (("op0", "pool0"), ("op1", "pool1")),
        tuple((n, allocation) for n in ("op0", "op1")),
    )
    estimator = Estimator(Query(name="q", pipeline=pipeline.name, source="device", rate=2.0), pipeline, found, network)
    caveats = estimator.candidate(plan, merge_loads([estimator.candidate(plan)])).estimate.caveats
    batched = [caveat for caveat in caveats if "values arrive in batches" in caveat]
    there, back = (link.name for link in (*network.path("device", "edge"), *network.path("edge", "device")))
    expected = [
        f"link {there}: values arrive in batches from operator op0",
        f"link {back}: values arrive in batches from operator op1",
    ]
    assert batched == (expected if wait_s else [])


def test_values_wait_at_the_narrowest_of_links_that_all_of_them_cross() -> None:
    first, second, other = (
        DirectedLink(source, target, bandwidth, 0.01, 0.0)
        for source, target, bandwidth in (("a", "b", 1e6), ("b", "c", 8e5), ("c", "d", 1e6))
    )

    def sending(link: DirectedLink, rate_per_s: float) -> RequestStream:
        seconds = 5e4 / link.bandwidth_bytes_per_s
        return RequestStream(rate_per_s, seconds, seconds**2)

    loads = {first: sending(first, 10.0), second: sending(second, 10.0), other: sending(other, 12.0)}
    assert bottleneck_links((first, second, other), MergedLoad({}, loads)) == (second, other)
    loads[first] = sending(first, 11.0)
    assert bottleneck_links((first, second, other), MergedLoad({}, loads)) == (first, second, other)
