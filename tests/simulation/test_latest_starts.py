"""Requests in order of latest starts, and drops of late ones, against a plain simulation of everything that happens."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.queueing.arrivals import Poisson
from circinus.queueing.fcfs import Station
from circinus.simulation.engine import Simulation
from circinus.simulation.model import QueryModel, Requests, Visit
from circinus.simulation.station_order import feed_forward_order

Column = list[np.ndarray]


class Followed:
    """Every request of every query, followed from event to event."""

    def __init__(
        self, stations: Sequence[Station], queries: Sequence[QueryModel], requests: Sequence[Requests]
    ) -> None:
        self.stations, self.queries, self.requests = stations, queries, requests
        self.done_s: Column = [np.full(len(its.items), math.inf) for its in requests]
        self.dropped_s: Column = [np.full(len(its.items), math.inf) for its in requests]
        self._free_s = [[0.0] * station.servers for station in stations]
        self._waiting: list[list[tuple[float, int, int, int]]] = [[] for _ in stations]
        self._ended: dict[tuple[int, int, int], float] = {}
        self._count = count()
        self._events: list[tuple[float, int, int, int, int]] = []
        for query, its in enumerate(requests):
            for request, arrival_s in enumerate(its.arrival_s.tolist()):
                for visit, data in enumerate(queries[query].visits):
                    if not data.after:
                        self._at(arrival_s, query, request, visit)
        while self._events:
            self._next_moment()

    def _at(self, time_s: float, *event: int) -> None:
        heapq.heappush(self._events, (time_s, next(self._count), *event))

    def _next_moment(self) -> None:
        now_s = self._events[0][0]
        touched = []
        while self._events and self._events[0][0] == now_s:
            _, _, query, request, visit = heapq.heappop(self._events)
            if query < 0:
                touched.append(request)
            elif self.dropped_s[query][request] == math.inf or self._continues(query, visit):
                station = self.queries[query].visits[visit].station
                self._waiting[station].append((now_s, query, request, visit))
                touched.append(station)
        for station in dict.fromkeys(touched):
            self._serve(station, now_s)

    def _continues(self, query: int, visit: int) -> bool:
        visits = self.queries[query].visits
        after = visits[visit].after
        return bool(after) and all(visits[one].latest_start_s == math.inf for one in (visit, *after))

    def _latest_s(self, query: int, request: int, visit: int) -> float:
        return self.requests[query].arrival_s[request] + self.queries[query].visits[visit].latest_start_s

    def _serve(self, index: int, now_s: float) -> None:
        station, free_s = self.stations[index], self._free_s[index]
        while min(free_s) <= now_s:
            waiting = [
                one
                for one in self._waiting[index]
                if self.dropped_s[one[1]][one[2]] == math.inf or self._latest_s(*one[1:]) == math.inf
            ]
            self._waiting[index] = waiting
            if not waiting:
                return
            due_s = waiting[0][0] + station.batch_wait_s
            if len(waiting) < station.batch_size and now_s < due_s:
                self._at(due_s, -1, index, 0)
                return
            late = [one for one in waiting if self.queries[one[1]].drops_late and self._latest_s(*one[1:]) < now_s]
            for _, query, request, _ in late:
                self.dropped_s[query][request] = now_s
            if late:
                continue
            batch = sorted(waiting, key=lambda one: self._latest_s(*one[1:]))[: station.batch_size]
            self._waiting[index] = [one for one in waiting if one not in batch]
            alone_s = [self.queries[q].visits[v].service_s[self.requests[q].items[r]] for _, q, r, v in batch]
            end_s = now_s + station.batch_time_ratios[len(batch) - 1] * float(np.mean(alone_s))
            free_s[free_s.index(min(free_s))] = end_s
            self._at(end_s, -1, index, 0)
            for _, query, request, visit in batch:
                self._leave(query, request, visit, end_s)

    def _leave(self, query: int, request: int, visit: int, end_s: float) -> None:
        visits, ended = self.queries[query].visits, self._ended
        ended[query, request, visit] = end_s + visits[visit].delay_s
        for target, data in enumerate(visits):
            inputs = [ended.get((query, request, before), math.inf) for before in data.after]
            if visit in data.after and max(inputs) < math.inf:
                self._at(max(inputs), query, request, target)
        self.done_s[query][request] = max(
            ended.get((query, request, s), math.inf) for s in self.queries[query].sink_visits
        )


def _query(
    name: str, rng: np.random.Generator, shape: Sequence[tuple[int, tuple[int, ...]]], drops: bool
) -> QueryModel:
    """Visits to the stations of `shape` after others of it; stations from 4 on are links."""
    slack_s = float(rng.choice([0.5, 2.0, 6.0]))
    visits = tuple(
        Visit(
            station,
            after,
            rng.exponential(0.3 if station < 4 else 0.1, 16),
            0.0 if station < 4 else 0.03,
            slack_s * (0.3 + 0.2 * index) if station < 4 else math.inf,
        )
        for index, (station, after) in enumerate(shape)
    )
    return QueryModel(name, Poisson(float(rng.choice([1.0, 2.0, 4.0]))), 16, visits, (len(visits) - 1,), drops)


CHAIN = ((0, ()), (1, (0,)), (2, (1,)))
DIAMOND = ((4, ()), (0, (0,)), (1, (1,)), (4, (1,)), (5, (3,)), (2, (4,)), (3, (2, 5)))
"""An operator behind a link, one branch on its site and one behind two links, and an operator for both."""
RETURN = ((2, ()), (4, (0,)), (0, (1,)), (2, (2,)))


@pytest.mark.parametrize("shapes", [(CHAIN, CHAIN), (DIAMOND, CHAIN), (DIAMOND, RETURN)])
@settings(max_examples=examples(200))
@given(seed=st.integers(0, 100_000), drops=st.lists(st.booleans(), min_size=2, max_size=2), windows=st.booleans())
def test_everything_happens_as_if_watched_event_by_event(
    shapes: tuple[Sequence[tuple[int, tuple[int, ...]]], ...], seed: int, drops: list[bool], windows: bool
) -> None:
    rng = np.random.default_rng(seed)
    stations = [
        Station(
            str(index),
            int(rng.integers(1, 3)),
            (1.0, 1.3, 1.5)[: int(rng.integers(1, 4))],
            float(rng.choice([0.0, 0.2])),
        )
        for index in range(4)
    ]
    stations = [replace(s, batch_wait_s=0.0) if s.batch_size == 1 else s for s in stations]
    stations += [Station("link", 1), Station("other link", 1)]
    queries = [
        _query(str(index), rng, shape, its) for index, (shape, its) in enumerate(zip(shapes, drops, strict=True))
    ]
    requests = [Requests.sample(query, 15.0, seed) for query in queries]
    expected = Followed(stations, queries, requests)
    simulation = Simulation(stations, queries, duration_s=15.0, requests=requests)
    for until_s in rng.uniform(0.0, 20.0, 3 if windows else 0).cumsum().tolist():
        simulation.advance(until_s)
    simulation.run()
    for run, done_s, dropped_s in zip(simulation.runs, expected.done_s, expected.dropped_s, strict=True):
        np.testing.assert_allclose(run.dropped_s, dropped_s, atol=1e-9)
        np.testing.assert_allclose(run.done_s, done_s, atol=1e-9)
        assert (np.isfinite(run.done_s) != np.isfinite(run.dropped_s)).all()


def test_parallel_branches_of_queries_that_drop_affect_one_another() -> None:
    rng = np.random.default_rng(1)
    separate_links = [(7 if index == 0 else station, after) for index, (station, after) in enumerate(DIAMOND)]
    for drops in (False, True):
        assert (feed_forward_order([_query("q", rng, separate_links, drops)], 8) is None) == drops
