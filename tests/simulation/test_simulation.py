"""Requests on their way through stations: conservation, windows, groups, closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circinus.queueing.station import Station
from circinus.simulation.groups import station_groups
from circinus.simulation.model import FloatArray, SimulatedQuery, Visit
from circinus.simulation.simulation import Simulation


class Uniformly:
    """As many requests as are expected, at independent uniform times."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        return np.sort(rng.uniform(0.0, duration_s, round(self._rate_per_s * duration_s)))


def _query(name: str, stations: list[int], rng: np.random.Generator, rate_per_s: float = 3.0) -> SimulatedQuery:
    """A chain over `stations`, in the order given."""
    visits = tuple(
        Visit(station, (index - 1,) if index else (), rng.exponential(0.2, 16), 0.01 * index)
        for index, station in enumerate(stations)
    )
    return SimulatedQuery(name, Uniformly(rate_per_s), 16, visits, (len(visits) - 1,))


def _diamond(rng: np.random.Generator) -> SimulatedQuery:
    """0 -> 1 and 2 -> 3, over the stations with the same numbers."""
    after: list[tuple[int, ...]] = [(), (0,), (0,), (1, 2)]
    visits = tuple(Visit(n, before, rng.exponential(0.1, 8), 0.005) for n, before in enumerate(after))
    return SimulatedQuery("diamond", Uniformly(4.0), 8, visits, (3,))


chains = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=3)
BATCHED = Station("b", 2, (1.0, 1.3, 1.5), 0.05)
FIVE = (Station("0", 1), Station("1", 2), BATCHED, Station("3", 1), Station("4", 3))


@settings(deadline=None)
@given(chains, st.integers(0, 100), st.lists(st.floats(0.1, 30.0), max_size=4))
def test_windows_of_time_change_nothing(chains: list[list[int]], seed: int, ends: list[float]) -> None:
    """Chains may come back to stations, within a query or over several, so that stations are simulated together."""
    queries = [_query(str(n), chain, np.random.default_rng([seed, n])) for n, chain in enumerate(chains)]
    whole = Simulation(FIVE, queries, duration_s=20.0, seed=seed)
    whole.run()
    parts = Simulation(FIVE, queries, duration_s=20.0, seed=seed)
    for until_s in sorted(set(ends)):
        parts.advance(until_s)
    parts.run()
    for one, other in zip(whole.runs, parts.runs, strict=True):
        assert np.isfinite(one.latency_s).all()
        np.testing.assert_allclose(one.latency_s, other.latency_s, atol=1e-9)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_event_by_event_is_the_same_as_station_by_station(seed: int) -> None:
    """A query that nobody sends, whose visits go backwards, makes all stations one group."""
    rng = np.random.default_rng(seed)
    queries = [_diamond(rng), _query("chain", [0, 2, 3], rng)]
    backwards = replace(_query("nobody", [3, 2, 1, 0, 3], rng), arrivals=Uniformly(0.0))
    apart = Simulation(FIVE, queries, duration_s=20.0, seed=seed)
    together = Simulation(FIVE, [*queries, backwards], duration_s=20.0, seed=seed)
    assert max(len(group) for group in station_groups([*queries, backwards], 5)) == 4
    for simulation in (apart, together):
        simulation.run()
    for one, other in zip(apart.runs, together.runs[:2], strict=True):
        np.testing.assert_allclose(one.latency_s, other.latency_s, atol=1e-9)


def test_everybody_is_served_once_and_busy_time_is_what_was_asked() -> None:
    rng = np.random.default_rng(1)
    queries = [_diamond(rng), _query("chain", [0, 1, 3], rng)]
    simulation = Simulation(FIVE, queries, duration_s=50.0, seed=1)
    simulation.run()
    alone = [run.query.visits for run in simulation.runs]
    for station in (0, 1, 3):
        asked = sum(
            float(visit.service_s[run.items].sum())
            for run, visits in zip(simulation.runs, alone, strict=True)
            for visit in visits
            if visit.station == station
        )
        assert simulation.did[station].busy_s == pytest.approx(asked)
    assert simulation.did[0].requests == sum(len(run.arrival_s) for run in simulation.runs)


def test_latency_is_service_waits_and_delays_along_the_longest_way() -> None:
    simulation = Simulation(FIVE, [_diamond(np.random.default_rng(2))], duration_s=30.0, seed=3)
    simulation.run()
    run = simulation.runs[0]
    for visit, spec in enumerate(run.query.visits):
        service_s = run.end_s[visit] - run.ready_s(visit, np.arange(len(run.items))) - run.wait_s[visit]
        if spec.station != 2:
            np.testing.assert_allclose(service_s, spec.service_s[run.items], atol=1e-9)
    np.testing.assert_allclose(run.latency_s, run.end_s[3] + 0.005 - run.arrival_s)


def test_a_query_more_leaves_the_requests_of_the_others_as_they_are() -> None:
    rng = np.random.default_rng(4)
    one, two = _query("one", [0, 1], rng), _query("two", [3, 4], rng)
    alone = Simulation(FIVE, [one], duration_s=30.0, seed=5)
    both = Simulation(FIVE, [two, one], duration_s=30.0, seed=5)
    np.testing.assert_array_equal(alone.runs[0].arrival_s, both.runs[1].arrival_s)
    np.testing.assert_array_equal(alone.runs[0].items, both.runs[1].items)


def test_what_has_not_ended_has_no_latency_yet() -> None:
    simulation = Simulation(FIVE, [_query("q", [0, 1], np.random.default_rng(6))], duration_s=30.0, seed=7)
    simulation.advance(10.0)
    latency_s = simulation.runs[0].latency_s
    assert np.isinf(latency_s[simulation.runs[0].arrival_s >= 10.0]).all()
    assert np.isfinite(latency_s[simulation.runs[0].arrival_s < 5.0]).any()


def test_groups_are_in_the_order_of_the_flow_and_hold_what_comes_back() -> None:
    rng = np.random.default_rng(8)
    queries = [_query("there", [0, 1, 2], rng), _query("back", [2, 4, 1], rng), _query("again", [3, 3], rng)]
    groups = station_groups(queries, 5)
    assert set(groups) == {(0,), (1, 2, 4), (3,)}
    assert groups.index((0,)) < groups.index((1, 2, 4))


@pytest.mark.parametrize(("servers", "utilization"), [(1, 0.5), (1, 0.8), (4, 0.7)])
def test_mean_wait_is_that_of_erlang(servers: int, utilization: float) -> None:
    """M/M/c (Cooper, Introduction to Queueing Theory, 1981), within four standard errors of twenty sections."""
    items = np.random.default_rng(9).exponential(1.0, 200_000)
    items /= items.mean()
    query = SimulatedQuery("q", Uniformly(utilization * servers), len(items), (Visit(0, (), items),), (0,))
    simulation = Simulation([Station("s", servers)], [query], duration_s=400_000 / (utilization * servers), seed=1)
    simulation.run()
    offered = utilization * servers
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - utilization)
    expected_s = last / (sum(terms) + last) / (servers * (1 - utilization))
    means_s = simulation.runs[0].wait_s[0].reshape(20, -1).mean(axis=1)
    assert abs(means_s.mean() - expected_s) < 4 * means_s.std(ddof=1) / math.sqrt(20)
    assert means_s.std(ddof=1) / math.sqrt(20) < 0.05 * expected_s
