"""Simulation engine: requests of all queries at all stations, by windows of simulated time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.edf import EdfSchedule, serve_edf
from circinus.queueing.event_arrays import VisitArrivals, VisitDepartures
from circinus.queueing.fcfs import Station, serve_fcfs
from circinus.simulation.feedback_stations import FeedbackStations
from circinus.simulation.model import QueryModel, Requests
from circinus.simulation.request_paths import RequestPaths
from circinus.simulation.station_order import strongly_connected_groups, successors


class StationBlock(Protocol):
    """Stations that are simulated together."""

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """Serve requests that start before `until_s`.

        Args:
            entries: new arrivals from outside the block before `until_s`, in order.
            until_s: time from which arrivals are unknown.
        """
        ...

    @property
    def idle(self) -> bool:
        """True if no request is waiting."""
        ...

    def queued(self) -> Mapping[int, int]:
        """Return station -> number of arrived requests without a start time."""
        ...


class FeedForwardStation:
    """Station without feedback: all arrivals of a window are known before it serves them."""

    def __init__(self, index: int, station: Station, paths: RequestPaths) -> None:
        self._index = index
        self._station = station
        self._paths = paths
        self._is_fcfs = not np.isfinite(paths.latest_start_s[paths.station_of == index]).any()
        self._free_s = [0.0] * station.servers
        self._waiting = VisitArrivals.of([])
        self._served = 0

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """See `StationBlock`."""
        waiting = entries if self.idle else VisitArrivals.of([self._waiting, entries])
        paths, visit, request = self._paths, waiting.visit, waiting.request
        unbatched_s = paths.service_s(visit, request)
        if self._is_fcfs:
            served = serve_fcfs(self._station, self._free_s, waiting.time_s, unbatched_s, until_s)
            schedule = EdfSchedule.in_order_of_arrival(served)
        else:
            schedule = serve_edf(
                self._station,
                self._free_s,
                waiting.time_s,
                unbatched_s,
                paths.latest_start_s[visit] + paths.entered_s[request],
                paths.drops_late[visit],
                until_s,
            )
            paths.dropped_s[request[schedule.dropped]] = schedule.dropped_s
        self._waiting = waiting.selected(schedule.remaining(len(visit)))
        served, left = schedule.served, waiting.selected(schedule.started)
        order = np.arange(self._served, self._served + len(left.visit))
        self._served += len(left.visit)
        return VisitDepartures(left.visit, left.request, left.time_s, order, served.start_s, served.end_s, served.fill)

    @property
    def idle(self) -> bool:
        """See `StationBlock`."""
        return not len(self._waiting.visit)

    def queued(self) -> Mapping[int, int]:
        """See `StationBlock`."""
        return {self._index: len(self._waiting.visit)}


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
        self.paths = RequestPaths(queries, requests)
        first = self.paths.first_request
        self._done_s = np.full(int(first[-1]), math.inf)
        times_s = (np.split(column, first[1:-1]) for column in (self._done_s, self.paths.dropped_s))
        self.runs = tuple(
            QueryRun(query, its_requests.arrival_s, its_requests.items, done_s, dropped_s)
            for query, its_requests, done_s, dropped_s in zip(queries, requests, *times_s, strict=True)
        )
        self._watch = watch
        self._blocks, self._block_of = self._grouped(queries)
        self._pending: list[list[VisitArrivals]] = [[] for _ in self._blocks]
        """Block -> its future arrivals."""
        self._arrived = [0] * len(queries)
        """Query -> number of arrived requests."""
        self._enters = [True] * len(queries)
        self._visits = _Sums(len(self.paths.station_of))
        self._stations = _Sums(len(stations))
        self._counted_from = first[:-1] + np.array(
            [np.searchsorted(its_requests.arrival_s, warm_up_s) for its_requests in requests], dtype=np.int64
        )

    @property
    def station_stats(self) -> tuple[StationRun, ...]:
        """Sums of every station."""
        sums = self._stations
        columns = (sums.requests, sums.batches, sums.served_s, sums.wait_s)
        return tuple(StationRun(*row) for row in zip(*(column.tolist() for column in columns), strict=True))

    def visit(self, query: int, visit: int) -> VisitRun:
        """Return the sums of a query's requests at one of its visits."""
        index, sums = int(self.paths.first_visit[query]) + visit, self._visits
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
        executions = sum(len(run.items) * len(run.query.visits) for run in self.runs)
        size = max(_WINDOW_EXECUTIONS, _WINDOW_EXECUTIONS_PER_VISIT * len(self.paths.station_of))
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
        self._arrive(until_s)
        parts = []
        for index, block in enumerate(self._blocks):
            entries = self._entries(index, until_s)
            if block.idle and not len(entries.visit):
                continue
            departures = block.advance(entries, until_s)
            if len(departures.visit):
                self._route(
                    self.paths.next_visits(departures.visit, departures.request, departures.end_s, departures.order)
                )
                parts.append(departures)
        if parts:
            departures = VisitDepartures.of(parts)
            self._count(departures)
            if self._watch is not None:
                self._watch(departures)
        self.now_s = until_s

    def queued(self) -> Mapping[int, int]:
        """Return station -> number of arrived requests without a start time.

        Further waiting requests were passed to `watch` with a start time in the future.
        """
        return {station: count for block in self._blocks for station, count in block.queued().items()}

    def _grouped(self, queries: Sequence[QueryModel]) -> tuple[list[StationBlock], IntArray]:
        """Return the blocks in topological order, and (visits,) the block of each visit."""
        groups = strongly_connected_groups(queries, len(self.stations))
        targets, station_of = successors(queries, len(self.stations)), self.paths.station_of
        group_of = np.zeros(len(self.stations), dtype=np.int64)
        for index, group in enumerate(groups):
            group_of[list(group)] = index
        block_of = group_of[station_of]
        feed_forward = [len(group) == 1 and group[0] not in targets[group[0]] for group in groups]
        visits = [
            [] if single else np.flatnonzero(block_of == index).tolist() for index, single in enumerate(feed_forward)
        ]
        self.paths.exclude_groups([frozenset(members) for members in visits if members])
        blocks: list[StationBlock] = []
        for index, group in enumerate(groups):
            if feed_forward[index]:
                blocks.append(FeedForwardStation(group[0], self.stations[group[0]], self.paths))
            else:
                members = {station: self.stations[station] for station in group}
                blocks.append(FeedbackStations(members, visits[index], self.paths))
        return blocks, block_of

    def _arrive(self, until_s: float) -> None:
        for query, run in enumerate(self.runs):
            first, last = self._arrived[query], int(np.searchsorted(run.arrival_s, until_s))
            self._arrived[query] = last
            if first == last or not self._enters[query]:
                continue
            order: IntArray = np.arange(first, last)
            source = np.full(last - first, self.paths.sources[query])
            request = order + self.paths.first_request[query]
            self._route(self.paths.next_visits(source, request, run.arrival_s[first:last], order))

    def _entries(self, block: int, until_s: float) -> VisitArrivals:
        """Remove and return the arrivals at a block before `until_s`."""
        arrivals = VisitArrivals.of(self._pending[block]).sorted()
        count = int(arrivals.time_s.searchsorted(until_s))
        if count == len(arrivals.visit):
            self._pending[block] = []
            return arrivals
        self._pending[block] = [arrivals.selected(slice(count, None))]
        return arrivals.selected(slice(0, count))

    def _route(self, arrivals: VisitArrivals) -> None:
        """Add arrivals to their blocks or to the results."""
        if not len(arrivals.visit):
            return
        visits = len(self._block_of)
        is_result = arrivals.visit >= visits
        if is_result.any():
            self._done_s[arrivals.request[is_result]] = arrivals.time_s[is_result]
            arrivals = arrivals.selected(~is_result)
        block = self._block_of[arrivals.visit]
        for index in np.flatnonzero(np.bincount(block)).tolist():
            self._pending[index].append(arrivals.selected(block == index))

    def _count(self, departures: VisitDepartures) -> None:
        wait_s, share = departures.start_s - departures.time_s, 1.0 / departures.fill
        busy_s = np.minimum(departures.end_s, self.duration_s) - np.minimum(departures.start_s, self.duration_s)
        paths, visit = self.paths, departures.visit
        self._stations.add(paths.station_of[visit], wait_s, busy_s * share, share)
        counted = departures.request >= self._counted_from[paths.query_of[visit]]
        served_s = departures.end_s - departures.start_s
        self._visits.add(visit[counted], wait_s[counted], served_s[counted], share[counted])


class _Sums:
    """Sums over requests, (n,) for n visits or stations."""

    def __init__(self, count: int) -> None:
        self.requests = np.zeros(count, dtype=np.int64)
        self.batches = np.zeros(count)
        self.wait_s = np.zeros(count)
        self.served_s = np.zeros(count)

    def add(self, index: IntArray, wait_s: FloatArray, served_s: FloatArray, share: FloatArray) -> None:
        """Add requests at the visits or stations with these indexes, and their shares of batches."""
        count = len(self.requests)
        self.requests += np.bincount(index, minlength=count)
        self.wait_s += np.bincount(index, wait_s, count)
        self.served_s += np.bincount(index, served_s, count)
        self.batches += np.bincount(index, share, count)
