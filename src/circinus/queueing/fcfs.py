"""Who is served when: first come, first served, by several servers, in batches.

Recursions over all requests at once, as long as none depends on what the same station does later. For a single server
without batches the recursion of Lindley (Proceedings of the Cambridge Philosophical Society 48, 1952) is a running
maximum and needs no loop; otherwise the servers' free times are kept in a heap (Kiefer and Wolfowitz, Transactions of
the AMS 78, 1955), one step a request or batch.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.station import Station


@dataclass(frozen=True, eq=False)
class ServedRequests:
    """The requests that began, which are the first ones of those that were waiting."""

    start_s: FloatArray
    """(m,) m <= n."""
    end_s: FloatArray
    """(m,)"""
    fill: IntArray
    """(m,) how many were in the same batch."""


def serve_fcfs(
    station: Station, free_s: list[float], arrival_s: FloatArray, service_s: FloatArray, until_s: float = math.inf
) -> ServedRequests:
    """Serve waiting requests as long as they begin before `until_s`.

    Args:
        station: serves.
        free_s: heap of the times from which the servers are free; changed to what it is afterwards.
        arrival_s: (n,) ascending, all before `until_s`.
        service_s: (n,) seconds of each request alone.
        until_s: nothing is known of arrivals from then on.
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
    before_s = np.concatenate(([0.0], np.cumsum(service_s)[:-1])) if len(service_s) else service_s
    slack_s = arrival_s - before_s
    if len(slack_s):
        slack_s[0] = max(slack_s[0], free_s)
    start_s = np.maximum.accumulate(slack_s) + before_s
    return np.asarray(np.maximum(start_s, arrival_s))  # rounding may have put a start before its arrival


def _several_servers(free_s: list[float], arrival_s: FloatArray, service_s: FloatArray, until_s: float) -> FloatArray:
    starts: list[float] = []
    began, replace = starts.append, heapq.heapreplace
    for arrival, service in zip(arrival_s.tolist(), service_s.tolist(), strict=True):
        start = free_s[0]
        if start < arrival:
            start = arrival
        if start >= until_s:
            break
        began(start)
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
    fills: list[int] = []
    count, first, replace = len(arrivals), 0, heapq.heapreplace
    while first < count:
        last = first + size
        start = arrivals[first] + wait
        if wait and last <= count and arrivals[last - 1] < start:
            start = arrivals[last - 1]
        if start < free_s[0]:
            start = free_s[0]
        if start >= until_s:
            break
        if last > count:
            last = count
        end = first + 1
        while end < last and arrivals[end] <= start:
            end += 1
        fill = end - first
        done = start + ratios[fill] * (sums[end] - sums[first]) / fill
        replace(free_s, done)
        starts.append(start)
        ends.append(done)
        fills.append(fill)
        first = end
    fill_of = np.array(fills, dtype=np.int64)
    return ServedRequests(
        np.repeat(np.array(starts, dtype=np.float64), fill_of),
        np.repeat(np.array(ends, dtype=np.float64), fill_of),
        np.repeat(fill_of, fill_of),
    )
