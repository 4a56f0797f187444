"""Block of stations that are simulated together event by event."""

from __future__ import annotations

from functools import cache

import numpy as np

from circinus.arrays import IntArray
from circinus.queueing.event_arrays import (
    DEPARTURES,
    EVENTS,
    NO_TASKS,
    NODES,
    BlockState,
    Buffers,
    JoinArrays,
    RequestArrays,
    Stations,
    VisitArrivals,
    VisitDepartures,
    Visits,
)
from circinus.queueing.fcfs import Station
from circinus.queueing.service_record import ServiceRecord, VisitSums

_MIN_SIZE = 1024
"""Initial size of the buffers of a block, which grow, and minimum of those for departures."""


@cache
def load_kernels() -> None:
    """Load all compiled functions, or compile them, which takes seconds once on a machine.

    For callers with time limits, which compiling would use up.
    """
    from circinus.queueing.fcfs_kernel import serve_in_batches, serve_one_by_one
    from circinus.queueing.sorting_kernel import sorted_times_s, stable_order

    station = Stations.of([Station("", 1)], [True])
    none, no_times, false = np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros(1, dtype=np.bool_)
    first_target = np.zeros(2, dtype=np.int64)
    visits = Visits(
        none, none, no_times, no_times, false, false, no_times, first_target, none, false, 0, false, NO_TASKS
    )
    joins = JoinArrays(none, np.zeros(1, dtype=np.int32), no_times, none)
    requests = RequestArrays(none, no_times, none, no_times.copy(), no_times.copy(), false.copy())
    EventBlock(station, visits, requests, joins, VisitSums.zeros(none, 1, 0.0), is_watched=True).advance(
        VisitArrivals(no_times, none, none, none), np.inf
    )
    stable_order(no_times)
    sorted_times_s(no_times, 1.0, 1.0)
    serve_one_by_one(np.zeros(1), no_times, no_times, np.inf, np.zeros(1))
    serve_in_batches(
        np.zeros(1),
        no_times,
        np.zeros(2),
        np.ones(1),
        0.0,
        np.inf,
        np.zeros(1),
        np.zeros(1),
        np.zeros(1, dtype=np.int64),
    )


class EventBlock:
    """Stations whose requests may overtake, wait for batches to fill, or come back."""

    def __init__(
        self,
        stations: Stations,
        visits: Visits,
        requests: RequestArrays,
        joins: JoinArrays,
        sums: VisitSums,
        *,
        is_watched: bool,
    ) -> None:
        """Create idle stations.

        Args:
            stations: the stations.
            visits: all visits.
            requests: all requests, updated by results and drops.
            joins: inputs at joins, updated.
            sums: sums over the served requests, updated.
            is_watched: whether `advance` returns departures.
        """
        self._stations, self._visits, self._requests, self._joins = stations, visits, requests, joins
        self._sums, self._is_watched = sums, is_watched
        self.state = BlockState.idle(stations)
        self._min_size = max(_MIN_SIZE, 2 * stations.largest_batch * (visits.most_targets + 2))
        self._buffers = Buffers.of_size(self._min_size)

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        """Serve requests that start before `until_s`.

        Args:
            entries: new arrivals from outside before `until_s`, in order.
            until_s: time from which arrivals are unknown.
        """
        from circinus.queueing.event_kernel import advance  # imports Numba, which takes a fifth of a second

        parts, counters, entry = [], self.state.counters, 0
        while entry >= 0:
            departures = VisitDepartures.of_size(self._min_size + self._is_watched * len(entries.time_s))
            counters[DEPARTURES] = 0
            entry = advance(
                self._stations, self._visits, self._requests, self._joins, self.state, self._buffers,
                ServiceRecord(self._sums, departures, self._is_watched), entries, entry, until_s,
            )  # fmt: skip
            parts.append(departures.first(int(counters[DEPARTURES])))
            if max(counters[EVENTS], counters[NODES]) > len(self._buffers.event_s) // 2:
                self._buffers = self._buffers.larger()
        return VisitDepartures.of(parts)

    @property
    def is_idle(self) -> bool:
        """True if no event is left."""
        return not self.state.counters[EVENTS]

    @property
    def queued(self) -> IntArray:
        """(n,) number of waiting requests of each station."""
        return self.state.waiting - self.state.left
