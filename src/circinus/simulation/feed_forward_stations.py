"""Stations without feedback, which are simulated one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from circinus.queueing.edf import EdfSchedule, serve_edf
from circinus.queueing.event_arrays import VisitArrivals, VisitDepartures
from circinus.queueing.fcfs import Station, serve_fcfs
from circinus.queueing.service_record import VisitSums
from circinus.simulation.request_paths import RequestPaths


class FeedForwardStations:
    """Stations in topological order: all arrivals of a window are known before a station serves them."""

    def __init__(self, stations: Sequence[Station], order: Sequence[int], paths: RequestPaths, sums: VisitSums) -> None:
        """Create idle stations.

        Args:
            stations: all stations.
            order: topological order of their indexes.
            paths: paths of all requests, updated.
            sums: sums over the served requests, updated.
        """
        self._paths, self._sums = paths, sums
        self._stations = {index: _FeedForwardStation(index, stations[index], paths) for index in order}
        self._pending: list[list[VisitArrivals]] = [[] for _ in stations]
        """Station -> its future arrivals."""

    def advance(self, arrivals: Sequence[VisitArrivals], until_s: float) -> VisitDepartures:
        """See `StationNetwork`."""
        for part in arrivals:
            self._route(part)
        parts = []
        for index, station in self._stations.items():
            entries = self._entries(index, until_s)
            if station.is_idle and not len(entries.visit):
                continue
            departures = station.advance(entries, until_s)
            if len(departures.visit):
                self._route(
                    self._paths.next_visits(departures.visit, departures.request, departures.end_s, departures.order)
                )
                parts.append(departures)
        if not parts:
            return VisitDepartures.of_size(0)
        departures = VisitDepartures.of(parts)
        self._sums.add(departures, self._paths.station_of)
        return departures

    def queued(self) -> Mapping[int, int]:
        """See `StationNetwork`."""
        return {index: station.queued for index, station in self._stations.items()}

    def _entries(self, station: int, until_s: float) -> VisitArrivals:
        """Remove and return the arrivals at a station before `until_s`."""
        arrivals = VisitArrivals.of(self._pending[station]).sorted()
        count = int(arrivals.time_s.searchsorted(until_s))
        if count == len(arrivals.visit):
            self._pending[station] = []
            return arrivals
        self._pending[station] = [arrivals.selected(slice(count, None))]
        return arrivals.selected(slice(0, count))

    def _route(self, arrivals: VisitArrivals) -> None:
        """Add arrivals to their stations or to the results."""
        if not len(arrivals.visit):
            return
        paths = self._paths
        is_result = arrivals.visit >= len(paths.station_of)
        if is_result.any():
            paths.done_s[arrivals.request[is_result]] = arrivals.time_s[is_result]
            arrivals = arrivals.selected(~is_result)
        station = paths.station_of[arrivals.visit]
        for index in np.flatnonzero(np.bincount(station)).tolist():
            self._pending[index].append(arrivals.selected(station == index))


class _FeedForwardStation:
    """Station that serves the arrivals of a window at once."""

    def __init__(self, index: int, station: Station, paths: RequestPaths) -> None:
        self._station = station
        self._paths = paths
        self._is_fcfs = not np.isfinite(paths.latest_start_s[paths.station_of == index]).any()
        self._free_s = [0.0] * station.servers
        self._waiting = VisitArrivals.of([])
        self._served = 0

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """Serve requests that start before `until_s`.

        Args:
            entries: new arrivals before `until_s`, in order.
            until_s: time from which arrivals are unknown.
        """
        waiting = entries if self.is_idle else VisitArrivals.of([self._waiting, entries])
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
    def queued(self) -> int:
        """Number of waiting requests."""
        return len(self._waiting.visit)

    @property
    def is_idle(self) -> bool:
        """True if no request is waiting."""
        return not self.queued
