"""Interpreted loops of `fcfs`, with the results of the compiled ones, for few requests."""

from __future__ import annotations

from heapq import heapreplace

from circinus.arrays import FloatArray, IntArray


def serve_one_by_one(
    free_s: FloatArray, arrival_s: FloatArray, service_s: FloatArray, until_s: float, start_s: FloatArray
) -> int:
    """Serve requests without batches; see `fcfs_kernel.serve_one_by_one`."""
    heap, starts = free_s.tolist(), []
    for arrived_s, its_service_s in zip(arrival_s.tolist(), service_s.tolist(), strict=True):
        start = max(heap[0], arrived_s)
        if start >= until_s:
            break
        starts.append(start)
        heapreplace(heap, start + its_service_s)
    free_s[:], start_s[: len(starts)] = heap, starts
    return len(starts)


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
    """Serve requests in batches; see `fcfs_kernel.serve_in_batches`."""
    heap, arrivals, work, ratios = free_s.tolist(), arrival_s.tolist(), work_s.tolist(), batch_time_ratios.tolist()
    count, size, head = len(arrivals), len(ratios), 0
    starts: list[float] = []
    ends: list[float] = []
    sizes: list[int] = []
    while head < count:
        limit = min(head + size, count)
        start = arrivals[head] + batch_wait_s
        if limit == head + size:
            start = min(start, arrivals[limit - 1])
        start = max(start, heap[0])
        if start >= until_s:
            break
        end = head + 1
        while end < limit and arrivals[end] <= start:
            end += 1
        batch = end - head
        done = start + ratios[batch - 1] * (work[end] - work[head]) / batch
        heapreplace(heap, done)
        starts += [start] * batch
        ends += [done] * batch
        sizes += [batch] * batch
        head = end
    free_s[:], start_s[:head], end_s[:head], fill[:head] = heap, starts, ends, sizes
    return head
