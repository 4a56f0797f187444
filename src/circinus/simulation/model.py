"""What is simulated, as arrays: queries whose requests visit stations."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray


class Arrivals(Protocol):
    """A stationary stream of requests."""

    def times_s(self, duration_s: float, rng: np.random.Generator) -> FloatArray:
        """(n,) ascending times in [0, duration_s) at which requests arrive."""
        ...


@dataclass(frozen=True, eq=False)
class Visit:
    """What one request of a query does at one station."""

    station: int
    after: tuple[int, ...]
    """Earlier visits of the same request that must have ended; none: the request comes from its source."""
    service_s: FloatArray
    """(n,) seconds for each of the query's items, alone."""
    delay_s: float = 0.0
    """From the end of the visit until it is known where the request goes next: half a round trip."""


@dataclass(frozen=True, eq=False)
class QueryModel:
    """Requests that carry items at random and make visits."""

    name: str
    arrivals: Arrivals
    items: int
    """n, how many items there are to draw from."""
    visits: tuple[Visit, ...]
    """Each after all that it waits for. What one output is sent to first stands first."""
    sink_visits: tuple[int, ...]
    """Visits at whose ends the result is complete."""


@dataclass(frozen=True, eq=False)
class Requests:
    """The requests of one query, (n,) each."""

    arrival_s: FloatArray
    """Ascending, from 0 on."""
    items: IntArray
    """What they carry, by number."""

    @classmethod
    def drawn(cls, query: QueryModel, duration_s: float, seed: int) -> Requests:
        """At random, from a stream of random numbers that only this query has.

        Args:
            query: whose requests they are; its name makes the stream its own.
            duration_s: how long they arrive.
            seed: of arrivals and items.
        """
        rng = np.random.default_rng([seed, zlib.crc32(query.name.encode())])
        arrival_s = query.arrivals.times_s(duration_s, rng)
        return cls(arrival_s, rng.integers(query.items, size=len(arrival_s)))


@dataclass(frozen=True, eq=False)
class VisitArrivals:
    """Requests that come to visits, (n,) each.

    They come in order of time; at the same time, in the order in which the station before served them (those of a batch
    are done at once), and what one of them sends to several, in the order of the visits.
    """

    time_s: FloatArray
    order: IntArray
    """How many the station that it comes from had served before; from its source, how many had come."""
    visit: IntArray
    """Number of the visit, over all queries."""
    request: IntArray
    """Number of the request, over all queries."""

    def chosen(self, which: slice | NDArray[Any]) -> VisitArrivals:
        """Some of them."""
        return VisitArrivals(self.time_s[which], self.order[which], self.visit[which], self.request[which])

    def sorted(self) -> VisitArrivals:
        """In the order in which they come."""
        if len(self.time_s) < 2:
            return self
        order = np.argsort(self.time_s, kind="stable")
        ascending_s = self.time_s[order]
        if (ascending_s[1:] == ascending_s[:-1]).any():
            order = np.lexsort((self.request, self.visit, self.order, self.time_s))
        return self.chosen(order)

    @classmethod
    def of(cls, parts: Sequence[VisitArrivals]) -> VisitArrivals:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return _NOBODY
        return cls(
            np.concatenate([part.time_s for part in parts]),
            np.concatenate([part.order for part in parts]),
            np.concatenate([part.visit for part in parts]),
            np.concatenate([part.request for part in parts]),
        )


_NONE: IntArray = np.zeros(0, dtype=np.int64)
_NOBODY = VisitArrivals(np.zeros(0), _NONE, _NONE, _NONE)


@dataclass(frozen=True, eq=False)
class VisitDepartures:
    """Visits that ended, (m,) each, in the order in which the station, or each of several, served them."""

    visit: IntArray
    request: IntArray
    time_s: FloatArray
    """When they came."""
    order: IntArray
    """How many the same station had served before."""
    start_s: FloatArray
    end_s: FloatArray
    fill: IntArray
    """How many requests were in the same batch."""

    @classmethod
    def of(cls, parts: Sequence[VisitDepartures]) -> VisitDepartures:
        """One after the other; at least one."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))
