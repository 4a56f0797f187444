"""Tests of rung loads under the demand of all queries that share deployments."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import seeds
from circinus.control.ladders.ladder_controller import planned_idc
from circinus.control.ladders.rung_loads import DeploymentLoads, QueryLoad, RateBounds, RateEstimator, RungDemand
from circinus.serving import DeploymentStatus
from circinus.specification import Allocation, Deployment, KnobValues, Query
from circinus.specification.arrivals import Arrivals, BurstyArrivals, PeriodicArrivals, PoissonArrivals

_TARGET = 0.8
QUERIES = ("first", "second", "third")
BUSY = st.floats(0.01, 0.5)


def _deployment(operator: str, batch_size: int = 1) -> Deployment:
    return Deployment("p", operator, KnobValues(), "edge", Allocation(1.0, batch_size, _TARGET))


LARGE, SMALL, CROP = (_deployment(operator) for operator in ("large", "small", "crop"))


def _demand(busy: dict[Deployment, float], alone_s: float = 0.1) -> RungDemand:
    return RungDemand(cast(Any, None), busy, alone_s)


def _status(deployment: Deployment, replicas: int = 1, queue_length: int = 0) -> DeploymentStatus:
    return DeploymentStatus(deployment, replicas, replicas, queue_length, requests=0, restarts=0)


def _rate(per_s: float, recent_requests: int = 0) -> RateBounds:
    return RateBounds(per_s, 0.9 * per_s, 1.1 * per_s, 0.25, recent_requests)


def test_a_view_is_of_the_busiest_deployment_and_of_all_that_wait() -> None:
    rates = {"first": _rate(10.0, 4), "second": _rate(20.0, 12)}
    loads = {
        "first": QueryLoad(_demand({CROP: 0.01, LARGE: 0.05}), rates["first"]),
        "second": QueryLoad(_demand({LARGE: 0.05}), rates["second"]),
    }
    statuses = {LARGE: _status(LARGE, 2, 8), CROP: _status(CROP, 1, 3), SMALL: _status(SMALL, 0)}
    found = DeploymentLoads(loads, statuses)
    view, gone = found.rung_loads("first", (loads["first"].demand, _demand({SMALL: 0.01})))
    assert view.expected_utilization == pytest.approx(30 * 0.05 / 2)
    assert view.min_utilization == pytest.approx(27 * 0.05 / 2)
    assert view.relative_utilization == pytest.approx(30 * 0.05 / 2 / _TARGET)
    assert view.backlog_s == pytest.approx(8 * 0.05 / 2 + 3 * 0.01)
    # 16 requests of 0.05 s in a quarter of a second, with a standard deviation of four requests.
    assert view.recent_utilization == pytest.approx((64 - 2 * 4 / 0.25) * 0.05 / 2)
    assert not gone.ready
    below = found.rung_loads("second", (_demand({CROP: 0.02}),))[0]
    assert below.expected_utilization == pytest.approx(10 * 0.01 + 20 * 0.02)
    variance = 4 * (0.01 / 0.25) ** 2 + 12 * (0.02 / 0.25) ** 2
    assert below.recent_utilization == pytest.approx(16 * 0.01 + 48 * 0.02 - 2 * np.sqrt(variance))


def test_one_batch_of_each_replica_is_not_waited_for() -> None:
    batched = _deployment("batched", 4)
    load = QueryLoad(_demand({batched: 0.05}), _rate(10.0))
    waiting = {0: 0.0, 8: 0.0, 10: 2 * 0.05 / 2}
    for queue_length, backlog_s in waiting.items():
        (view,) = DeploymentLoads({"q": load}, {batched: _status(batched, 2, queue_length)}).rung_loads(
            "q", (load.demand,)
        )
        assert view.backlog_s == pytest.approx(backlog_s)


def test_bursts_that_were_planned_for_are_less_of_a_surprise() -> None:
    statuses, demand = {LARGE: _status(LARGE)}, _demand({LARGE: 0.05})
    found = []
    for index in (1.0, 4.0):
        load = QueryLoad(demand, _rate(10.0, 25), index)
        found.append(DeploymentLoads({"q": load}, statuses).rung_loads("q", (demand,))[0].recent_utilization)
    assert found == pytest.approx([(100 - 2 * 5 / 0.25) * 0.05, (100 - 2 * 10 / 0.25) * 0.05])


@given(st.data())
def test_moving_a_query_is_as_if_it_had_been_there(data: st.DataObject) -> None:
    statuses = {found: _status(found, data.draw(st.integers(1, 3))) for found in (LARGE, SMALL, CROP)}
    demands = st.dictionaries(st.sampled_from((LARGE, SMALL, CROP)), BUSY, min_size=1).map(_demand)
    rates = st.builds(_rate, st.floats(0.1, 50.0), st.integers(0, 30))
    loads = {q: QueryLoad(data.draw(demands), data.draw(rates), data.draw(st.floats(1.0, 5.0))) for q in QUERIES}
    moved, rung = DeploymentLoads(loads, statuses), data.draw(demands)
    foreseen = moved.rung_loads("first", (rung,))[0]
    moved.move("first", rung)
    there = DeploymentLoads(
        {**loads, "first": QueryLoad(rung, loads["first"].rate, loads["first"].dispersion)}, statuses
    )
    for name in QUERIES:
        demands = (rung, loads[name].demand)
        for one, other in zip(moved.rung_loads(name, demands), there.rung_loads(name, demands), strict=True):
            assert vars(one) == pytest.approx(vars(other), rel=1e-6, abs=1e-6)
    assert vars(foreseen) == pytest.approx(vars(there.rung_loads("first", (rung,))[0]), rel=1e-6, abs=1e-6)


def _recent_utilizations(factor: float, until_s: float, seed: int, every_s: float = 0.25) -> list[tuple[float, float]]:
    """Return the recent utilizations of three queries that share a deployment with a planned utilization of 0.7."""
    rng, found = np.random.default_rng(seed), []
    rates_per_s = {name: factor * planned for name, planned in zip(QUERIES, (2.0, 4.5, 3.5), strict=True)}
    arrivals = {q: np.cumsum(rng.exponential(1 / per_s, int(2 * per_s * until_s))) for q, per_s in rates_per_s.items()}
    meters = {name: RateEstimator() for name in QUERIES}
    for now_s in np.arange(-2.0, until_s, every_s):
        rates = {q: meters[q].read(now_s, int(np.searchsorted(arrivals[q], now_s))) for q in QUERIES}
        if now_s <= 0:
            continue
        demand = _demand({LARGE: 0.07})
        loads = {q: QueryLoad(demand, rate) for q, rate in rates.items() if rate is not None}
        found.append(
            (
                now_s,
                DeploymentLoads(loads, {LARGE: _status(LARGE)}).rung_loads("first", (demand,))[0].recent_utilization,
            )
        )
    return found


def test_what_queries_ask_together_shows_a_burst_within_a_look_or_three() -> None:
    seen_s = [
        next(now_s for now_s, utilization in _recent_utilizations(5.0, 3.0, seed) if utilization > 0.95)
        for seed in range(20)
    ]
    assert np.median(seen_s) <= 0.5
    assert max(seen_s) <= 1.25


def test_what_chance_brings_together_is_no_burst() -> None:
    found = [u for seed in seeds(4) for _, u in _recent_utilizations(1.0, 1250.0, seed)]
    assert np.mean(np.array(found) > 0.95) < 1e-3


@pytest.mark.parametrize(
    ("arrivals", "least", "most"),
    [
        (PoissonArrivals(), 1.0, 1.0),
        (PeriodicArrivals(), 1.0, 1.0),
        (BurstyArrivals(peak=4.0, burst_s=5.0, every_s=60.0), 1.5, 20.0),
    ],
)
def test_chance_is_as_large_as_arrivals_are_bursty_by_plan(arrivals: Arrivals, least: float, most: float) -> None:
    query = Query.model_validate({"name": "q", "pipeline": "p", "source": "s", "rate": 5.0})
    assert least <= planned_idc(query.model_copy(update={"arrivals": arrivals})) <= most
