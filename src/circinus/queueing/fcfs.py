"""First-come-first-served queues with several servers and batches.

Recursions over all requests at once, as long as no request depends on later events at the same station. For a single
server without batches the recursion of Lindley (Proceedings of the Cambridge Philosophical Society 48, 1952) is a
running maximum and needs no loop. Otherwise a heap has the times when servers become free (Kiefer and Wolfowitz,
Transactions of the AMS 78, 1955), with one step per request or batch.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Station:
    """Equal servers behind one queue: the replicas of a deployment, or one direction of a link.

    A free server takes a batch. If a is the arrival of the oldest waiting request and f that of the request that fills
    the batch, it starts at min(a + wait, f), or later when a server becomes free, with the first of the requests that
    have arrived: in order of arrival (FCFS), or of latest starts (EDF).
    """

    name: str
    servers: int
    batch_time_ratios: tuple[float, ...] = (1.0,)
    """(batch size,) time of a batch of 1, 2, ... relative to the mean unbatched time of its requests."""
    batch_wait_s: float = 0.0
    """Maximum wait of the oldest request for its batch to fill."""

    @property
    def batch_size(self) -> int:
        return len(self.batch_time_ratios)


@dataclass(frozen=True, eq=False)
class ServedRequests:
    """Started requests, which are the first ones of the waiting requests."""

    start_s: FloatArray
    """(m,) start times, m <= n."""
    end_s: FloatArray
    """(m,) end times."""
    fill: IntArray
    """(m,) size of the request's batch."""


def serve_fcfs(
    station: Station, free_s: list[float], arrival_s: FloatArray, service_s: FloatArray, until_s: float = math.inf
) -> ServedRequests:
    """Serve waiting requests that start before `until_s`.

    Args:
        free_s: heap of the times when servers become free; updated in place.
        arrival_s: (n,) arrival times, ascending, all before `until_s`.
        service_s: (n,) unbatched service times.
        until_s: time from which arrivals are unknown.
    """
    if station.batch_size > 1:
        return _in_batches(station, free_s, arrival_s, service_s, until_s)
    single_s = service_s * station.batch_time_ratios[0]
    if station.servers == 1:
        start_s = _one_server(free_s[0], arrival_s, single_s)
        count = int(np.searchsorted(start_s, until_s)) if math.isfinite(until_s) else len(start_s)
        start_s = start_s[:count]
        if count:
            free_s[0] = float(start_s[-1] + single_s[count - 1])
    else:
        start_s = _several_servers(free_s, arrival_s, single_s, until_s)
    end_s = start_s + single_s[: len(start_s)]
    return ServedRequests(start_s, end_s, np.ones(len(start_s), dtype=np.int64))


def _one_server(free_s: float, arrival_s: FloatArray, service_s: FloatArray) -> FloatArray:
    previous_work_s = np.concatenate(([0.0], np.cumsum(service_s)[:-1])) if len(service_s) else service_s
    slack_s = arrival_s - previous_work_s
    if len(slack_s):
        slack_s[0] = max(slack_s[0], free_s)
    start_s = np.maximum.accumulate(slack_s) + previous_work_s
    return np.asarray(np.maximum(start_s, arrival_s))  # rounding may move a start before its arrival


def _several_servers(free_s: list[float], arrival_s: FloatArray, service_s: FloatArray, until_s: float) -> FloatArray:
    starts: list[float] = []
    append_start, replace = starts.append, heapq.heapreplace
    for arrival, service in zip(arrival_s.tolist(), service_s.tolist(), strict=True):
        start = free_s[0]
        if start < arrival:
            start = arrival
        if start >= until_s:
            break
        append_start(start)
        replace(free_s, start + service)
    return np.array(starts, dtype=np.float64)


def _in_batches(
    station: Station, free_s: list[float], arrival_s: FloatArray, service_s: FloatArray, until_s: float
) -> ServedRequests:
    size, wait, ratios = station.batch_size, station.batch_wait_s, (0.0, *station.batch_time_ratios)
    arrivals = arrival_s.tolist()
    sums = [0.0, *np.cumsum(service_s).tolist()]
    starts: list[float] = []
    ends: list[float] = []
    batch_sizes: list[int] = []
    count, head, replace = len(arrivals), 0, heapq.heapreplace
    while head < count:
        limit = head + size
        start = arrivals[head] + wait
        if wait and limit <= count and arrivals[limit - 1] < start:
            start = arrivals[limit - 1]
        if start < free_s[0]:
            start = free_s[0]
        if start >= until_s:
            break
        if limit > count:
            limit = count
        end = head + 1
        while end < limit and arrivals[end] <= start:
            end += 1
        batch_size = end - head
        end_s = start + ratios[batch_size] * (sums[end] - sums[head]) / batch_size
        replace(free_s, end_s)
        starts.append(start)
        ends.append(end_s)
        batch_sizes.append(batch_size)
        head = end
    batch_size_of = np.array(batch_sizes, dtype=np.int64)
    return ServedRequests(
        np.repeat(np.array(starts, dtype=np.float64), batch_size_of),
        np.repeat(np.array(ends, dtype=np.float64), batch_size_of),
        np.repeat(batch_size_of, batch_size_of),
    )
