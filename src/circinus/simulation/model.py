"""Simulation model as arrays: queries whose requests visit stations."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.split_sequence import split_part
from circinus.simulation.task_graph import TaskGraph


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
    """(n,) unbatched service times of the query's items; of all tasks of an item, if the query has tasks."""
    delay_s: float = 0.0
    """Delay from the end of the visit to the arrival at the next one: half a round trip."""
    latest_start_s: float = math.inf
    """Latest start of the service, in seconds after the request's entry; its station serves the earliest first.
    Infinite for links and without a latency SLO."""


@dataclass(frozen=True, eq=False)
class QueryModel:
    """Query whose requests have random items and make visits, or one part of a query with a split plan."""

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
    shares: tuple[float, ...] = (1.0,)
    """Shares of the query's requests that the parts of its plan take."""
    part: int = 0
    """Index of this part."""
    tasks: TaskGraph | None = None
    """Tasks of each item; None if each request makes all visits once."""

    @property
    def share(self) -> float:
        """Share of the query's requests that make these visits."""
        return self.shares[self.part]

    @property
    def visits_per_request(self) -> float:
        """Mean number of visits of a request."""
        return float(len(self.visits)) if self.tasks is None else self.tasks.tasks_per_item


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests of a query, (n,) each."""

    arrival_s: FloatArray
    """Ascending arrival times from 0 on."""
    items: IntArray
    """Item indexes."""

    @classmethod
    def sample(cls, query: QueryModel, duration_s: float, seed: int) -> Requests:
        """Draw random requests from the query's own random stream; return those of its part.

        Args:
            query: the query, whose name selects the random stream: parts of a query divide the same requests.
            duration_s: duration of arrivals.
            seed: random seed of arrivals and items.
        """
        rng = np.random.default_rng([seed, zlib.crc32(query.name.encode())])
        arrival_s = query.arrivals.times_s(duration_s, rng)
        return cls(arrival_s, rng.integers(query.items, size=len(arrival_s))).of_part(query)

    def of_part(self, query: QueryModel) -> Requests:
        """Return the requests that routers send to the part of a query's plan, of all requests of the query."""
        if len(query.shares) == 1:
            return self
        is_own = split_part(query.name, query.shares, np.arange(len(self.items))) == query.part
        return Requests(self.arrival_s[is_own], self.items[is_own])
