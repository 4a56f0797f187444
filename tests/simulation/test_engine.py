"""Requests on their way through stations: conservation, windows, groups, closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.arrays import FloatArray
from circinus.queueing.event_arrays import VisitDepartures
from circinus.queueing.fcfs import Station
from circinus.simulation.engine import Simulation
from circinus.simulation.model import QueryModel, Requests, Visit
from circinus.simulation.station_order import feed_forward_order


class Uniformly:
    """As many requests as are expected, at independent uniform times."""

    def __init__(self, rate_per_s: float) -> None:
        self._rate_per_s = rate_per_s

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        return np.sort(rng.uniform(0.0, duration_s, round(self._rate_per_s * duration_s)))


def _query(name: str, stations: list[int], rng: np.random.Generator, rate_per_s: float = 3.0) -> QueryModel:
    """A chain over `stations`, in the order given."""
    visits = tuple(
        Visit(station, (index - 1,) if index else (), rng.exponential(0.2, 16), 0.01 * index)
        for index, station in enumerate(stations)
    )
    return QueryModel(name, Uniformly(rate_per_s), 16, visits, (len(visits) - 1,))


def _diamond(rng: np.random.Generator) -> QueryModel:
    """0 -> 1 and 2 -> 3, over the stations with the same numbers."""
    after: list[tuple[int, ...]] = [(), (0,), (0,), (1, 2)]
    visits = tuple(Visit(n, before, rng.exponential(0.1, 8), 0.005) for n, before in enumerate(after))
    return QueryModel("diamond", Uniformly(4.0), 8, visits, (3,))


class Watched:
    """A simulation that was run, with all that happened in it."""

    def __init__(
        self,
        stations: Sequence[Station],
        queries: Sequence[QueryModel],
        requests: Sequence[Requests],
        **settings: float,
    ) -> None:
        seen: list[VisitDepartures] = []
        self.simulation = Simulation(stations, queries, requests=requests, watch=seen.append, **settings)
        self.simulation.run()
        self.exits = VisitDepartures.of(seen)

    def by_visit(self, column: str) -> list[FloatArray]:
        """Of every visit the column, by request; of a simulation of one query."""
        exits = self.exits
        values = exits.start_s - exits.time_s if column == "wait_s" else getattr(exits, column)
        found = []
        for visit in range(exits.visit.max() + 1):
            mine = exits.visit == visit
            found.append(values[mine][np.argsort(exits.request[mine])])
        return found


chains = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=4), min_size=1, max_size=3)
BATCHED = Station("b", 2, (1.0, 1.3, 1.5), 0.05)
FIVE = (Station("0", 1), Station("1", 2), BATCHED, Station("3", 1), Station("4", 3))
BATCHES = tuple(
    Station(str(number), 1 + number % 2, (1.0, 1.2, 1.4)[: 2 + number % 2], 0.1 * (number % 3)) for number in range(5)
)


@given(chains, st.integers(0, 100), st.lists(st.floats(0.1, 30.0), max_size=4))
def test_windows_of_time_change_nothing(chains: list[list[int]], seed: int, ends: list[float]) -> None:
    """Chains may come back to stations, within a query or over several, so that stations are simulated together."""
    queries = [_query(str(n), chain, np.random.default_rng([seed, n])) for n, chain in enumerate(chains)]
    whole = Simulation(FIVE, queries, duration_s=20.0, seed=seed)
    whole.run()
    parts = Simulation(FIVE, queries, duration_s=20.0, seed=seed)
    for until_s in sorted(set(ends)):
        parts.run(end_s=until_s)
        assert parts.now_s == until_s
        for run in parts.runs:
            assert (np.isfinite(run.done_s[: run.ended])).all()
            assert run.ended == len(run.done_s) or np.isinf(run.done_s[run.ended])
    parts.run()
    for one, other in zip(whole.runs, parts.runs, strict=True):
        assert np.isfinite(one.latency_s).all()
        np.testing.assert_allclose(one.latency_s, other.latency_s, atol=1e-9)


@pytest.mark.parametrize("stations", [FIVE, BATCHES], ids=["one with batches", "all with batches"])
@given(seed=st.integers(0, 1000))
def test_event_by_event_is_the_same_as_station_by_station(stations: tuple[Station, ...], seed: int) -> None:
    """A query that nobody sends, whose visits go backwards, makes all stations one group."""
    rng = np.random.default_rng(seed)
    queries = [_diamond(rng), _query("chain", [0, 2, 3], rng)]
    backwards = replace(_query("nobody", [3, 2, 1, 0, 3], rng), arrivals=Uniformly(0.0))
    apart = Simulation(stations, queries, duration_s=20.0, seed=seed)
    together = Simulation(stations, [*queries, backwards], duration_s=20.0, seed=seed)
    assert feed_forward_order(queries, 5) is not None
    assert feed_forward_order([*queries, backwards], 5) is None
    for simulation in (apart, together):
        simulation.run()
    for one, other in zip(apart.runs, together.runs[:2], strict=True):
        np.testing.assert_allclose(one.latency_s, other.latency_s, atol=1e-9)
    sums = [[astuple(station) for station in simulation.station_stats] for simulation in (apart, together)]
    np.testing.assert_allclose(*sums, atol=1e-9)


@settings(max_examples=examples(400))
@example(seed=401, ends=[], limited=False)  # requests that come at the same time after visits that wait for several
@example(seed=667, ends=[], limited=False)
@given(st.integers(0, 1000), st.lists(st.integers(1, 40), max_size=8), st.booleans())
def test_what_happens_at_the_same_time_happens_in_one_order(seed: int, ends: list[int], limited: bool) -> None:
    """In windows or at once, event by event or station by station."""
    rng = np.random.default_rng(seed)
    queries = [_diamond(rng), _query("chain", [0, 2, 3], rng), replace(_diamond(rng), name="another")]
    queries = [
        replace(
            query,
            visits=tuple(
                replace(
                    visit,
                    service_s=rng.integers(1, 4, query.items) / 4,
                    delay_s=0.0,
                    latest_start_s=float(rng.integers(1, 20)) / 4 if limited else math.inf,
                )
                for visit in query.visits
            ),
            drops_late=bool(limited and rng.integers(2)),
        )
        for query in queries
    ]
    requests = [Requests(np.sort(rng.integers(0, 40, 25)) / 4, rng.integers(query.items, size=25)) for query in queries]
    backwards = _query("nobody", [3, 2, 1, 0, 3], rng)
    nobody = Requests(np.zeros(0), np.zeros(0, dtype=np.int64))
    stations = [
        Station(str(number), int(rng.integers(1, 4)), (1.0,) * int(rng.integers(1, 3)), batch_wait_s=0.5)
        for number in range(5)
    ]
    apart = Simulation(stations, queries, duration_s=10.0, requests=requests)
    windows = Simulation(stations, queries, duration_s=10.0, requests=requests)
    together = Simulation(stations, [*queries, backwards], duration_s=10.0, requests=[*requests, nobody])
    for end in sorted(set(ends)):
        windows.advance(end / 4)
        together.advance(end / 4)
    for simulation in (apart, windows, together):
        simulation.run()
    for others in (windows, together):
        for one, other in zip(apart.runs, others.runs, strict=False):
            np.testing.assert_allclose(one.done_s, other.done_s, atol=1e-9)
            np.testing.assert_allclose(one.dropped_s, other.dropped_s, atol=1e-9)


@pytest.mark.parametrize("numbers", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("together", [False, True])
def test_after_a_batch_requests_join_in_its_order(numbers: tuple[int, ...], together: bool) -> None:
    """b overtakes a at the first station, so it stands first in the batch of the second; what both wait for beside the
    batch was done long before, for a first."""
    first, batches, beside, last = numbers
    stations = {first: Station("f", 2), batches: Station("b", 1, (1.0, 1.0), 9.0), beside: Station("s", 1)}
    stations |= {last: Station("l", 1)}
    a, b = np.array([2.0, 1.0]), np.array([1.0, 1.0])
    visits = (Visit(first, (), a), Visit(batches, (0,), 5 * b), Visit(beside, (), b), Visit(last, (1, 2), b))
    queries = [QueryModel("q", Uniformly(0.0), 2, visits, (3,))]
    requests = [Requests(np.array([0.0, 0.5]), np.array([0, 1]))]
    if together:
        queries.append(_query("nobody", [last, beside, batches, first, last, beside], np.random.default_rng(0)))
        requests.append(Requests(np.zeros(0), np.zeros(0, dtype=np.int64)))
    simulation = Simulation([stations[n] for n in range(4)], queries, duration_s=1.0, requests=requests)
    simulation.run()
    np.testing.assert_array_equal(simulation.runs[0].done_s, [9.0, 8.0])


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_requests(count: int) -> None:
    queries = [_query("q", [0, 2, 0], np.random.default_rng(1)), _diamond(np.random.default_rng(2))]
    requests = [Requests(np.zeros(count), np.zeros(count, dtype=np.int64)), Requests(np.zeros(0), np.zeros(0, int))]
    simulation = Simulation(FIVE, queries, duration_s=1.0, requests=requests)
    simulation.run()
    assert len(simulation.runs[0].latency_s) == count
    assert np.isfinite(simulation.runs[0].latency_s).all()
    assert sum(did.requests for did in simulation.station_stats) == 3 * count


@pytest.mark.parametrize("stations", [[0, 1], [0, 0]], ids=["apart", "together"])
def test_what_takes_no_time_takes_none(stations: list[int]) -> None:
    query = _query("q", stations, np.random.default_rng(1))
    visits = tuple(replace(visit, service_s=np.zeros(16), delay_s=0.0) for visit in query.visits)
    simulation = Simulation(BATCHES[:1] * 2, [replace(query, visits=visits)], duration_s=5.0, seed=2)
    simulation.run()
    assert len(simulation.runs[0].latency_s) == 15
    np.testing.assert_array_equal(simulation.runs[0].latency_s, 0.0)


def test_to_wait_for_a_visit_twice_is_to_wait_for_it() -> None:
    once = _diamond(np.random.default_rng(2))
    visits = (*once.visits[:3], replace(once.visits[3], after=(1, 2, 1, 2)))
    twice = replace(once, visits=visits, sink_visits=(3, 3))
    found = [Simulation(FIVE, [query], duration_s=20.0, seed=3) for query in (once, twice)]
    for simulation in found:
        simulation.run()
    np.testing.assert_array_equal(found[0].runs[0].latency_s, found[1].runs[0].latency_s)


def test_everybody_is_served_once_and_busy_time_is_what_was_asked() -> None:
    rng = np.random.default_rng(1)
    queries = [_diamond(rng), _query("chain", [0, 1, 3], rng)]
    requests = [Requests.sample(query, 50.0, 1) for query in queries]
    watched = Watched(FIVE, queries, requests, duration_s=1000.0)  # all is done by then
    for station in (0, 1, 3):
        asked = sum(
            float(visit.service_s[one.items].sum())
            for query, one in zip(queries, requests, strict=True)
            for visit in query.visits
            if visit.station == station
        )
        assert watched.simulation.station_stats[station].busy_s == pytest.approx(asked)
    assert watched.simulation.station_stats[0].requests == sum(len(one.items) for one in requests)
    exits = watched.exits
    assert len(exits.visit) == len({*zip(exits.visit.tolist(), exits.request.tolist(), strict=True)})
    assert len(exits.visit) == sum(
        len(one.items) * len(query.visits) for query, one in zip(queries, requests, strict=True)
    )


def test_servers_are_busy_only_as_long_as_requests_arrive() -> None:
    query = QueryModel("q", Uniformly(1.0), 1, (Visit(0, (), np.array([3.0])),), (0,))
    arrival_s = np.array([0.0, 1.0, 9.5])
    requests = [Requests(arrival_s, np.zeros(3, dtype=np.int64))]
    simulation = Simulation([Station("s", 1)], [query], duration_s=10.0, requests=requests)
    simulation.run()
    assert simulation.station_stats[0].busy_s == 6.5
    np.testing.assert_array_equal(simulation.runs[0].done_s, [3.0, 6.0, 12.5])


def test_latency_is_service_waits_and_delays_along_the_longest_way() -> None:
    query = _diamond(np.random.default_rng(2))
    requests = Requests.sample(query, 30.0, 3)
    watched = Watched(FIVE, [query], [requests], duration_s=30.0)
    end_s, come_s, wait_s = (watched.by_visit(column) for column in ("end_s", "time_s", "wait_s"))
    for number, visit in enumerate(query.visits):
        ready_s = [end_s[before] + query.visits[before].delay_s for before in visit.after] or [requests.arrival_s]
        np.testing.assert_array_equal(come_s[number], np.maximum.reduce(ready_s))
        if visit.station != 2:
            alone_s = visit.service_s[requests.items]
            np.testing.assert_allclose(end_s[number] - come_s[number] - wait_s[number], alone_s, atol=1e-9)
    np.testing.assert_allclose(watched.simulation.runs[0].latency_s, end_s[3] + 0.005 - requests.arrival_s)


@pytest.mark.parametrize("warm_up_s", [0.0, 12.0, 40.0])
@pytest.mark.parametrize("stations", [[0, 2, 0], [0, 2, 1]], ids=["together", "apart"])
def test_sums_are_over_the_requests_after_the_warm_up(stations: list[int], warm_up_s: float) -> None:
    query = _query("q", stations, np.random.default_rng(3))
    requests = Requests.sample(query, 30.0, 4)
    watched = Watched(FIVE, [query], [requests], duration_s=30.0, warm_up_s=warm_up_s)
    counted = requests.arrival_s >= warm_up_s
    for number in range(3):
        met = watched.simulation.visit(0, number)
        end_s, start_s, wait_s = (watched.by_visit(name)[number] for name in ("end_s", "start_s", "wait_s"))
        assert met.requests == counted.sum()
        assert met.wait_s == pytest.approx(wait_s[counted].sum())
        assert met.service_s == pytest.approx((end_s - start_s)[counted].sum())


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


def test_stations_are_in_the_order_of_the_flow_unless_requests_come_back() -> None:
    rng = np.random.default_rng(8)
    queries = [_query("there", [0, 2, 1], rng), _query("further", [1, 4], rng), _query("again", [3, 4], rng)]
    order = feed_forward_order(queries, 5)
    assert order is not None
    assert sorted(order) == list(range(5))
    assert all(order.index(one) < order.index(next_) for one, next_ in ((0, 2), (2, 1), (1, 4), (3, 4)))
    for stations in ([4, 2], [3, 3]):
        assert feed_forward_order([*queries, _query("back", stations, rng)], 5) is None


@pytest.mark.parametrize(("servers", "utilization"), [(1, 0.5), (1, 0.8), (4, 0.7)])
def test_mean_wait_is_that_of_erlang(servers: int, utilization: float) -> None:
    """M/M/c (Cooper, Introduction to Queueing Theory, 1981), within four standard errors of twenty sections."""
    items = np.random.default_rng(9).exponential(1.0, 200_000)
    items /= items.mean()
    query = QueryModel("q", Uniformly(utilization * servers), len(items), (Visit(0, (), items),), (0,))
    duration_s = 400_000 / (utilization * servers)
    watched = Watched([Station("s", servers)], [query], [Requests.sample(query, duration_s, 1)], duration_s=duration_s)
    offered = utilization * servers
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - utilization)
    expected_s = last / (sum(terms) + last) / (servers * (1 - utilization))
    means_s = watched.by_visit("wait_s")[0].reshape(20, -1).mean(axis=1)
    assert abs(means_s.mean() - expected_s) < 4 * means_s.std(ddof=1) / math.sqrt(20)
    assert means_s.std(ddof=1) / math.sqrt(20) < 0.05 * expected_s
