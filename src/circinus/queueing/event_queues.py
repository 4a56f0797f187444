"""Compiled queues of `event_kernel`: future events, and the waiting requests of each station."""

from __future__ import annotations

import math

from circinus.arrays import IntArray
from circinus.queueing.compiled import inlined
from circinus.queueing.event_arrays import (
    CHILD,
    EVENTS,
    FREE_NODE,
    IN_HEAP,
    IN_LIST,
    LEFT,
    NEXT,
    NODES,
    NUMBER,
    ORDER,
    REQUEST,
    SIBLING,
    STATE,
    VISIT,
    BlockState,
    Buffers,
    RequestArrays,
    Stations,
)

_CHILDREN = 4
"""Children of an event in the heap: four take a tenth less time than two (LaMarca and Ladner, Journal of Experimental
Algorithmics 1, 1996)."""


@inlined
def precedes(
    time_s: float, order: int, visit: int, request: int, time2_s: float, order2: int, visit2: int, request2: int
) -> bool:
    """Return whether an event is before another one."""
    if time_s != time2_s:
        return time_s < time2_s
    if order != order2:
        return order < order2
    return visit < visit2 or (visit == visit2 and request < request2)


@inlined
def push_event(time_s: float, order: int, visit: int, request: int, counters: IntArray, buffers: Buffers) -> None:
    """Add an event."""
    event_s, event, index = buffers.event_s, buffers.event, counters[EVENTS]
    counters[EVENTS] += 1
    while index > 0:
        parent = (index - 1) // _CHILDREN
        if not precedes(
            time_s, order, visit, request, event_s[parent], event[parent, 0], event[parent, 1], event[parent, 2]
        ):
            break
        event_s[index] = event_s[parent]
        event[index, 0], event[index, 1], event[index, 2] = event[parent, 0], event[parent, 1], event[parent, 2]
        index = parent
    event_s[index] = time_s
    event[index, 0], event[index, 1], event[index, 2] = order, visit, request


@inlined
def pop_event(counters: IntArray, buffers: Buffers) -> None:
    """Remove the first event."""
    event_s, event = buffers.event_s, buffers.event
    counters[EVENTS] -= 1
    size, index = counters[EVENTS], 0
    time_s, order, visit, request = event_s[size], event[size, 0], event[size, 1], event[size, 2]
    while True:
        child = _CHILDREN * index + 1
        if child >= size:
            break
        child_s = event_s[child]
        for other in range(child + 1, min(child + _CHILDREN, size)):
            other_s = event_s[other]
            if other_s == child_s:
                if precedes(
                    other_s, event[other, 0], event[other, 1], event[other, 2],
                    child_s, event[child, 0], event[child, 1], event[child, 2],
                ):  # fmt: skip
                    child = other
            else:  # without a branch, which would be mispredicted half of the time
                child = other if other_s < child_s else child
                child_s = min(other_s, child_s)
        if not precedes(
            event_s[child], event[child, 0], event[child, 1], event[child, 2], time_s, order, visit, request
        ):
            break
        event_s[index] = event_s[child]
        event[index, 0], event[index, 1], event[index, 2] = event[child, 0], event[child, 1], event[child, 2]
        index = child
    event_s[index] = time_s
    event[index, 0], event[index, 1], event[index, 2] = order, visit, request


@inlined
def put(
    station: int,
    time_s: float,
    order: int,
    visit: int,
    request: int,
    latest_s: float,
    drops_late: bool,
    state: BlockState,
    buffers: Buffers,
) -> None:
    """Add a request to a station's queue."""
    counters, node = state.counters, buffers.node
    index = counters[FREE_NODE]
    if index >= 0:
        counters[FREE_NODE] = node[index, NEXT]
    else:
        index = counters[NODES]
        counters[NODES] += 1
    buffers.node_s[index, 0], buffers.node_s[index, 1] = time_s, latest_s
    node[index, NUMBER], node[index, ORDER] = state.arrived[station], order
    node[index, VISIT], node[index, REQUEST] = visit, request
    node[index, NEXT] = node[index, CHILD] = node[index, SIBLING] = -1
    node[index, STATE] = IN_LIST | IN_HEAP
    state.arrived[station] += 1
    if state.first_waiting[station] < 0:
        state.first_waiting[station] = index
    else:
        node[state.last_waiting[station], NEXT] = index
    state.last_waiting[station] = index
    state.waiting[station] += 1
    heap = state.droppable if drops_late else state.answered
    heap[station] = index if heap[station] < 0 else merged(heap[station], index, buffers)


@inlined
def is_earlier(first: int, second: int, buffers: Buffers) -> bool:
    """Return whether a request starts before another by latest start, then by arrival."""
    latest_s, latest2_s = buffers.node_s[first, 1], buffers.node_s[second, 1]
    if latest_s != latest2_s:
        return bool(latest_s < latest2_s)
    return bool(buffers.node[first, NUMBER] < buffers.node[second, NUMBER])


@inlined
def merged(first: int, second: int, buffers: Buffers) -> int:
    """Merge two pairing heaps; return the root."""
    if is_earlier(second, first, buffers):
        first, second = second, first
    buffers.node[second, SIBLING] = buffers.node[first, CHILD]
    buffers.node[first, CHILD] = second
    return first


@inlined
def pop_node(heap: IntArray, station: int, buffers: Buffers) -> int:
    """Remove the first request of a heap."""
    node, root = buffers.node, heap[station]
    pairs, child = -1, node[root, CHILD]
    while child >= 0:
        second = node[child, SIBLING]
        if second < 0:
            tree, following = child, -1
        else:
            following = node[second, SIBLING]
            tree = merged(child, second, buffers)
        node[tree, SIBLING] = pairs
        pairs, child = tree, following
    remaining = -1
    while pairs >= 0:
        following = node[pairs, SIBLING]
        remaining = pairs if remaining < 0 else merged(remaining, pairs, buffers)
        pairs = following
    if remaining >= 0:
        node[remaining, SIBLING] = -1
    heap[station] = remaining
    return int(root)


@inlined
def release(index: int, place: int, state: BlockState, buffers: Buffers) -> None:
    """Note that a request left the list or the heap; free its node if it left both."""
    node = buffers.node
    node[index, STATE] &= ~place
    if not node[index, STATE] & (IN_LIST | IN_HEAP):
        node[index, NEXT] = state.counters[FREE_NODE]
        state.counters[FREE_NODE] = index


@inlined
def next_start_s(
    station: int, stations: Stations, requests: RequestArrays, state: BlockState, buffers: Buffers
) -> float:
    """Return when the next batch starts if no request arrives; infinity if none waits."""
    node, node_s = buffers.node, buffers.node_s
    first = state.first_waiting[station]
    while first >= 0:
        has_left = node[first, STATE] & LEFT != 0
        if not has_left and not requests.is_dropped[node[first, REQUEST]]:
            break
        following = node[first, NEXT]
        if has_left:
            state.left[station] -= 1
        state.waiting[station] -= 1
        release(first, IN_LIST, state, buffers)
        first = following
    state.first_waiting[station] = first
    if first < 0:
        state.last_waiting[station] = -1
        return math.inf
    free_s = state.free_s[stations.first_server[station]]
    start_s = node_s[first, 0] + stations.batch_wait_s[station]
    batch_size = stations.first_ratio[station + 1] - stations.first_ratio[station]
    if free_s < start_s and state.waiting[station] >= batch_size:
        missing, index = batch_size, first
        while index >= 0:
            if not node[index, STATE] & LEFT and not requests.is_dropped[node[index, REQUEST]]:
                missing -= 1
                if missing == 0:
                    start_s = min(start_s, node_s[index, 0])
                    break
            index = node[index, NEXT]
    return float(max(free_s, start_s))
