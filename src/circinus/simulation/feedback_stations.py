"""Stations with feedback, which can only be simulated together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from circinus.queueing.event_arrays import RequestArrays, Stations, VisitArrivals, VisitDepartures
from circinus.queueing.event_block import EventBlock
from circinus.queueing.fcfs import Station
from circinus.simulation.request_paths import RequestPaths


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
        limited = {int(paths.station_of[visit]) for visit in visits if math.isfinite(paths.latest_start_s[visit])}
        self._indexes = list(stations)
        self._queueing = [index for index, station in stations.items() if station.batch_size > 1 or index in limited]
        self._block = EventBlock(
            Stations.of(list(stations.values()), [index in self._queueing for index in stations]),
            paths.visit_arrays(self._indexes, visits),
            RequestArrays(paths.items, paths.entered_s, paths.dropped_s, np.zeros(len(paths.items), dtype=np.bool_)),
            paths.joins.arrays,
        )

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """See `StationBlock`."""
        return self._block.advance(entries, until_s)

    @property
    def idle(self) -> bool:
        """See `StationBlock`."""
        return self._block.is_idle

    def queued(self) -> Mapping[int, int]:
        """See `StationBlock`."""
        queued = dict(zip(self._indexes, self._block.queued.tolist(), strict=True))
        return {index: queued[index] for index in self._queueing}
