"""Stations that can only be simulated together, because requests come back to them."""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.queueing.station import Station
from circinus.simulation.model import VisitArrivals, VisitDepartures
from circinus.simulation.request_paths import RequestPaths

_Event = tuple[float, int, int, int, int]
"""A request comes: time, order, visit, request, item; so they compare as `Entries` are ordered. Or a batch may begin:
time, `_AFTER_ALL`, station, 0, 0."""
_AFTER_ALL = sys.maxsize
"""Stands for the order of batches: they begin when all that comes at the same time is there."""


@dataclass(eq=False)
class _Batches:
    """A station that serves batches."""

    station: Station
    free_s: list[float]
    waiting: deque[_Event] = field(default_factory=deque)
    due_s: float = math.inf
    """When the event comes at which the next batch may begin."""

    def begin_s(self) -> float:
        """When the next batch begins, if nothing else comes."""
        if not self.waiting:
            return math.inf
        size = self.station.batch_size
        full_s = self.waiting[size - 1][0] if len(self.waiting) >= size else math.inf
        return max(self.free_s[0], min(self.waiting[0][0] + self.station.batch_wait_s, full_s))


@dataclass(frozen=True, eq=False)
class _Stop:
    """A visit, with all that is looked up for its requests."""

    station: int
    free_s: list[float]
    """Heap of the times from which the station's servers are free."""
    service_s: list[float]
    """By item; alone, or as long as it takes where there are no batches."""
    batches: _Batches | None
    delay_s: float
    targets: tuple[int, ...]
    """Visits within these stations that follow and wait for nothing else."""
    joins: tuple[int, ...]
    """Visits within these stations that follow and wait for others, too."""


@dataclass(eq=False)
class _Ended:
    """The columns of `Exits`, which grow visit by visit."""

    visit: list[int] = field(default_factory=list)
    request: list[int] = field(default_factory=list)
    time_s: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    fill: list[int] = field(default_factory=list)

    def exits(self) -> VisitDepartures:
        """As arrays."""
        return VisitDepartures(
            np.array(self.visit, dtype=np.int64),
            np.array(self.request, dtype=np.int64),
            np.array(self.time_s, dtype=np.float64),
            np.array(self.order, dtype=np.int64),
            np.array(self.start_s, dtype=np.float64),
            np.array(self.end_s, dtype=np.float64),
            np.array(self.fill, dtype=np.int64),
        )


class FeedbackStations:
    """Several stations, event by event in order of time.

    Without batches start and end are known as soon as a request comes: servers are taken in order of arrival. So it
    is at once said where it goes next, and only what comes in the future is kept in order by a heap.
    """

    def __init__(self, stations: Mapping[int, Station], visits: Sequence[int], itineraries: RequestPaths) -> None:
        """Nothing has come.

        Args:
            stations: by number.
            visits: all visits to them.
            itineraries: cut along them.
        """
        self._itineraries = itineraries
        joins = itineraries.joins
        self._events: list[_Event] = []
        self._served = dict.fromkeys(stations, 0)
        free_s = {number: [0.0] * station.servers for number, station in stations.items()}
        self._batches = {
            number: _Batches(station, free_s[number]) for number, station in stations.items() if station.batch_size > 1
        }
        self._stops = {}
        for visit in visits:
            number = int(itineraries.station_of[visit])
            alone_s = itineraries.alone_by_item_s(visit)
            ratio = 1.0 if number in self._batches else stations[number].batch_time_ratios[0]
            following = itineraries.within(visit)
            self._stops[visit] = _Stop(
                number,
                free_s[number],
                (alone_s * ratio).tolist(),
                self._batches.get(number),
                float(itineraries.delay_s[visit]),
                tuple(target for target in following if target not in joins),
                tuple(target for target in following if target in joins),
            )

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """As of `Block`."""
        events, stops, leave, ended = self._events, self._stops, self._leave, _Ended()
        end: _Event = (until_s, -1, -1, -1, -1)
        rows = iter([*self._rows(entries), end])
        coming = next(rows)
        while True:
            if events and events[0] < coming:
                event = heapq.heappop(events)
            elif coming is end:
                return ended.exits()
            else:
                event, coming = coming, next(rows)
            time_s, order, visit, _, item = event
            if order == _AFTER_ALL:
                self._begin(self._batches[visit], visit, time_s, ended)
                continue
            stop = stops[visit]
            if stop.batches is not None:
                stop.batches.waiting.append(event)
                self._expect(stop.batches, stop.station)
                continue
            free_s = stop.free_s
            start_s = free_s[0]
            if start_s < time_s:
                start_s = time_s
            end_s = start_s + stop.service_s[item]
            heapq.heapreplace(free_s, end_s)
            leave(event, stop, start_s, end_s, 1, ended)

    @property
    def idle(self) -> bool:
        """As of `Block`."""
        return not self._events

    def queued(self) -> Mapping[int, int]:
        """As of `Block`."""
        return {number: len(batches.waiting) for number, batches in self._batches.items()}

    def _rows(self, entries: VisitArrivals) -> list[_Event]:
        items = self._itineraries.items[entries.request]
        columns = (entries.time_s, entries.order, entries.visit, entries.request, items)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _expect(self, batches: _Batches, station: int) -> None:
        """Wake up when the next batch may begin, if that is not going to be anyway."""
        begin_s = batches.begin_s()
        if begin_s < batches.due_s:
            batches.due_s = begin_s
            heapq.heappush(self._events, (begin_s, _AFTER_ALL, station, 0, 0))

    def _begin(self, batches: _Batches, station: int, now_s: float, ended: _Ended) -> None:
        """Begin all batches that are due, if any still is."""
        if now_s != batches.due_s:
            return  # it was full before
        waiting, size, ratios = batches.waiting, batches.station.batch_size, batches.station.batch_time_ratios
        while batches.begin_s() <= now_s:
            batch = [waiting.popleft() for _ in range(min(size, len(waiting)))]
            alone_s = sum(self._stops[visit].service_s[item] for _, _, visit, _, item in batch)
            end_s = now_s + ratios[len(batch) - 1] * alone_s / len(batch)
            heapq.heapreplace(batches.free_s, end_s)
            for event in batch:
                self._leave(event, self._stops[event[2]], now_s, end_s, len(batch), ended)
        batches.due_s = math.inf
        self._expect(batches, station)

    def _leave(self, event: _Event, stop: _Stop, start_s: float, end_s: float, fill: int, ended: _Ended) -> None:
        """Note that a visit ended, and where its request goes next."""
        time_s, _, visit, request, item = event
        ended.time_s.append(time_s)
        ended.visit.append(visit)
        ended.request.append(request)
        ended.start_s.append(start_s)
        ended.end_s.append(end_s)
        ended.fill.append(fill)
        order = self._served[stop.station]
        self._served[stop.station] = order + 1
        ended.order.append(order)
        known_s = end_s + stop.delay_s
        for target in stop.targets:
            heapq.heappush(self._events, (known_s, order, target, request, item))
        for target in stop.joins:
            last = self._itineraries.joins.come(target, request, known_s, order)
            if last is not None:
                heapq.heappush(self._events, (*last, target, request, item))
