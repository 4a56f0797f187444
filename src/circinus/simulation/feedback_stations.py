"""Stations with feedback, which can only be simulated together."""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.queueing.fcfs import Station
from circinus.simulation.model import VisitArrivals, VisitDepartures
from circinus.simulation.request_paths import RequestPaths

_Event = tuple[float, int, int, int, int]
"""Arrival (time, order, visit, request, item), compared as in `VisitArrivals`; or possible start of a batch (time,
`_BATCH_ORDER`, station, 0, 0)."""
_BATCH_ORDER = sys.maxsize
"""Order of batch starts: after all arrivals at the same time."""


@dataclass(eq=False)
class _BatchStation:
    """State of a station that serves batches."""

    station: Station
    free_s: list[float]
    waiting: deque[_Event] = field(default_factory=deque)
    scheduled_s: float = math.inf
    """Time of the event at which the next batch may start."""

    def next_start_s(self) -> float:
        """Return when the next batch starts if no request arrives."""
        if not self.waiting:
            return math.inf
        size = self.station.batch_size
        full_s = self.waiting[size - 1][0] if len(self.waiting) >= size else math.inf
        return max(self.free_s[0], min(self.waiting[0][0] + self.station.batch_wait_s, full_s))


@dataclass(frozen=True, eq=False)
class _VisitData:
    """Precomputed data of a visit."""

    station: int
    free_s: list[float]
    """Heap of the times when the station's servers become free."""
    service_s: list[float]
    """Service times by item: unbatched times if the station serves batches."""
    batches: _BatchStation | None
    delay_s: float
    targets: tuple[int, ...]
    """Next visits in the group that wait for this visit only."""
    joins: tuple[int, ...]
    """Next visits in the group that wait for several visits."""


@dataclass(eq=False)
class _Departures:
    """Growing columns of `VisitDepartures`."""

    visit: list[int] = field(default_factory=list)
    request: list[int] = field(default_factory=list)
    time_s: list[float] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    fill: list[int] = field(default_factory=list)

    def to_arrays(self) -> VisitDepartures:
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
    """Block of stations, simulated event by event.

    Without batches, start and end of a request are known at its arrival, as servers are occupied in order of arrival.
    Its next visits are scheduled at once, and a heap contains future arrivals only.
    """

    def __init__(self, stations: Mapping[int, Station], visits: Sequence[int], paths: RequestPaths) -> None:
        """Create idle stations.

        Args:
            stations: stations by index.
            visits: all visits of the stations.
            paths: paths that exclude this group.
        """
        self._paths = paths
        joins = paths.joins
        self._events: list[_Event] = []
        self._served = dict.fromkeys(stations, 0)
        free_s = {index: [0.0] * station.servers for index, station in stations.items()}
        self._batches = {
            index: _BatchStation(station, free_s[index])
            for index, station in stations.items()
            if station.batch_size > 1
        }
        self._visits = {}
        for visit in visits:
            index = int(paths.station_of[visit])
            ratio = 1.0 if index in self._batches else stations[index].batch_time_ratios[0]
            following = paths.successors_in_group(visit)
            self._visits[visit] = _VisitData(
                index,
                free_s[index],
                (paths.unbatched_by_item_s(visit) * ratio).tolist(),
                self._batches.get(index),
                float(paths.delay_s[visit]),
                tuple(target for target in following if target not in joins),
                tuple(target for target in following if target in joins),
            )

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """See `StationBlock`."""
        events, visits, leave, departures = self._events, self._visits, self._leave, _Departures()
        end: _Event = (until_s, -1, -1, -1, -1)
        rows = iter([*self._rows(entries), end])
        entry = next(rows)
        while True:
            if events and events[0] < entry:
                event = heapq.heappop(events)
            elif entry is end:
                return departures.to_arrays()
            else:
                event, entry = entry, next(rows)
            time_s, order, visit, _, item = event
            if order == _BATCH_ORDER:
                self._start_batches(self._batches[visit], visit, time_s, departures)
                continue
            data = visits[visit]
            if data.batches is not None:
                data.batches.waiting.append(event)
                self._schedule(data.batches, data.station)
                continue
            free_s = data.free_s
            start_s = free_s[0]
            if start_s < time_s:
                start_s = time_s
            end_s = start_s + data.service_s[item]
            heapq.heapreplace(free_s, end_s)
            leave(event, data, start_s, end_s, 1, departures)

    @property
    def idle(self) -> bool:
        """See `StationBlock`."""
        return not self._events

    def queued(self) -> Mapping[int, int]:
        """See `StationBlock`."""
        return {index: len(batches.waiting) for index, batches in self._batches.items()}

    def _rows(self, entries: VisitArrivals) -> list[_Event]:
        items = self._paths.items[entries.request]
        columns = (entries.time_s, entries.order, entries.visit, entries.request, items)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _schedule(self, batches: _BatchStation, station: int) -> None:
        """Schedule the next possible batch start, unless an earlier one is scheduled."""
        start_s = batches.next_start_s()
        if start_s < batches.scheduled_s:
            batches.scheduled_s = start_s
            heapq.heappush(self._events, (start_s, _BATCH_ORDER, station, 0, 0))

    def _start_batches(self, batches: _BatchStation, station: int, now_s: float, departures: _Departures) -> None:
        if now_s != batches.scheduled_s:
            return  # superseded: the batch was full earlier
        waiting, size, ratios = batches.waiting, batches.station.batch_size, batches.station.batch_time_ratios
        while batches.next_start_s() <= now_s:
            batch = [waiting.popleft() for _ in range(min(size, len(waiting)))]
            unbatched_s = sum(self._visits[visit].service_s[item] for _, _, visit, _, item in batch)
            end_s = now_s + ratios[len(batch) - 1] * unbatched_s / len(batch)
            heapq.heapreplace(batches.free_s, end_s)
            for event in batch:
                self._leave(event, self._visits[event[2]], now_s, end_s, len(batch), departures)
        batches.scheduled_s = math.inf
        self._schedule(batches, station)

    def _leave(
        self, event: _Event, data: _VisitData, start_s: float, end_s: float, fill: int, departures: _Departures
    ) -> None:
        """Record a departure, and schedule the next visits of the request."""
        time_s, _, visit, request, item = event
        departures.time_s.append(time_s)
        departures.visit.append(visit)
        departures.request.append(request)
        departures.start_s.append(start_s)
        departures.end_s.append(end_s)
        departures.fill.append(fill)
        order = self._served[data.station]
        self._served[data.station] = order + 1
        departures.order.append(order)
        arrival_s = end_s + data.delay_s
        for target in data.targets:
            heapq.heappush(self._events, (arrival_s, order, target, request, item))
        for target in data.joins:
            last = self._paths.joins.arrive(target, request, arrival_s, order)
            if last is not None:
                heapq.heappush(self._events, (*last, target, request, item))
