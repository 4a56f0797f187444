"""First-come-first-served queues with several servers and batches.

Recursions over all requests at once, as long as no request depends on later events at the same station. For a single
server without batches the recursion of Lindley (Proceedings of the Cambridge Philosophical Society 48, 1952) is a
running maximum and needs no loop. Otherwise a heap has the times when servers become free (Kiefer and Wolfowitz,
Transactions of the AMS 78, 1955), with one step per request or batch.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.queueing import fcfs_loops

_MAX_INTERPRETED = 300_000
"""Maximum number of requests that a process serves with interpreted loops."""
_interpreted = 0


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
    heap, start_s = np.array(free_s), np.empty(len(arrival_s))
    count = _loops(len(arrival_s)).serve_one_by_one(heap, arrival_s, service_s, until_s, start_s)
    free_s[:] = heap.tolist()
    return start_s[:count]


def _in_batches(
    station: Station, free_s: list[float], arrival_s: FloatArray, service_s: FloatArray, until_s: float
) -> ServedRequests:
    heap, count = np.array(free_s), len(arrival_s)
    work_s, ratios = np.concatenate(([0.0], np.cumsum(service_s))), np.array(station.batch_time_ratios)
    start_s, end_s, fill = np.empty(count), np.empty(count), np.empty(count, dtype=np.int64)
    serve = _loops(count).serve_in_batches
    count = serve(heap, arrival_s, work_s, ratios, station.batch_wait_s, until_s, start_s, end_s, fill)
    free_s[:] = heap.tolist()
    return ServedRequests(start_s[:count], end_s[:count], fill[:count])


def are_compiled_loops_loaded() -> bool:
    """Return whether compiled functions are at hand, as loading them takes longer than most of their uses."""
    return "circinus.queueing.fcfs_kernel" in sys.modules


def _loops(requests: int) -> ModuleType:
    """Return the module of loops to serve requests with: compiled ones once they pay.

    Loading them takes a quarter of a second, in which the interpreted ones serve 300,000 requests.
    """
    global _interpreted
    if are_compiled_loops_loaded() or _interpreted + requests > _MAX_INTERPRETED:
        from circinus.queueing import fcfs_kernel

        return fcfs_kernel
    _interpreted += requests
    return fcfs_loops
