from __future__ import annotations

import numpy as np
import pytest

from budget import seeds
from circinus.estimation import merge_loads
from circinus.estimation.merged_load import ArrivalModel
from circinus.estimation.split_traffic import thinned
from circinus.queueing.split_sequence import split_part
from circinus.specification import BurstyArrivals, Deployment, PeriodicArrivals, PlanShare, Query, QueryPlan
from planning_instances import random_split


@pytest.mark.parametrize("seed", seeds(12))
def test_a_split_plan_uses_what_its_parts_use_and_is_as_accurate_as_their_mixture(seed: int) -> None:
    _, _, candidate = random_split(seed)
    shares = [part.share for part in candidate.plan.parts]
    assert sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)
    for bound in ("lower", "value", "upper"):
        mixture = sum(
            share * getattr(part.estimate.accuracy, bound) for share, part in zip(shares, candidate.parts, strict=True)
        )
        assert getattr(candidate.estimate.accuracy, bound) == pytest.approx(mixture)
    busy: dict[Deployment, float] = {}
    for part in candidate.parts:
        for use in part.deployments:
            busy[use.deployment] = busy.get(use.deployment, 0.0) + use.busy_replicas
    assert {use.deployment: use.busy_replicas for use in candidate.deployments} == pytest.approx(busy)
    assert set(busy) == set(candidate.plan.deployments)
    for use in candidate.deployments:
        assert sum(share for _, share in use.after) == pytest.approx(1.0 if use.after else 0.0)
    sent = sum(use.bytes_per_s for part in candidate.parts for use in part.links)
    assert sum(use.bytes_per_s for use in candidate.links) == pytest.approx(sent)


@pytest.mark.parametrize("seed", seeds(12))
def test_the_latency_of_a_split_plan_is_between_those_of_its_parts(seed: int) -> None:
    _, _, candidate = random_split(seed)
    latencies = [part.estimate.latency_s for part in candidate.parts]
    mixed = candidate.estimate.latency_s
    assert mixed.upper == max(latency.upper for latency in latencies)
    assert min(latency.value for latency in latencies) <= mixed.value * 1.1
    assert mixed.value <= mixed.upper


@pytest.mark.parametrize("seed", seeds(8))
def test_a_split_into_equal_plans_is_notrandom_split(seed: int) -> None:
    _, _, candidate = random_split(seed)
    plan = candidate.plan.parts[0].plan
    assert QueryPlan.split([PlanShare(0.4, plan), PlanShare(0.6, plan)]) == plan


@pytest.mark.parametrize("seed", seeds(8))
def test_the_parts_of_a_split_plan_load_their_deployments_as_one_query_does(seed: int) -> None:
    _, _, candidate = random_split(seed)
    whole, apart = merge_loads([candidate]), merge_loads(candidate.parts)
    assert set(whole.deployments) == set(apart.deployments)
    assert set(whole.links) == set(apart.links)
    for deployment, load in whole.deployments.items():
        assert load.busy_replicas == pytest.approx(apart.deployments[deployment].busy_replicas)
        assert load.traffic.rate_per_s == pytest.approx(apart.deployments[deployment].traffic.rate_per_s)


def test_the_accuracy_of_each_part_counts_if_the_query_says_so() -> None:
    _, _, candidate = random_split(3, "each")
    assert candidate.estimate.accuracy.lower == min(part.estimate.accuracy.lower for part in candidate.parts)


def test_a_share_of_bursty_requests_has_the_same_bursts() -> None:
    query = Query(name="q", pipeline="p", source="s", rate="10/s", arrivals=BurstyArrivals(peak=4))
    model, whole = ArrivalModel.of(thinned(query, 0.3)).modulation, ArrivalModel.of(query).modulation
    assert model is not None
    assert whole is not None
    assert model.rates_per_s == pytest.approx([0.3 * rate for rate in whole.rates_per_s])
    assert model.durations_s == pytest.approx(whole.durations_s)


@pytest.mark.parametrize("share", [0.02, 0.25, 0.3, 0.52, 0.9])
def test_a_share_of_periodic_requests_is_modelled_less_regular_than_the_requests_of_a_split_route(share: float) -> None:
    query = Query(name="q", pipeline="p", source="s", rate="10/s", arrivals=PeriodicArrivals())
    part = thinned(query, share)
    jitter_s = ArrivalModel.of(part).jitter_s
    assert jitter_s is not None
    gaps = np.diff(np.flatnonzero(split_part("q", [share, 1.0 - share], np.arange(20_000)) == 0))
    assert 0.0 < gaps.var() / gaps.mean() ** 2 < 2.0 * (jitter_s * part.rate_per_s) ** 2
