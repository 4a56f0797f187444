"""Arrays of stations that are simulated together event by event, for the functions of `event_kernel`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.queueing.fcfs import Station

BATCH_ORDER = sys.maxsize
"""Order of batch starts: after all arrivals at the same time."""
EVENTS, DEPARTURES, NODES, FREE_NODE, SCHEDULED, STARTING = range(6)
"""Counters: future events; departures; nodes ever used; first free node or -1; scheduled batch starts; station that is
starting batches, or -1."""
NUMBER, ORDER, VISIT, REQUEST, NEXT, CHILD, SIBLING, STATE = range(8)
"""Columns of a node: number of earlier arrivals at the station; the event; the next node in order of arrival; first
child and next sibling in a pairing heap (Fredman et al., Algorithmica 1, 1986); flags."""
IN_LIST, IN_HEAP, LEFT = 1, 2, 4
"""Flags of a node: in the list of the waiting requests, in the heap, and whether the request left the queue."""


class Stations(NamedTuple):
    """Stations of a block, (n,) for n stations."""

    first_server: IntArray
    """(n + 1,) index of each station's first server, and the number of servers."""
    first_ratio: IntArray
    """(n + 1,) index of each station's first batch time ratio, and their number."""
    batch_time_ratios: FloatArray
    batch_wait_s: FloatArray
    """Maximum waits for batches to fill; zero without batches."""
    has_queue: BoolArray
    """Whether requests may overtake, or are served in batches."""
    largest_batch: int

    @classmethod
    def of(cls, stations: Sequence[Station], has_queue: Sequence[bool]) -> Stations:
        """Return the arrays of stations.

        Args:
            stations: the stations.
            has_queue: whether requests of each station may overtake, or are served in batches.
        """
        return cls(
            offsets([station.servers for station in stations]),
            offsets([station.batch_size for station in stations]),
            np.array([ratio for station in stations for ratio in station.batch_time_ratios]),
            np.array([station.batch_wait_s if station.batch_size > 1 else 0.0 for station in stations]),
            np.array(has_queue, dtype=np.bool_),
            max(station.batch_size for station in stations),
        )


class Tasks(NamedTuple):
    """Tasks of the items of queries of which an item may visit a station never or several times, (t,) for t tasks.

    Such a request has one token for each task of its item, in the same order, and its visits have no targets.
    """

    visit: IntArray
    """Visit of each task; indexes from v on are results."""
    inputs: IntArray
    """Number of tasks that have to end before."""
    first_edge: IntArray
    """(t + 1,) index of each task's first edge, and their number."""
    step: IntArray
    """Index of the edge's target less that of its task, and so of their tokens."""
    delay_s: FloatArray
    """Delay on the edge."""
    first_slot: int
    """Slot of the first token at joins."""


NO_TASKS = Tasks(
    np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64),
    np.zeros(0), 0,
)  # fmt: skip


class Visits(NamedTuple):
    """Visits of all queries, (v,) for v visits."""

    station: IntArray
    first_service: IntArray
    """Index of the service time of each visit's first item."""
    service_s: FloatArray
    """Unbatched service times of all visits' items."""
    latest_start_s: FloatArray
    """Latest starts after the entry of the request."""
    drops_late: BoolArray
    continues: BoolArray
    """Whether a visit continues a transfer over several links, even if the request was dropped."""
    delay_s: FloatArray
    first_target: IntArray
    """(v + 1,) index of each visit's first target, and their number."""
    targets: IntArray
    """Next visits; indexes from v on are results."""
    is_join: BoolArray
    """(targets,) whether the target waits for several visits."""
    most_targets: int
    has_tasks: BoolArray
    """(v,) whether the edges of `tasks` lead on, instead of the visit's targets."""
    tasks: Tasks


class RequestArrays(NamedTuple):
    """All requests, (r,) for r requests, and their tokens, (n,) each.

    A token of a request visits stations: one token all of them, unless the request has tasks, with one token each. What
    the other arrays and functions call a request is a token.
    """

    items: IntArray
    """(n,) item of the request, or task."""
    entered_s: FloatArray
    """(n,) time of entry of the request."""
    request_of: IntArray
    """(n,) request; the tokens of a request are neighbours."""
    done_s: FloatArray
    """(r,) times of results, updated."""
    dropped_s: FloatArray
    """(r,) times of drops, updated."""
    is_dropped: BoolArray
    """(n,) whether the block dropped the request, updated."""


class JoinArrays(NamedTuple):
    """Inputs of requests at joins: each request has a slot, the offset of the visit plus the request's index."""

    offset: IntArray
    """Visit -> offset."""
    missing: IntArray
    latest_s: FloatArray
    order: IntArray


class VisitArrivals(NamedTuple):
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

    def selected(self, selection: slice | NDArray[Any]) -> VisitArrivals:
        """Return a selection of the arrivals."""
        return VisitArrivals._make(column[selection] for column in self)

    def sorted(self) -> VisitArrivals:
        """Return the arrivals in their order."""
        if (self.time_s[1:] > self.time_s[:-1]).all():
            return self
        order = np.argsort(self.time_s, kind="stable")
        ascending_s = self.time_s[order]
        if (ascending_s[1:] == ascending_s[:-1]).any():
            order = np.lexsort((self.request, self.visit, self.order, self.time_s))
        return self.selected(order)

    @classmethod
    def of(cls, parts: Sequence[VisitArrivals]) -> VisitArrivals:
        """Concatenate arrivals."""
        if not parts:
            none: IntArray = np.zeros(0, dtype=np.int64)
            return cls(np.zeros(0), none, none, none)
        return parts[0] if len(parts) == 1 else cls._make(map(np.concatenate, zip(*parts, strict=True)))


class BlockState(NamedTuple):
    """State of n stations."""

    free_s: FloatArray
    """(servers,) heap of each station of the times when servers become free."""
    scheduled_s: FloatArray
    """(n,) time of the event at which the next batch may start; infinite without one."""
    served: IntArray
    first_waiting: IntArray
    """(n,) first node of the requests in order of arrival, with requests that left before older ones; or -1."""
    last_waiting: IntArray
    waiting: IntArray
    """(n,) length of this list."""
    left: IntArray
    """(n,) number of requests in it that left."""
    arrived: IntArray
    answered: IntArray
    """(n,) root of the heap of requests without those that may be dropped; or -1."""
    droppable: IntArray
    """(n,) root of the heap of requests that may be dropped; or -1."""
    batch: IntArray
    """(largest batch,) nodes of the batch that starts."""
    counters: IntArray
    """Numbers of `EVENTS` and so on."""

    @classmethod
    def idle(cls, stations: Stations) -> BlockState:
        """Return the state of idle stations."""
        count = len(stations.has_queue)

        def column(value: int) -> IntArray:
            return np.full(count, value, dtype=np.int64)

        counters = np.zeros(6, dtype=np.int64)
        counters[[FREE_NODE, STARTING]] = -1
        return cls(
            np.zeros(int(stations.first_server[-1])), np.full(count, np.inf), column(0), column(-1), column(-1),
            column(0), column(0), column(0), column(-1), column(-1),
            np.empty(stations.largest_batch, dtype=np.int64), counters,
        )  # fmt: skip


class Buffers(NamedTuple):
    """Events and waiting requests, at most as many as the arrays are long."""

    event_s: FloatArray
    """Heap of future events: arrivals (time, order, visit, request), or batch starts (time, `BATCH_ORDER`, number of
    earlier ones, station)."""
    event: IntArray
    """(k, 3) order, visit and request."""
    node_s: FloatArray
    """(k, 2) arrival time and latest start of a waiting request."""
    node: IntArray
    """(k, 8) see `NUMBER` and so on."""

    @classmethod
    def of_size(cls, size: int) -> Buffers:
        """Return buffers for a number of events and of waiting requests."""
        return cls(
            np.empty(size),
            np.empty((size, 3), dtype=np.int64),
            np.empty((size, 2)),
            np.empty((size, 8), dtype=np.int64),
        )

    def larger(self) -> Buffers:
        """Return buffers of twice the size with the same content."""
        return Buffers._make(np.concatenate((array, np.empty_like(array))) for array in self)


class VisitDepartures(NamedTuple):
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
    def of_size(cls, size: int) -> VisitDepartures:
        """Return arrays for a number of departures."""
        visit, request, order, fill = (np.empty(size, dtype=np.int64) for _ in range(4))
        time_s, start_s, end_s = (np.empty(size) for _ in range(3))
        return cls(visit, request, time_s, order, start_s, end_s, fill)

    def first(self, count: int) -> VisitDepartures:
        """Return the first departures."""
        return VisitDepartures._make(column[:count] for column in self)

    @classmethod
    def of(cls, parts: Sequence[VisitDepartures]) -> VisitDepartures:
        """Concatenate departures, at least one part."""
        return parts[0] if len(parts) == 1 else cls._make(map(np.concatenate, zip(*parts, strict=True)))


def offsets(counts: Sequence[int]) -> IntArray:
    """Return (n + 1,) start offsets of n consecutive runs, and the end of the last."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)
