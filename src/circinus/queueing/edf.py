"""Queues in order of latest starts: earliest deadline first, with deadlines for the start of service.

This is least slack first, too: the slack of a request is its latest start minus the time, which is the same for all.

Requests overtake only those that wait at the same time, so that the order is that of arrival unless a request waits
behind one with a later latest start, or is dropped. Without batches, every order that keeps a single server busy has
the busy periods of FCFS (Kleinrock, Queueing Systems II, 1976, chapter 3), and drops only shorten them: only the busy
periods concerned are served again, request by request.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.queueing.fcfs import ServedRequests, Station, serve_fcfs

T = TypeVar("T")


class EdfQueue(Generic[T]):
    """Queue of a station, whose requests with the earliest latest starts form the next batch."""

    def __init__(self, station: Station, is_cancelled: Callable[[T], bool] = lambda _: False) -> None:
        """Create an empty queue.

        Args:
            station: the station.
            is_cancelled: predicate for requests to ignore.
        """
        self._batch_size = station.batch_size
        self._batch_wait_s = station.batch_wait_s if station.batch_size > 1 else 0.0
        self._is_cancelled = is_cancelled
        self._waiting: deque[tuple[float, int, T]] = deque()
        """(arrival time, number, request) in order of arrival, with requests that left before older ones."""
        self._left: set[int] = set()
        """Numbers of the requests in `_waiting` that left."""
        self._answered: list[tuple[float, int, T]] = []
        """Heap of (latest start, number, request), without those that may be dropped."""
        self._droppable: list[tuple[float, int, T]] = []
        """Heap of (latest start, number, request) that may be dropped."""
        self._arrived = 0

    def __len__(self) -> int:
        return len(self._waiting) - len(self._left)

    def put(self, request: T, arrival_s: float, latest_start_s: float, drops_late: bool) -> None:
        """Add a request, in order of arrival."""
        number = self._arrived
        self._arrived = number + 1
        self._waiting.append((arrival_s, number, request))
        heapq.heappush(self._droppable if drops_late else self._answered, (latest_start_s, number, request))

    def next_start_s(self, free_s: float) -> float:
        """Return when a server that is free at `free_s` starts if no request arrives; infinity if none waits."""
        waiting, left = self._waiting, self._left
        while waiting and (waiting[0][1] in left or self._is_cancelled(waiting[0][2])):
            left.discard(waiting.popleft()[1])
        if not waiting:
            return math.inf
        start_s = waiting[0][0] + self._batch_wait_s
        if free_s < start_s and len(waiting) >= self._batch_size:
            arrivals_s = (
                arrival_s for arrival_s, number, its in waiting if number not in left and not self._is_cancelled(its)
            )
            start_s = min(start_s, next(islice(arrivals_s, self._batch_size - 1, None), math.inf))
        return max(free_s, start_s)

    def take(self, start_s: float) -> tuple[list[T], list[T]]:
        """Remove the late requests, after which the next start may change, or the batch that starts at `start_s`.

        Returns:
            The requests of the batch, and the late requests to drop.
        """
        answered, droppable = self._answered, self._droppable
        batch: list[T] = []
        late: list[T] = []
        while droppable and droppable[0][0] < start_s:
            self._move(droppable, late)
        while not late and len(batch) < self._batch_size and (answered or droppable):
            is_first = answered and not (droppable and droppable[0] < answered[0])
            self._move(answered if is_first else droppable, batch)
        return batch, late

    def _move(self, heap: list[tuple[float, int, T]], target: list[T]) -> None:
        """Move the first request of a heap unless it is cancelled."""
        _, number, request = heapq.heappop(heap)
        if not self._is_cancelled(request):
            self._left.add(number)
            target.append(request)


_NONE: IntArray = np.zeros(0, dtype=np.int64)


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
    columns = [column[rows].tolist() for column in (arrival_s, service_s, latest_start_s)]
    if drops_late.any() or (station.batch_size > 1 and station.batch_wait_s):
        edf = _with_queue(station, free_s, until_s, drops_late[rows].tolist(), *columns)
    else:
        edf = _at_once(station, free_s, until_s, *columns)
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


def _at_once(
    station: Station,
    free_s: list[float],
    until_s: float,
    arrivals_s: list[float],
    services_s: list[float],
    latest_starts_s: list[float],
) -> EdfSchedule:
    """Serve request by request, without drops or waits for batches to fill, in a third of the time of an `EdfQueue`."""
    count, size, ratios = len(arrivals_s), station.batch_size, station.batch_time_ratios
    heap: list[tuple[float, int]] = []
    order: list[int] = []
    batches: list[tuple[float, float, int]] = []
    push, pop, replace = heapq.heappush, heapq.heappop, heapq.heapreplace
    arrived, now_s = 0, 0.0
    while heap or arrived < count:
        if not heap:
            now_s = arrivals_s[arrived]
        if now_s < free_s[0]:
            now_s = free_s[0]
        if now_s >= until_s:
            break
        while arrived < count and arrivals_s[arrived] <= now_s:
            push(heap, (latest_starts_s[arrived], arrived))
            arrived += 1
        if size == 1:
            index = pop(heap)[1]
            order.append(index)
            end_s, fill = now_s + services_s[index] * ratios[0], 1
        else:
            batch = [pop(heap)[1] for _ in range(min(size, len(heap)))]
            order += batch
            fill = len(batch)
            end_s = now_s + ratios[fill - 1] * sum([services_s[index] for index in batch]) / fill
        replace(free_s, end_s)
        batches.append((now_s, end_s, fill))
    return EdfSchedule(np.array(order, dtype=np.int64), _served(batches), _NONE, np.zeros(0))


def _with_queue(
    station: Station,
    free_s: list[float],
    until_s: float,
    drops_late: list[bool],
    arrivals_s: list[float],
    services_s: list[float],
    latest_starts_s: list[float],
) -> EdfSchedule:
    """Serve request by request."""
    queue = EdfQueue[int](station)
    count, next_arrival, ratios = len(arrivals_s), 0, station.batch_time_ratios
    order: list[int] = []
    batches: list[tuple[float, float, int]] = []
    dropped: list[int] = []
    dropped_s: list[float] = []
    while True:
        start_s = queue.next_start_s(free_s[0])
        if next_arrival < count and (arrival_s := arrivals_s[next_arrival]) <= start_s:
            queue.put(next_arrival, arrival_s, latest_starts_s[next_arrival], drops_late[next_arrival])
            next_arrival += 1
            continue
        if start_s >= until_s:
            break
        batch, late = queue.take(start_s)
        if late:
            dropped += late
            dropped_s += [start_s] * len(late)
            continue
        end_s = start_s + ratios[len(batch) - 1] * sum([services_s[index] for index in batch]) / len(batch)
        heapq.heapreplace(free_s, end_s)
        order += batch
        batches.append((start_s, end_s, len(batch)))
    return EdfSchedule(
        np.array(order, dtype=np.int64), _served(batches), np.array(dropped, dtype=np.int64), np.array(dropped_s)
    )


def _served(batches: list[tuple[float, float, int]]) -> ServedRequests:
    """Return the requests of batches, given as (start, end, size)."""
    starts_s, ends_s, sizes = np.array(batches, dtype=np.float64).reshape(-1, 3).T
    fill = sizes.astype(np.int64)
    return ServedRequests(np.repeat(starts_s, fill), np.repeat(ends_s, fill), np.repeat(fill, fill))
