"""Stations that are simulated at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from circinus.queueing.discipline import serve_fcfs
from circinus.queueing.station import Station
from circinus.simulation.entries import VisitArrivals, VisitDepartures
from circinus.simulation.itineraries import RequestPaths


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
