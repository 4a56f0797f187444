"""Simulation model as arrays: queries whose requests visit stations."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray


class Arrivals(Protocol):
    """Stationary arrival process."""

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """Return (n,) ascending arrival times in [0, duration_s)."""
        ...


@dataclass(frozen=True, eq=False)
class Visit:
    """Visit of the requests of a query to a station."""

    station: int
    after: tuple[int, ...]
    """Visits of the request that must end first; empty if the request comes from its source."""
    service_s: FloatArray
    """(n,) unbatched service times of the query's items."""
    delay_s: float = 0.0
    """Delay from the end of the visit to the arrival at the next one: half a round trip."""
    latest_start_s: float = math.inf
    """Latest start of the service, in seconds after the request's entry; its station serves the earliest first.
    Infinite for links and without a latency SLO."""


@dataclass(frozen=True, eq=False)
class QueryModel:
    """Query whose requests have random items and make visits."""

    name: str
    arrivals: Arrivals
    items: int
    """Number of items to draw from."""
    visits: tuple[Visit, ...]
    """Visits in topological order. Receivers of an output are in the order in which it is sent to them."""
    sink_visits: tuple[int, ...]
    """Visits whose ends complete the result."""
    drops_late: bool = False
    """Whether a request that would start later than a visit's latest start is dropped."""


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests of a query, (n,) each."""

    arrival_s: FloatArray
    """Ascending arrival times from 0 on."""
    items: IntArray
    """Item indexes."""

    @classmethod
    def sample(cls, query: QueryModel, duration_s: float, seed: int) -> Requests:
        """Draw random requests from the query's own random stream.

        Args:
            query: the query, whose name selects the random stream.
            duration_s: duration of arrivals.
            seed: random seed of arrivals and items.
        """
        rng = np.random.default_rng([seed, zlib.crc32(query.name.encode())])
        arrival_s = query.arrivals.times_s(duration_s, rng)
        return cls(arrival_s, rng.integers(query.items, size=len(arrival_s)))


@dataclass(frozen=True, eq=False)
class VisitArrivals:
    """Arrivals of requests at visits, (n,) each.

    Arrivals are ordered by time; simultaneous ones (such as those of a batch) by the order in which the previous
    station served them, and then by visit.
    """

    time_s: FloatArray
    order: IntArray
    """Number of requests that the previous station had served before; from a source, number of earlier requests."""
    visit: IntArray
    """Index of the visit, over all queries."""
    request: IntArray
    """Index of the request, over all queries."""

    def selected(self, index: slice | NDArray[Any]) -> VisitArrivals:
        """Return a selection of the arrivals."""
        return VisitArrivals(self.time_s[index], self.order[index], self.visit[index], self.request[index])

    def sorted(self) -> VisitArrivals:
        """Return the arrivals in their order."""
        if len(self.time_s) < 2:
            return self
        order = np.argsort(self.time_s, kind="stable")
        ascending_s = self.time_s[order]
        if (ascending_s[1:] == ascending_s[:-1]).any():
            order = np.lexsort((self.request, self.visit, self.order, self.time_s))
        return self.selected(order)

    @classmethod
    def of(cls, parts: Sequence[VisitArrivals]) -> VisitArrivals:
        """Concatenate arrivals."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return _NO_ARRIVALS
        return cls(
            np.concatenate([part.time_s for part in parts]),
            np.concatenate([part.order for part in parts]),
            np.concatenate([part.visit for part in parts]),
            np.concatenate([part.request for part in parts]),
        )


_NONE: IntArray = np.zeros(0, dtype=np.int64)
_NO_ARRIVALS = VisitArrivals(np.zeros(0), _NONE, _NONE, _NONE)


@dataclass(frozen=True, eq=False)
class VisitDepartures:
    """Ends of visits, (m,) each, in the order in which each station served them."""

    visit: IntArray
    request: IntArray
    time_s: FloatArray
    """Arrival times."""
    order: IntArray
    """Number of requests that the station had served before."""
    start_s: FloatArray
    end_s: FloatArray
    fill: IntArray
    """Size of the request's batch."""

    @classmethod
    def of(cls, parts: Sequence[VisitDepartures]) -> VisitDepartures:
        """Concatenate departures, at least one part."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))
