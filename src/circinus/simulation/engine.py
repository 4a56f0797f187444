"""Requests of all queries on their way through all stations, window by window of simulated time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.fcfs import serve_fcfs
from circinus.queueing.station import Station
from circinus.simulation.feedback_stations import FeedbackStations
from circinus.simulation.model import QueryModel, Requests, VisitArrivals, VisitDepartures
from circinus.simulation.request_paths import RequestPaths
from circinus.simulation.station_order import strongly_connected_groups, successors


class StationBlock(Protocol):
    """Stations that are simulated at once."""

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """Serve what is known to be served by `until_s`.

        Args:
            entries: all that come from elsewhere before `until_s` and did not before, in order.
            until_s: nothing is known of what comes from then on.
        """
        ...

    @property
    def idle(self) -> bool:
        """Whether nothing will be served unless something comes."""
        ...

    def queued(self) -> Mapping[int, int]:
        """Station -> requests that have come and of which it is not known when they are served."""
        ...


class FeedForwardStation:
    """A station to which nothing comes back from behind it: everything that comes is known before it serves."""

    def __init__(self, number: int, station: Station, itineraries: RequestPaths) -> None:
        self._number = number
        self._station = station
        self._itineraries = itineraries
        self._free_s = [0.0] * station.servers
        self._waiting = VisitArrivals.of([])
        self._served = 0

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """As of `Block`."""
        waiting = entries if self.idle else VisitArrivals.of([self._waiting, entries])
        alone_s = self._itineraries.service_s(waiting.visit, waiting.request)
        served = serve_fcfs(self._station, self._free_s, waiting.time_s, alone_s, until_s)
        begun = len(served.start_s)
        self._waiting = waiting.chosen(slice(begun, None))
        order = np.arange(self._served, self._served + begun)
        self._served += begun
        came = waiting.chosen(slice(0, begun))
        return VisitDepartures(came.visit, came.request, came.time_s, order, served.start_s, served.end_s, served.fill)

    @property
    def idle(self) -> bool:
        """As of `Block`."""
        return not len(self._waiting.visit)

    def queued(self) -> Mapping[int, int]:
        """As of `Block`."""
        return {self._number: len(self._waiting.visit)}


_WINDOW = 200_000
"""Executions in a window of time, about: large enough for arrays, small enough for memory."""
_WINDOW_OF_VISIT = 100
"""The same for each visit of each query: what every window takes for each of them shall not be most of the time."""


@dataclass(frozen=True, eq=False)
class QueryRun:
    """One query's requests as far as they came."""

    query: QueryModel
    arrival_s: FloatArray
    """(N,)"""
    items: IntArray
    """(N,)"""
    done_s: FloatArray
    """(N,) when the result was there; infinite where it is not yet."""

    @property
    def latency_s(self) -> FloatArray:
        """(N,) from arrival to result; infinite where there is none yet."""
        return self.done_s - self.arrival_s


@dataclass(frozen=True)
class VisitRun:
    """What the requests of one query that came after the warm-up met at one visit; sums over those that ended."""

    requests: int
    wait_s: float
    service_s: float
    """In service, together with the others of their batches."""


@dataclass(frozen=True)
class StationRun:
    """What a station did."""

    requests: int
    batches: float
    busy_s: float
    """Of all servers together, as long as requests arrive: not what they did afterwards to end what was left."""
    wait_s: float
    """Sum over requests."""


class Simulation:
    """A run of all queries.

    Service times are those of an item drawn for each request, the same at all its visits: their correlation stays. The
    same seed gives the same requests, whatever is deployed, and every query has a random stream of its own. Kept of a
    request are its arrival, its item and the time of its result; the rest is summed up when it is known.
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
            stations: numbered as they come.
            queries: whose visits name them.
            duration_s: how long requests arrive.
            seed: of arrivals and items.
            warm_up_s: requests that arrive before are in no sum of `visit`.
            requests: of each query, instead of random ones.
            watch: told of visits that ended, station after station.
        """
        self.stations = tuple(stations)
        self.duration_s = duration_s
        self.now_s = 0.0
        drawn = [Requests.drawn(query, duration_s, seed) for query in queries] if requests is None else requests
        self.itineraries = RequestPaths(queries, drawn)
        first = self.itineraries.first_request
        self._done_s = np.full(int(first[-1]), math.inf)
        self.runs = tuple(
            QueryRun(query, one.arrival_s, one.items, done_s)
            for query, one, done_s in zip(queries, drawn, np.split(self._done_s, first[1:-1]), strict=True)
        )
        self._watch = watch
        self._blocks, self._block_of = self._grouped(queries)
        self._coming: list[list[VisitArrivals]] = [[] for _ in self._blocks]
        """Block -> who comes to it."""
        self._arrived = [0] * len(queries)
        """Query -> how many of its requests have arrived."""
        self._enters = [True] * len(queries)
        self._visits = _Sums(len(self.itineraries.station_of))
        self._stations = _Sums(len(stations))
        self._counted_from = first[:-1] + np.array(
            [np.searchsorted(one.arrival_s, warm_up_s) for one in drawn], dtype=np.int64
        )

    @property
    def station_stats(self) -> tuple[StationRun, ...]:
        """What every station did."""
        sums = self._stations
        columns = (sums.requests, sums.batches, sums.served_s, sums.wait_s)
        return tuple(StationRun(*row) for row in zip(*(column.tolist() for column in columns), strict=True))

    def visit(self, query: int, visit: int) -> VisitRun:
        """What the requests of a query met at one of its visits."""
        number, sums = int(self.itineraries.first_visit[query]) + visit, self._visits
        return VisitRun(int(sums.requests[number]), float(sums.wait_s[number]), float(sums.served_s[number]))

    def inject(self, query: int, enters: bool) -> None:
        """Whether requests of a query that arrive from now on enter, or are turned away and never done.

        Several queries with the same requests and other visits are one query that may change its plan: one of them is
        let in at a time.
        """
        self._enters[query] = enters

    def run(self, on_progress: Callable[[float], None] | None = None) -> None:
        """Until every request is done.

        Args:
            on_progress: told the simulated time now and then.
        """
        begun_s = self.now_s
        executions = sum(len(run.items) * len(run.query.visits) for run in self.runs)
        size = max(_WINDOW, _WINDOW_OF_VISIT * len(self.itineraries.station_of))
        windows = max(1, math.ceil(executions / size))
        for window in range(1, windows):
            until_s = self.duration_s * window / windows
            if until_s > begun_s:
                self.advance(until_s)
                if on_progress is not None:
                    on_progress(until_s)
        self.advance(math.inf)

    def advance(self, until_s: float) -> None:
        """Until a moment of simulated time, later than the last."""
        self._arrive(until_s)
        parts = []
        for number, block in enumerate(self._blocks):
            entries = self._entries(number, until_s)
            if block.idle and not len(entries.visit):
                continue
            exits = block.advance(entries, until_s)
            if len(exits.visit):
                self._pass_on(self.itineraries.next_visits(exits.visit, exits.request, exits.end_s, exits.order))
                parts.append(exits)
        if parts:
            exits = VisitDepartures.of(parts)
            self._count(exits)
            if self._watch is not None:
                self._watch(exits)
        self.now_s = until_s

    def queued(self) -> Mapping[int, int]:
        """Station -> requests that have come by now and of which it is not known when they are served.

        Others that have not begun are those that `watch` was told begin later than now.
        """
        return {number: count for block in self._blocks for number, count in block.queued().items()}

    def _grouped(self, queries: Sequence[QueryModel]) -> tuple[list[StationBlock], IntArray]:
        """The blocks, each after all that send to it, and (visits,) the block of each."""
        groups = strongly_connected_groups(queries, len(self.stations))
        targets, station_of = successors(queries, len(self.stations)), self.itineraries.station_of
        group_of = np.zeros(len(self.stations), dtype=np.int64)
        for number, group in enumerate(groups):
            group_of[list(group)] = number
        block_of = group_of[station_of]
        alone = [len(group) == 1 and group[0] not in targets[group[0]] for group in groups]
        visits = [[] if alone[number] else np.flatnonzero(block_of == number).tolist() for number in range(len(groups))]
        self.itineraries.cut([frozenset(members) for members in visits if members])
        blocks: list[StationBlock] = []
        for number, group in enumerate(groups):
            if alone[number]:
                blocks.append(FeedForwardStation(group[0], self.stations[group[0]], self.itineraries))
            else:
                members = {station: self.stations[station] for station in group}
                blocks.append(FeedbackStations(members, visits[number], self.itineraries))
        return blocks, block_of

    def _arrive(self, until_s: float) -> None:
        """Let requests come from their sources."""
        for query, run in enumerate(self.runs):
            first, last = self._arrived[query], int(np.searchsorted(run.arrival_s, until_s))
            self._arrived[query] = last
            if first == last or not self._enters[query]:
                continue
            number: IntArray = np.arange(first, last)
            source = np.full(last - first, self.itineraries.sources[query])
            request = number + self.itineraries.first_request[query]
            self._pass_on(self.itineraries.next_visits(source, request, run.arrival_s[first:last], number))

    def _entries(self, block: int, until_s: float) -> VisitArrivals:
        """Who comes to a block before `until_s`."""
        coming = VisitArrivals.of(self._coming[block]).sorted()
        count = int(coming.time_s.searchsorted(until_s))
        if count == len(coming.visit):
            self._coming[block] = []
            return coming
        self._coming[block] = [coming.chosen(slice(count, None))]
        return coming.chosen(slice(0, count))

    def _pass_on(self, coming: VisitArrivals) -> None:
        """To the blocks that they come to, or to the results."""
        if not len(coming.visit):
            return
        visits = len(self._block_of)
        is_result = coming.visit >= visits
        if is_result.any():
            self._done_s[coming.request[is_result]] = coming.time_s[is_result]
            coming = coming.chosen(~is_result)
        block = self._block_of[coming.visit]
        for number in np.flatnonzero(np.bincount(block)).tolist():
            self._coming[number].append(coming.chosen(block == number))

    def _count(self, exits: VisitDepartures) -> None:
        wait_s, share = exits.start_s - exits.time_s, 1.0 / exits.fill
        busy_s = np.minimum(exits.end_s, self.duration_s) - np.minimum(exits.start_s, self.duration_s)
        itineraries = self.itineraries
        self._stations.add(itineraries.station_of[exits.visit], wait_s, busy_s * share, share)
        counted = exits.request >= self._counted_from[itineraries.query_of[exits.visit]]
        served_s = exits.end_s - exits.start_s
        self._visits.add(exits.visit[counted], wait_s[counted], served_s[counted], share[counted])


class _Sums:
    """Over requests, (n,) for n visits or stations."""

    def __init__(self, count: int) -> None:
        self.requests = np.zeros(count, dtype=np.int64)
        self.batches = np.zeros(count)
        self.wait_s = np.zeros(count)
        self.served_s = np.zeros(count)

    def add(self, number: IntArray, wait_s: FloatArray, served_s: FloatArray, share: FloatArray) -> None:
        """Requests at the visits or stations with these numbers, and their shares of batches."""
        count = len(self.requests)
        self.requests += np.bincount(number, minlength=count)
        self.wait_s += np.bincount(number, wait_s, count)
        self.served_s += np.bincount(number, served_s, count)
        self.batches += np.bincount(number, share, count)
