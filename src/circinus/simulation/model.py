"""What is simulated, as arrays: queries whose requests visit stations."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
