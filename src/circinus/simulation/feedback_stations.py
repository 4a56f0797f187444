"""Stations with feedback, which can only be simulated together."""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from circinus.queueing.edf import EdfQueue
from circinus.queueing.fcfs import Station
from circinus.simulation.model import VisitArrivals, VisitDepartures
from circinus.simulation.request_paths import RequestPaths

_Event = tuple[float, int, int, int, int]
"""Arrival (time, order, visit, request, item), compared as in `VisitArrivals`; or possible start of a batch (time,
`_BATCH_ORDER`, number of earlier ones, station, 0)."""
_BATCH_ORDER = sys.maxsize
"""Order of batch starts: after all arrivals at the same time."""


@dataclass(eq=False)
class _QueueingStation:
    """State of a station whose requests may overtake, or are served in batches."""

    station: Station
    free_s: list[float]
    queue: EdfQueue[_Event]
    scheduled_s: float = math.inf
    """Time of the event at which the next batch may start."""

    def starts_at_once(self, time_s: float) -> bool:
        """Return whether a request that arrives alone starts without a queue."""
        return self.station.batch_size == 1 and self.free_s[0] <= time_s and not len(self.queue)


@dataclass(frozen=True, eq=False)
class _VisitData:
    """Precomputed data of a visit."""

    station: int
    free_s: list[float]
    """Heap of the times when the station's servers become free."""
    service_s: list[float]
    """Service times by item: unbatched times if the station serves batches."""
    queueing: _QueueingStation | None
    """State of the station, unless it serves requests one by one in order of arrival."""
    latest_start_s: float
    drops_late: bool
    continues: bool
    """Whether the visit continues a transfer over several links, even if the request was dropped."""
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

    Without batches and latest starts, start and end of a request are known at its arrival, as servers are occupied in
    order of arrival. Its next visits are scheduled at once. Dropped requests leave all queues.
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
        self._dropped: set[int] = set()
        self._scheduled = count()
        free_s = {index: [0.0] * station.servers for index, station in stations.items()}
        limited = {int(paths.station_of[visit]) for visit in visits if math.isfinite(paths.latest_start_s[visit])}
        self._queueing = {
            index: _QueueingStation(station, free_s[index], EdfQueue(station, self._is_dropped))
            for index, station in stations.items()
            if station.batch_size > 1 or index in limited
        }
        self._visits = {}
        for visit in visits:
            index = int(paths.station_of[visit])
            ratio = 1.0 if stations[index].batch_size > 1 else stations[index].batch_time_ratios[0]
            following = paths.successors_in_group(visit)
            self._visits[visit] = _VisitData(
                index,
                free_s[index],
                (paths.unbatched_by_item_s(visit) * ratio).tolist(),
                self._queueing.get(index),
                float(paths.latest_start_s[visit]),
                bool(paths.drops_late[visit]),
                paths.continues_transfer(visit),
                float(paths.delay_s[visit]),
                tuple(target for target in following if target not in joins),
                tuple(target for target in following if target in joins),
            )

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """See `StationBlock`."""
        events, visits, leave, dropped = self._events, self._visits, self._leave, self._dropped
        departures = _Departures()
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
            time_s, order, visit, request, item = event
            if order == _BATCH_ORDER:
                self._start_batches(self._queueing[request], request, time_s, departures)
                continue
            data = visits[visit]
            if request in dropped and not data.continues:
                continue
            if data.queueing is not None:
                queueing, latest_start_s = data.queueing, self._paths.entered_s.item(request) + data.latest_start_s
                is_only_arrival = entry[0] > time_s and not (events and events[0][0] == time_s)
                is_late = data.drops_late and latest_start_s < time_s
                if is_late or not is_only_arrival or not queueing.starts_at_once(time_s):
                    queueing.queue.put(event, time_s, latest_start_s, data.drops_late)
                    if queueing.scheduled_s == math.inf or queueing.station.batch_wait_s:
                        self._schedule(queueing, data.station)
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
        return {index: len(queueing.queue) for index, queueing in self._queueing.items()}

    def _is_dropped(self, event: _Event) -> bool:
        return event[3] in self._dropped

    def _rows(self, entries: VisitArrivals) -> list[_Event]:
        items = self._paths.items[entries.request]
        columns = (entries.time_s, entries.order, entries.visit, entries.request, items)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _schedule(self, queueing: _QueueingStation, station: int) -> None:
        """Schedule the next possible batch start, unless an earlier one is scheduled."""
        start_s = queueing.queue.next_start_s(queueing.free_s[0])
        if start_s < queueing.scheduled_s:
            queueing.scheduled_s = start_s
            heapq.heappush(self._events, (start_s, _BATCH_ORDER, next(self._scheduled), station, 0))

    def _start_batches(self, queueing: _QueueingStation, station: int, now_s: float, departures: _Departures) -> None:
        if now_s != queueing.scheduled_s:
            return  # superseded: the batch was full earlier
        queue, free_s, station_data = queueing.queue, queueing.free_s, queueing.station
        ratios = station_data.batch_time_ratios if station_data.batch_size > 1 else (1.0,)
        while queue.next_start_s(free_s[0]) <= now_s:
            batch, late = queue.take(now_s)
            for _, _, _, request, _ in late:
                self._dropped.add(request)
                self._paths.dropped_s[request] = now_s
            if not batch:
                continue
            unbatched_s = sum([self._visits[visit].service_s[item] for _, _, visit, _, item in batch])
            end_s = now_s + ratios[len(batch) - 1] * unbatched_s / len(batch)
            heapq.heapreplace(free_s, end_s)
            for event in batch:
                self._leave(event, self._visits[event[2]], now_s, end_s, len(batch), departures)
        queueing.scheduled_s = math.inf
        self._schedule(queueing, station)

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
