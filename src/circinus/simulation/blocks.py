"""Stations that are simulated at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from circinus.queueing.discipline import serve
from circinus.queueing.station import Station
from circinus.simulation.entries import Entries, Exits
from circinus.simulation.itineraries import Itineraries


class Block(Protocol):
    """Stations that are simulated at once."""

    def advance(self, entries: Entries, until_s: float) -> Exits:
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

    def unbegun(self) -> Mapping[int, int]:
        """Station -> requests that have come and of which it is not known when they are served."""
        ...


class OneStation:
    """A station to which nothing comes back from behind it: everything that comes is known before it serves."""

    def __init__(self, number: int, station: Station, itineraries: Itineraries) -> None:
        self._number = number
        self._station = station
        self._itineraries = itineraries
        self._free_s = [0.0] * station.servers
        self._waiting = Entries.of([])
        self._served = 0

    def advance(self, entries: Entries, until_s: float) -> Exits:
        """As of `Block`."""
        waiting = entries if self.idle else Entries.of([self._waiting, entries])
        alone_s = self._itineraries.alone_s(waiting.visit, waiting.request)
        served = serve(self._station, self._free_s, waiting.time_s, alone_s, until_s)
        begun = len(served.start_s)
        self._waiting = waiting.chosen(slice(begun, None))
        order = np.arange(self._served, self._served + begun)
        self._served += begun
        came = waiting.chosen(slice(0, begun))
        return Exits(came.visit, came.request, came.time_s, order, served.start_s, served.end_s, served.fill)

    @property
    def idle(self) -> bool:
        """As of `Block`."""
        return not len(self._waiting.visit)

    def unbegun(self) -> Mapping[int, int]:
        """As of `Block`."""
        return {self._number: len(self._waiting.visit)}
