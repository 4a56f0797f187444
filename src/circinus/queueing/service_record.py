"""Record of served requests: sums over visits and stations, and departures."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.event_arrays import VisitDepartures


class VisitSums(NamedTuple):
    """Sums over requests: (v,) at v visits, without those of the warm-up, and (n,) at n stations, over all requests.

    `event_kernel` adds each request when it is served; `add` adds the requests of a recursion all at once.
    """

    counted_from: IntArray
    """(v,) index of the first request after the warm-up."""
    end_s: float
    """End of arrivals, until which busy times are summed."""
    requests: FloatArray
    wait_s: FloatArray
    served_s: FloatArray
    """Service times of the requests' batches."""
    station_requests: FloatArray
    station_wait_s: FloatArray
    station_batches: FloatArray
    station_busy_s: FloatArray
    """Busy times of all servers until the end of arrivals."""

    @classmethod
    def zeros(cls, counted_from: IntArray, stations: int, end_s: float) -> VisitSums:
        """Return sums over no requests."""
        visits = len(counted_from)
        return cls(counted_from, end_s, *(np.zeros(count) for count in (*[visits] * 3, *[stations] * 4)))

    def add(self, departures: VisitDepartures, station_of: IntArray) -> None:
        """Add served requests.

        Args:
            departures: the requests.
            station_of: (v,) station of each visit.
        """
        visit, station = departures.visit, station_of[departures.visit]
        wait_s, share = departures.start_s - departures.time_s, 1.0 / departures.fill
        busy_s = np.minimum(departures.end_s, self.end_s) - np.minimum(departures.start_s, self.end_s)
        counted = (departures.request >= self.counted_from[visit]).astype(np.float64)
        for sums, index, values in (
            (self.requests, visit, counted),
            (self.wait_s, visit, counted * wait_s),
            (self.served_s, visit, counted * (departures.end_s - departures.start_s)),
            (self.station_requests, station, None),
            (self.station_wait_s, station, wait_s),
            (self.station_batches, station, share),
            (self.station_busy_s, station, busy_s * share),
        ):
            sums += np.bincount(index, values, len(sums))


class ServiceRecord(NamedTuple):
    """Record of the requests that `event_kernel` serves."""

    sums: VisitSums
    departures: VisitDepartures
    """Departures, where they are watched."""
    is_watched: bool
