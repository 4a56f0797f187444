"""Tests of request rates, and of rung loads under the demand of all queries that share deployments."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from budget import seeds
from circinus.control.ladders.rung_loads import (
    DeploymentLoads,
    QueryLoad,
    RateBounds,
    RateEstimator,
    RungDemand,
    planned_idc,
)
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


def _read(arrivals_s: np.ndarray, until_s: float, every_s: float = 0.25) -> list[tuple[float, RateBounds]]:
    meter, found = RateEstimator(), []
    for now_s in np.arange(0.0, until_s, every_s):
        bounds = meter.read(float(now_s), int(np.searchsorted(arrivals_s, now_s)))
        if bounds is not None:
            found.append((float(now_s), bounds))
    return found


@pytest.mark.parametrize("rate_per_s", [0.5, 5.0, 50.0])
def test_bounds_of_random_arrivals_hold_mostly(rate_per_s: float) -> None:
    rng = np.random.default_rng(1)
    found = _read(np.cumsum(rng.exponential(1 / rate_per_s, int(4000 * rate_per_s))), 3000.0)
    below = np.mean([bounds.min_per_s > rate_per_s for _, bounds in found])
    above = np.mean([bounds.max_per_s < rate_per_s for _, bounds in found])
    assert below < 0.12  # of three windows
    assert above < 0.05
    assert all(bounds.min_per_s <= bounds.max_per_s for _, bounds in found)


def test_a_burst_is_seen_within_a_second_or_two_and_its_end_within_the_longest_window() -> None:
    rng = np.random.default_rng(2)
    calm = np.cumsum(rng.exponential(0.1, 300))
    burst = calm[-1] + np.cumsum(rng.exponential(0.02, 1000))
    after = burst[-1] + np.cumsum(rng.exponential(0.1, 400))
    begin_s, end_s = calm[-1], burst[-1]
    found = _read(np.concatenate([calm, burst, after]), float(after[-1]))
    seen_s = next(now_s for now_s, bounds in found if now_s > begin_s and bounds.min_per_s > 20.0)
    over_s = next(now_s for now_s, bounds in found if now_s > end_s and bounds.max_per_s < 20.0)
    assert seen_s - begin_s < 2.0
    assert over_s - end_s < 17.0


def test_a_counter_that_begins_anew_is_no_negative_rate() -> None:
    meter = RateEstimator()
    for now_s in range(20):
        meter.read(float(now_s), 10 * now_s)
    assert meter.read(20.0, 3) is None
    bounds = meter.read(22.0, 23)
    assert bounds is not None
    assert bounds.expected_per_s == pytest.approx(10.0)


def test_what_came_in_the_last_moments() -> None:
    meter = RateEstimator()
    found = [meter.read(look / 8, 10 * look if look < 11 else 150) for look in range(12)]
    assert found[7] is None, "too early"
    before, last = found[10], found[11]
    assert before is not None
    assert last is not None
    assert (before.recent_s, before.recent_requests) == (0.25, 20)
    assert (last.recent_s, last.recent_requests) == (0.25, 60)
    rare = meter.read(3.0, 400)
    assert rare is not None
    assert rare.recent_requests == 0, "those are no moments"


def test_a_look_that_took_long_makes_no_burst() -> None:
    """A late reading may date from its start, so that the next one contains more requests."""
    meter, per_s = RateEstimator(), 40
    for look in range(20):
        meter.read(look / 4, look * per_s // 4)
    late = meter.read(7.0, 5 * per_s, began_s=5.0)  # the state at the start of the reading
    after = [meter.read(now_s, int(now_s * per_s)) for now_s in (7.1, 7.4, 7.65)]
    for bounds in (late, *after):
        assert bounds is not None
        assert bounds.min_per_s <= per_s
        assert bounds.recent_requests / bounds.recent_s <= 1.05 * per_s


@given(st.lists(st.tuples(st.floats(0.01, 5.0), st.integers(0, 100)), min_size=1, max_size=100))
def test_whatever_is_read_bounds_are_in_order(readings: list[tuple[float, int]]) -> None:
    meter, now_s, count = RateEstimator(), 0.0, 0
    for gap_s, more in readings:
        now_s, count = now_s + gap_s, count + more
        bounds = meter.read(now_s, count)
        if bounds is not None:
            assert 0 <= bounds.min_per_s <= bounds.max_per_s
            assert bounds.expected_per_s <= bounds.max_per_s
