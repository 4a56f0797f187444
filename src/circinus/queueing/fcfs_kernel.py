"""Compiled loops of `fcfs`."""

from __future__ import annotations

from circinus.arrays import FloatArray, IntArray
from circinus.queueing.compiled import compiled, inlined


@inlined
def replace_earliest(heap: FloatArray, first: int, end: int, value: float) -> None:
    """Replace the smallest of the values of a heap at indexes from `first` to before `end`."""
    size, index = end - first, 0
    while True:
        child = 2 * index + 1
        if child >= size:
            break
        if child + 1 < size and heap[first + child + 1] < heap[first + child]:
            child += 1
        if heap[first + child] >= value:
            break
        heap[first + index] = heap[first + child]
        index = child
    heap[first + index] = value


@compiled
def serve_one_by_one(
    free_s: FloatArray, arrival_s: FloatArray, service_s: FloatArray, until_s: float, start_s: FloatArray
) -> int:
    """Serve requests in order of arrival, without batches.

    Args:
        free_s: (servers,) heap of the times when servers become free, updated.
        arrival_s: (n,) arrival times, ascending.
        service_s: (n,) service times.
        until_s: time before which requests start.
        start_s: (n,) start times, updated.

    Returns:
        Number of started requests.
    """
    for index in range(len(arrival_s)):
        start = max(free_s[0], arrival_s[index])
        if start >= until_s:
            return index
        start_s[index] = start
        replace_earliest(free_s, 0, len(free_s), start + service_s[index])
    return len(arrival_s)


@compiled
def serve_in_batches(
    free_s: FloatArray,
    arrival_s: FloatArray,
    work_s: FloatArray,
    batch_time_ratios: FloatArray,
    batch_wait_s: float,
    until_s: float,
    start_s: FloatArray,
    end_s: FloatArray,
    fill: IntArray,
) -> int:
    """Serve requests in order of arrival in batches; see `serve_one_by_one`.

    Args:
        free_s: (servers,) heap of the times when servers become free, updated.
        arrival_s: (n,) arrival times, ascending.
        work_s: (n + 1,) sums of the unbatched service times of the requests before.
        batch_time_ratios: see `Station`.
        batch_wait_s: see `Station`.
        until_s: time before which requests start.
        start_s: (n,) start times, updated.
        end_s: (n,) end times, updated.
        fill: (n,) sizes of the requests' batches, updated.

    Returns:
        Number of started requests.
    """
    count, size, head = len(arrival_s), len(batch_time_ratios), 0
    while head < count:
        limit = head + size
        start = arrival_s[head] + batch_wait_s
        if batch_wait_s > 0 and limit <= count and arrival_s[limit - 1] < start:
            start = arrival_s[limit - 1]
        start = max(start, free_s[0])
        if start >= until_s:
            break
        end = head + 1
        while end < min(limit, count) and arrival_s[end] <= start:
            end += 1
        batch = end - head
        done = start + batch_time_ratios[batch - 1] * (work_s[end] - work_s[head]) / batch
        replace_earliest(free_s, 0, len(free_s), done)
        for index in range(head, end):
            start_s[index], end_s[index], fill[index] = start, done, batch
        head = end
    return head
