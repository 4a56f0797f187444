"""Queues in order of latest starts: earliest deadline first, with deadlines for the start of service.

This is least slack first, too: the slack of a request is its latest start minus the time, which is the same for all.

Requests overtake only those that wait at the same time, so that the order is that of arrival unless a request waits
behind one with a later latest start, or is dropped. Without batches, every order that keeps a single server busy has
the busy periods of FCFS (Kleinrock, Queueing Systems II, 1976, chapter 3), and drops only shorten them: only the busy
periods concerned are served again, request by request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.queueing.event_arrays import NO_TASKS, JoinArrays, RequestArrays, Stations, VisitArrivals, Visits
from circinus.queueing.event_block import EventBlock
from circinus.queueing.fcfs import ServedRequests, Station, serve_fcfs
from circinus.queueing.service_record import VisitSums

_NONE: IntArray = np.zeros(0, dtype=np.int64)
_NO_JOINS = JoinArrays(_NONE, np.zeros(0, dtype=np.int32), np.zeros(0), _NONE)


@dataclass(frozen=True, eq=False)
class EdfSchedule:
    """Starts and drops among n waiting requests, with indexes of these."""

    started: slice | IntArray
    """(m,) started requests, in order of service."""
    served: ServedRequests
    """(m,) their times."""
    dropped: IntArray
    """(k,) dropped requests."""
    dropped_s: FloatArray
    """(k,) times of the drops."""

    @classmethod
    def in_order_of_arrival(cls, served: ServedRequests) -> EdfSchedule:
        """Return the schedule of an FCFS queue."""
        return cls(slice(0, len(served.start_s)), served, _NONE, np.zeros(0))

    def remaining(self, count: int) -> slice | IntArray:
        """Return the indexes of the requests that still wait, of `count` requests."""
        if isinstance(self.started, slice):
            return slice(self.started.stop, None)
        waits = np.ones(count, dtype=np.bool_)
        waits[self.started] = waits[self.dropped] = False
        return np.flatnonzero(waits)


def serve_edf(
    station: Station,
    free_s: list[float],
    arrival_s: FloatArray,
    service_s: FloatArray,
    latest_start_s: FloatArray,
    drops_late: BoolArray,
    until_s: float = math.inf,
) -> EdfSchedule:
    """Serve waiting requests that start before `until_s`, the earliest latest start first.

    Args:
        station: serving station.
        free_s: heap of the times when servers become free; updated in place.
        arrival_s: (n,) arrival times, ascending, all before `until_s`.
        service_s: (n,) unbatched service times.
        latest_start_s: (n,) latest starts; infinite without one.
        drops_late: (n,) whether a request is dropped if it would start later.
        until_s: time from which arrivals are unknown.
    """
    fcfs_free_s = free_s.copy()
    fcfs = serve_fcfs(station, fcfs_free_s, arrival_s, service_s, until_s)
    count, started = len(arrival_s), len(fcfs.start_s)
    if not started:
        return EdfSchedule.in_order_of_arrival(fcfs)
    # Requests that do not start may have to overtake, or be dropped, until the last start.
    start_s = np.concatenate((fcfs.start_s, np.full(count - started, fcfs.start_s[-1])))
    differs = drops_late & (latest_start_s < start_s) & (arrival_s <= start_s)
    differs[:-1] |= (latest_start_s[1:] < latest_start_s[:-1]) & (arrival_s[1:] <= start_s[:-1])
    if not differs.any():
        free_s[:] = fcfs_free_s
        return EdfSchedule.in_order_of_arrival(fcfs)
    again = np.ones(count, dtype=np.bool_)
    if station.servers == 1 and station.batch_size == 1:
        period = np.zeros(count, dtype=np.int64)
        np.cumsum(arrival_s[1:started] > fcfs.end_s[: started - 1], out=period[1:started])
        period[started:] = period[started - 1]
        again = np.bincount(period, differs)[period] > 0
    rows, kept = np.flatnonzero(again), np.flatnonzero(~again[:started])
    edf = _by_events(station, free_s, arrival_s[rows], service_s[rows], latest_start_s[rows], drops_late[rows], until_s)
    if not again[-1]:
        free_s[:] = fcfs_free_s
    times = ServedRequests(
        np.concatenate((fcfs.start_s[kept], edf.served.start_s)),
        np.concatenate((fcfs.end_s[kept], edf.served.end_s)),
        np.concatenate((fcfs.fill[kept], edf.served.fill)),
    )
    order = np.argsort(times.start_s, kind="stable")
    return EdfSchedule(
        np.concatenate((kept, rows[edf.started]))[order],
        ServedRequests(times.start_s[order], times.end_s[order], times.fill[order]),
        rows[edf.dropped],
        edf.dropped_s,
    )


def _by_events(
    station: Station,
    free_s: list[float],
    arrival_s: FloatArray,
    service_s: FloatArray,
    latest_start_s: FloatArray,
    drops_late: BoolArray,
    until_s: float,
) -> EdfSchedule:
    """Serve request by request."""
    count = len(arrival_s)
    number, dropped_s = np.arange(count), np.full(count, np.inf)
    requests = RequestArrays(number, latest_start_s, number, np.zeros(0), dropped_s, np.zeros(count, dtype=np.bool_))
    sums = VisitSums.zeros(np.zeros(2, dtype=np.int64), 1, math.inf)
    block = EventBlock(Stations.of([station], [True]), _visits(service_s), requests, _NO_JOINS, sums, is_watched=True)
    block.state.free_s[:] = free_s
    left = block.advance(VisitArrivals(arrival_s, number, drops_late.astype(np.int64), number), until_s)
    free_s[:] = block.state.free_s.tolist()
    dropped = np.flatnonzero(requests.is_dropped)
    return EdfSchedule(left.request, ServedRequests(left.start_s, left.end_s, left.fill), dropped, dropped_s[dropped])


def _visits(service_s: FloatArray) -> Visits:
    """Return two visits at a station, of which the second drops late requests."""
    zero, none = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.bool_)
    drops_late = np.array([False, True])
    return Visits(zero, zero, service_s, np.zeros(2), drops_late, none, np.zeros(2), np.zeros(3, dtype=np.int64), _NONE,
                  np.zeros(0, dtype=np.bool_), 0, none, NO_TASKS)  # fmt: skip
