"""Simulation engine: requests of all queries at all stations, by windows of simulated time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.event_arrays import VisitArrivals, VisitDepartures, offsets
from circinus.queueing.fcfs import Station
from circinus.queueing.service_record import VisitSums
from circinus.simulation.feed_forward_stations import FeedForwardStations
from circinus.simulation.feedback_stations import FeedbackStations
from circinus.simulation.model import QueryModel, Requests
from circinus.simulation.request_paths import RequestPaths
from circinus.simulation.station_order import feed_forward_order


class StationNetwork(Protocol):
    """All stations."""

    def advance(self, arrivals: Sequence[VisitArrivals], until_s: float) -> VisitDepartures:
        """Serve requests that start before `until_s`; return them where they are watched.

        Args:
            arrivals: new arrivals from sources before `until_s`.
            until_s: time from which arrivals are unknown.
        """
        ...

    def queued(self) -> Mapping[int, int]:
        """Return station -> number of arrived requests without a start time."""
        ...


_WINDOW_EXECUTIONS = 200_000
"""Approximate number of executions in a window of time, large enough for arrays and small enough for memory."""
_WINDOW_EXECUTIONS_PER_VISIT = 100
"""Minimum of the above for each visit of each query, to limit the overhead of a window."""


@dataclass(frozen=True, eq=False)
class QueryRun:
    """Requests of a query and their progress."""

    query: QueryModel
    arrival_s: FloatArray
    """(n,) arrival times."""
    items: IntArray
    """(n,) item indexes."""
    done_s: FloatArray
    """(n,) times of the results; infinite for open and dropped requests."""
    dropped_s: FloatArray
    """(n,) times at which requests were dropped; infinite for others."""

    @classmethod
    def merged(cls, runs: Sequence[QueryRun]) -> QueryRun:
        """Return all requests of the parts of a query so far, in order of arrival.

        The items of each part are numbered after those of the parts before.
        """
        if len(runs) == 1:
            return runs[0]
        first_item = offsets([run.query.items for run in runs]).tolist()
        items = [run.items + first for run, first in zip(runs, first_item, strict=False)]
        arrival_s = np.concatenate([run.arrival_s for run in runs])
        order = np.argsort(arrival_s, kind="stable")
        columns = (np.concatenate([getattr(run, name) for run in runs]) for name in ("done_s", "dropped_s"))
        return cls(runs[0].query, *(column[order] for column in (arrival_s, np.concatenate(items), *columns)))

    @property
    def latency_s(self) -> FloatArray:
        """(n,) times from arrival to result; infinite for open and dropped requests."""
        return self.done_s - self.arrival_s

    @property
    def ended(self) -> int:
        """Number of requests before the first open one."""
        is_open = np.isinf(self.done_s) & np.isinf(self.dropped_s)
        return int(is_open.argmax()) if is_open.any() else len(is_open)


@dataclass(frozen=True)
class VisitRun:
    """Sums over the completed requests of a query at a visit, without those of the warm-up."""

    requests: int
    wait_s: float
    service_s: float
    """Sum of the service times of their batches."""


@dataclass(frozen=True)
class StationRun:
    """Sums over the requests of a station."""

    requests: int
    batches: float
    busy_s: float
    """Busy time of all servers until the end of arrivals, without the time to complete the remaining requests."""
    wait_s: float
    """Sum of the waiting times."""


class Simulation:
    """Simulation of all queries.

    Each request draws an item that determines its service times at all visits, so that their correlation is preserved.
    Requests depend on the seed only, not on the deployments, and every query has its own random stream. For each
    request the arrival, item and time of the result are stored; everything else is aggregated at once.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        queries: Sequence[QueryModel],
        *,
        duration_s: float,
        seed: int = 0,
        warm_up_s: float = 0.0,
        requests: Sequence[Requests] | None = None,
        watch: Callable[[VisitDepartures], None] | None = None,
    ) -> None:
        """Draw all requests.

        Args:
            stations: the stations; visits refer to their indexes.
            queries: the queries with their visits.
            duration_s: duration of arrivals.
            seed: random seed of arrivals and items.
            warm_up_s: warm-up time; earlier requests are excluded from the sums of `visit`.
            requests: requests of each query instead of random ones.
            watch: callback for departures, station after station.
        """
        self.stations = tuple(stations)
        self.duration_s = duration_s
        self.now_s = 0.0
        if requests is None:
            requests = [Requests.sample(query, duration_s, seed) for query in queries]
        paths = RequestPaths(queries, requests)
        first = paths.first_request
        times_s = (np.split(column, first[1:-1]) for column in (paths.done_s, paths.dropped_s))
        self.runs = tuple(
            QueryRun(query, its_requests.arrival_s, its_requests.items, done_s, dropped_s)
            for query, its_requests, done_s, dropped_s in zip(queries, requests, *times_s, strict=True)
        )
        warm_up = [np.searchsorted(its_requests.arrival_s, warm_up_s) for its_requests in requests]
        counted_from = paths.first_token[first[:-1] + np.array(warm_up, dtype=np.int64)][paths.query_of]
        self._sums = VisitSums.zeros(counted_from, len(stations), duration_s)
        has_tasks = any(query.tasks is not None for query in queries)
        order = None if has_tasks else feed_forward_order(queries, len(stations))
        self._network: StationNetwork = (
            FeedbackStations(self.stations, paths, self._sums, is_watched=watch is not None)
            if order is None
            else FeedForwardStations(self.stations, order, paths, self._sums)
        )
        self._paths = paths
        self._watch = watch
        self._arrived = [0] * len(queries)
        """Query -> number of arrived requests."""
        self._enters = [True] * len(queries)

    @property
    def station_stats(self) -> tuple[StationRun, ...]:
        """Sums of every station."""
        sums = self._sums
        columns = (sums.station_requests, sums.station_batches, sums.station_busy_s, sums.station_wait_s)
        return tuple(
            StationRun(int(count), *row) for count, *row in zip(*(column.tolist() for column in columns), strict=True)
        )

    def merged_run(self, parts: Iterable[int]) -> QueryRun:
        """Return the requests so far of a query with these models; see `QueryRun.merged`."""
        return QueryRun.merged([self.runs[part] for part in parts])

    def visit(self, query: int, visit: int) -> VisitRun:
        """Return the sums of a query's requests at one of its visits."""
        index, sums = int(self._paths.first_visit[query]) + visit, self._sums
        return VisitRun(int(sums.requests[index]), float(sums.wait_s[index]), float(sums.served_s[index]))

    def inject(self, query: int, enters: bool) -> None:
        """Set whether future requests of a query enter the system, or are rejected and never completed.

        A query that may change its plan is simulated as several queries with equal requests and different visits, of
        which at most one is enabled at a time.
        """
        self._enters[query] = enters

    def run(self, on_progress: Callable[[float], None] | None = None, *, end_s: float = math.inf) -> None:
        """Run until every request is completed or dropped, or until a simulated time, after which a run continues.

        Args:
            on_progress: callback for the simulated time, called after each window.
            end_s: end of the simulated time.
        """
        start_s = self.now_s
        executions = sum(len(run.items) * run.query.visits_per_request for run in self.runs)
        size = max(_WINDOW_EXECUTIONS, _WINDOW_EXECUTIONS_PER_VISIT * len(self._paths.station_of))
        windows = max(1, math.ceil(executions / size))
        for window in range(1, windows):
            until_s = self.duration_s * window / windows
            if start_s < until_s < end_s:
                self.advance(until_s)
                if on_progress is not None:
                    on_progress(until_s)
        self.advance(end_s)

    def advance(self, until_s: float) -> None:
        """Advance the simulated time, which must increase."""
        departures = self._network.advance(self._arrivals(until_s), until_s)
        if self._watch is not None and len(departures.visit):
            self._watch(departures)
        self.now_s = until_s

    def queued(self) -> Mapping[int, int]:
        """Return station -> number of arrived requests without a start time.

        Further waiting requests were passed to `watch` with a start time in the future.
        """
        return self._network.queued()

    def _arrivals(self, until_s: float) -> list[VisitArrivals]:
        """Return new arrivals from sources before `until_s`."""
        arrivals = []
        for query, run in enumerate(self.runs):
            first, last = self._arrived[query], int(np.searchsorted(run.arrival_s, until_s))
            self._arrived[query] = last
            if first < last and self._enters[query]:
                arrivals += self._paths.first_visits(query, first, last)
        return arrivals
