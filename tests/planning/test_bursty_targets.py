"""Utilization targets of bursty queries, and guarantees for bursts among other load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circinus.estimation.merged_load import ArrivalModel
from circinus.estimation.stage_latency import stations_at_target
from circinus.planning.search_space import shared_targets, utilization_targets
from circinus.planning.settings import RunningLoad
from circinus.specification import (
    Allocation,
    AnyArrivals,
    BurstyArrivals,
    Deployment,
    KnobValues,
    PeriodicArrivals,
    PoissonArrivals,
    Query,
)
from circinus.testing.random_instances import random_infrastructure


def _query(arrivals: AnyArrivals, rate_per_s: float, slos: str = "latency <= 1s") -> Query:
    return Query(name="q", pipeline="p", source="s", rate=rate_per_s, arrivals=arrivals, slos=slos)


_INFRASTRUCTURE = random_infrastructure(np.random.default_rng(0))
_BURSTY = BurstyArrivals(peak=4.0, burst_s=10.0, every_s=60.0)


@pytest.mark.parametrize(
    ("arrivals", "slos", "targets"),
    [
        (PoissonArrivals(), "latency <= 1s", (0.4, 0.7)),
        (PeriodicArrivals(), "latency <= 1s", (0.4, 0.7)),
        (PoissonArrivals(), "accuracy >= 0.5", (0.8,)),
        (_BURSTY, "accuracy >= 0.5", (0.8,)),
        (_BURSTY, "latency <= 1s", (0.1, 0.17, 0.4, 0.7)),
    ],
)
def test_targets_depend_on_bursts_and_on_the_latency_slo(
    arrivals: AnyArrivals, slos: str, targets: tuple[float, ...]
) -> None:
    assert utilization_targets(_query(arrivals, 5.0, slos), _INFRASTRUCTURE) == targets


def test_queries_share_the_targets_of_all_on_their_pipeline() -> None:
    steady, bursty = _query(PoissonArrivals(), 5.0), _query(_BURSTY, 5.0)
    queries = [steady, bursty, _query(PoissonArrivals(), 5.0, "accuracy >= 0.5")]
    queries = [query.model_copy(update={"name": name}) for name, query in zip("abc", queries, strict=True)]
    queries.append(steady.model_copy(update={"name": "other", "pipeline": "other"}))
    targets = shared_targets(queries, _INFRASTRUCTURE)
    assert targets == {**dict.fromkeys("abc", (0.1, 0.17, 0.4, 0.7, 0.8)), "other": (0.4, 0.7)}


def test_at_final_sizes_targets_include_those_of_running_deployments() -> None:
    allocation = Allocation(cpus=1.0, batch_size=1, utilization_target=0.613)
    running = Deployment("p", "op", KnobValues(), "pool0", allocation)
    other = replace(running, pipeline="other", allocation=replace(allocation, utilization_target=0.55))
    load = RunningLoad({running: (1, 0.5), other: (1, 0.5)}, {}, {})
    targets = utilization_targets(_query(PoissonArrivals(), 5.0), _INFRASTRUCTURE, load)
    assert {0.613, _INFRASTRUCTURE.utilization_limit} < set(targets)
    assert 0.55 not in targets
    assert min(targets) < min(_INFRASTRUCTURE.utilization_targets)
    limits = {"utilization_targets": (0.3,), "max_utilization": 0.4}
    targets = utilization_targets(_query(PoissonArrivals(), 5.0), _INFRASTRUCTURE.model_copy(update=limits), load)
    assert max(targets) == 0.4


def _promised_s(arrivals: AnyArrivals, rate_per_s: float, seconds: float) -> float:
    """Return the 95th percentile of the time at a replica, with other load up to a utilization of 0.4."""
    coming = ArrivalModel.of(_query(arrivals, rate_per_s))
    traffic = coming.traffic(rate_per_s, seconds, 1.1 * seconds**2, 1.3 * seconds**3, first=True)
    (station,) = stations_at_target(traffic.offered_load, traffic, (1.0,), 0.0, 0.4)
    added_s, factor = station.response().at(-np.log1p(-np.array([0.95])))
    return float(added_s[0] + factor[0] * seconds)


def test_bursts_of_little_work_are_hardly_seen_and_bursts_of_much_are() -> None:
    bursty = BurstyArrivals(peak=4.0, burst_s=10.0, every_s=60.0)
    for rate_per_s, least, most in ((0.05, 1.0, 1.2), (3.5, 10.0, np.inf)):
        times = _promised_s(bursty, rate_per_s, 0.1) / _promised_s(PoissonArrivals(), rate_per_s, 0.1)
        assert least - 0.05 <= times <= most
