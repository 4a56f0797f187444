"""Stations simulated together event by event, compiled with Numba.

Requests that may overtake others or wait for a batch to fill need events, and all requests where some come back to a
station; others are served by recursions over arrays (`fcfs`). In Python, an event took some microseconds, and checks of
plans most of the time of planning. The reference in Python is in `tests/simulation/python_stations.py`; both agree to
the last bit.
"""

from __future__ import annotations

import numpy as np

from circinus.arrays import IntArray
from circinus.queueing.compiled import compiled, inlined
from circinus.queueing.event_arrays import (
    BATCH_ORDER,
    DEPARTURES,
    EVENTS,
    FREE_NODE,
    IN_HEAP,
    LEFT,
    NODES,
    REQUEST,
    SCHEDULED,
    SIBLING,
    STARTING,
    STATE,
    VISIT,
    BlockState,
    Buffers,
    JoinArrays,
    RequestArrays,
    Stations,
    VisitArrivals,
    Visits,
)
from circinus.queueing.event_queues import (
    is_earlier,
    next_start_s,
    pop_event,
    pop_node,
    precedes,
    push_event,
    put,
    release,
)
from circinus.queueing.fcfs_kernel import replace_earliest
from circinus.queueing.service_record import ServiceRecord, VisitSums


@compiled
def advance(
    stations: Stations,
    visits: Visits,
    requests: RequestArrays,
    joins: JoinArrays,
    state: BlockState,
    buffers: Buffers,
    record: ServiceRecord,
    entries: VisitArrivals,
    first_entry: int,
    until_s: float,
) -> int:
    """Process events before `until_s`.

    Args:
        stations: stations of the block; visits refer to their indexes.
        visits: all visits.
        requests: all requests.
        joins: inputs at joins.
        state: updated.
        buffers: updated.
        record: updated.
        entries: new arrivals from outside.
        first_entry: index of the first of them that was not processed.
        until_s: time from which arrivals are unknown.

    Returns:
        Index of the next entry if buffers or the departures of the record are full, or -1 at the end.
    """
    counters = state.counters
    count, entry = len(entries.time_s), first_entry
    while True:
        if not _has_room(stations, visits, counters, buffers, record):
            return entry
        station = counters[STARTING]
        if station >= 0:
            if not _start_batches(station, stations, visits, requests, joins, state, buffers, record):
                return entry
            continue
        has_entry = entry < count
        has_event = counters[EVENTS] > 0
        takes_event = has_event and (
            not has_entry
            or precedes(
                buffers.event_s[0], buffers.event[0, 0], buffers.event[0, 1], buffers.event[0, 2],
                entries.time_s[entry], entries.order[entry], entries.visit[entry], entries.request[entry],
            )
        )  # fmt: skip
        if takes_event:
            time_s, order, visit, request = (
                buffers.event_s[0],
                buffers.event[0, 0],
                buffers.event[0, 1],
                buffers.event[0, 2],
            )
            if time_s >= until_s:
                return -1
            pop_event(counters, buffers)
        elif has_entry:
            time_s, order, visit, request = (
                entries.time_s[entry], entries.order[entry], entries.visit[entry], entries.request[entry],
            )  # fmt: skip
            entry += 1
        else:
            return -1
        if order == BATCH_ORDER:
            if time_s == state.scheduled_s[request]:  # not superseded by an earlier start of a full batch
                counters[STARTING] = request
            continue
        if requests.is_dropped[request] and not visits.continues[visit]:
            continue
        station = visits.station[visit]
        first_server, end_server = stations.first_server[station], stations.first_server[station + 1]
        if stations.has_queue[station]:
            latest_s = requests.entered_s[request] + visits.latest_start_s[visit]
            is_last = (entry >= count or entries.time_s[entry] > time_s) and not (
                counters[EVENTS] > 0 and buffers.event_s[0] == time_s
            )
            is_late = visits.drops_late[visit] and latest_s < time_s
            starts_at_once = (
                stations.first_ratio[station + 1] - stations.first_ratio[station] == 1
                and state.free_s[first_server] <= time_s
                and state.waiting[station] == state.left[station]
            )
            if is_late or not is_last or not starts_at_once:
                put(station, time_s, order, visit, request, latest_s, visits.drops_late[visit], state, buffers)
                if state.scheduled_s[station] == np.inf or stations.batch_wait_s[station] > 0:
                    _schedule(station, stations, requests, state, buffers)
                continue
        start_s = max(state.free_s[first_server], time_s)
        ratio = stations.batch_time_ratios[stations.first_ratio[station]]
        end_s = start_s + visits.service_s[visits.first_service[visit] + requests.items[request]] * ratio
        replace_earliest(state.free_s, first_server, end_server, end_s)
        _leave(station, time_s, visit, request, start_s, end_s, 1, visits, requests, joins, state, buffers, record)


@inlined
def _has_room(stations: Stations, visits: Visits, counters: IntArray, buffers: Buffers, record: ServiceRecord) -> bool:
    """Return whether there is room for an arrival, and for a batch."""
    size, batch = len(buffers.event_s), stations.largest_batch
    return bool(
        counters[EVENTS] + batch * visits.most_targets + 1 < size
        and counters[DEPARTURES] + batch < len(record.departures.visit)
        and (counters[FREE_NODE] >= 0 or counters[NODES] < size)
    )


@inlined
def _schedule(station: int, stations: Stations, requests: RequestArrays, state: BlockState, buffers: Buffers) -> None:
    """Schedule the next possible batch start, unless an earlier one is scheduled."""
    start_s = next_start_s(station, stations, requests, state, buffers)
    if start_s < state.scheduled_s[station]:
        state.scheduled_s[station] = start_s
        push_event(start_s, BATCH_ORDER, state.counters[SCHEDULED], station, state.counters, buffers)
        state.counters[SCHEDULED] += 1


@inlined
def _start_batches(
    station: int,
    stations: Stations,
    visits: Visits,
    requests: RequestArrays,
    joins: JoinArrays,
    state: BlockState,
    buffers: Buffers,
    record: ServiceRecord,
) -> bool:
    """Start all batches that start at the scheduled time; return False if the buffers are full before the last."""
    node, now_s = buffers.node, state.scheduled_s[station]
    first_server, end_server = stations.first_server[station], stations.first_server[station + 1]
    first_ratio = stations.first_ratio[station]
    batch_size = stations.first_ratio[station + 1] - first_ratio
    batch = state.batch
    while next_start_s(station, stations, requests, state, buffers) <= now_s:
        if not _has_room(stations, visits, state.counters, buffers, record):
            return False
        if _drop_late(station, now_s, requests, state, buffers):
            continue
        fill = 0
        while fill < batch_size and (state.answered[station] >= 0 or state.droppable[station] >= 0):
            answered, droppable = state.answered[station], state.droppable[station]
            is_first = answered >= 0 and not (droppable >= 0 and is_earlier(droppable, answered, buffers))
            index = pop_node(state.answered if is_first else state.droppable, station, buffers)
            if requests.is_dropped[node[index, REQUEST]]:
                release(index, IN_HEAP, state, buffers)
                continue
            node[index, STATE] |= LEFT
            state.left[station] += 1
            batch[fill] = index
            fill += 1
        if not fill:
            continue
        unbatched_s = 0.0
        for position in range(fill):
            visit, request = node[batch[position], VISIT], node[batch[position], REQUEST]
            unbatched_s += visits.service_s[visits.first_service[visit] + requests.items[request]]
        end_s = now_s + stations.batch_time_ratios[first_ratio + fill - 1] * unbatched_s / fill
        replace_earliest(state.free_s, first_server, end_server, end_s)
        for position in range(fill):
            index = batch[position]
            visit, request = node[index, VISIT], node[index, REQUEST]
            _leave(
                station,
                buffers.node_s[index, 0],
                visit,
                request,
                now_s,
                end_s,
                fill,
                visits,
                requests,
                joins,
                state,
                buffers,
                record,
            )
            release(index, IN_HEAP, state, buffers)
    state.scheduled_s[station] = np.inf
    state.counters[STARTING] = -1
    _schedule(station, stations, requests, state, buffers)
    return True


@inlined
def _drop_late(station: int, now_s: float, requests: RequestArrays, state: BlockState, buffers: Buffers) -> bool:
    """Drop the requests that would start too late; return whether there were any."""
    node, late = buffers.node, -1
    while state.droppable[station] >= 0 and buffers.node_s[state.droppable[station], 1] < now_s:
        index = pop_node(state.droppable, station, buffers)
        if requests.is_dropped[node[index, REQUEST]]:
            release(index, IN_HEAP, state, buffers)
        else:
            node[index, STATE] |= LEFT
            state.left[station] += 1
            node[index, SIBLING] = late
            late = index
    any_late = late >= 0
    while late >= 0:
        following = node[late, SIBLING]
        _drop(node[late, REQUEST], now_s, requests)
        release(late, IN_HEAP, state, buffers)
        late = following
    return any_late


@inlined
def _drop(token: int, now_s: float, requests: RequestArrays) -> None:
    """Drop the request of a token, with all its tokens."""
    if requests.is_dropped[token]:
        return  # with another of its tokens
    request = requests.request_of[token]
    requests.dropped_s[request] = now_s
    while token > 0 and requests.request_of[token - 1] == request:
        token -= 1
    while token < len(requests.request_of) and requests.request_of[token] == request:
        requests.is_dropped[token] = True
        token += 1


@inlined
def _leave(
    station: int,
    time_s: float,
    visit: int,
    request: int,
    start_s: float,
    end_s: float,
    fill: int,
    visits: Visits,
    requests: RequestArrays,
    joins: JoinArrays,
    state: BlockState,
    buffers: Buffers,
    record: ServiceRecord,
) -> None:
    """Record a departure, and schedule the next visits of the request."""
    order = state.served[station]
    state.served[station] += 1
    _add(station, time_s, visit, request, start_s, end_s, fill, record.sums)
    if record.is_watched:
        departures, row = record.departures, state.counters[DEPARTURES]
        state.counters[DEPARTURES] += 1
        departures.visit[row], departures.request[row], departures.time_s[row] = visit, request, time_s
        departures.order[row], departures.fill[row] = order, fill
        departures.start_s[row], departures.end_s[row] = start_s, end_s
    for edge in range(visits.first_target[visit], visits.first_target[visit + 1]):
        target, target_order, arrival_s = visits.targets[edge], order, end_s + visits.delay_s[visit]
        if visits.is_join[edge]:
            slot = joins.offset[target] + request
            if not completes(joins, slot, arrival_s, order):
                continue
            arrival_s, target_order = joins.latest_s[slot], joins.order[slot]
        if target < len(visits.station):
            push_event(arrival_s, target_order, target, request, state.counters, buffers)
        else:
            requests.done_s[requests.request_of[request]] = arrival_s
    if visits.has_tasks[visit]:
        _leave_task(order, request, end_s, visits, requests, joins, state, buffers)


@inlined
def _leave_task(
    order: int,
    token: int,
    end_s: float,
    visits: Visits,
    requests: RequestArrays,
    joins: JoinArrays,
    state: BlockState,
    buffers: Buffers,
) -> None:
    """Schedule the tasks that wait for the end of a task."""
    tasks, task = visits.tasks, requests.items[token]
    for edge in range(tasks.first_edge[task], tasks.first_edge[task + 1]):
        target, target_token = task + tasks.step[edge], token + tasks.step[edge]
        target_order, arrival_s = order, end_s + tasks.delay_s[edge]
        if tasks.inputs[target] > 1:
            slot = tasks.first_slot + target_token
            if not completes(joins, slot, arrival_s, order):
                continue
            arrival_s, target_order = joins.latest_s[slot], joins.order[slot]
        visit = tasks.visit[target]
        if visit < len(visits.station):
            push_event(arrival_s, target_order, visit, target_token, state.counters, buffers)
        else:
            requests.done_s[requests.request_of[target_token]] = arrival_s


@inlined
def _add(
    station: int, time_s: float, visit: int, request: int, start_s: float, end_s: float, fill: int, sums: VisitSums
) -> None:
    """Add a served request to the sums."""
    wait_s, share = start_s - time_s, 1.0 / fill
    sums.station_requests[station] += 1.0
    sums.station_wait_s[station] += wait_s
    sums.station_batches[station] += share
    sums.station_busy_s[station] += (min(end_s, sums.end_s) - min(start_s, sums.end_s)) * share
    if request >= sums.counted_from[visit]:
        sums.requests[visit] += 1.0
        sums.wait_s[visit] += wait_s
        sums.served_s[visit] += end_s - start_s


@inlined
def completes(joins: JoinArrays, slot: int, time_s: float, order: int) -> bool:
    """Note an input of a request at a join; return whether it was the last one that was missing."""
    if time_s > joins.latest_s[slot] or (time_s == joins.latest_s[slot] and order > joins.order[slot]):
        joins.latest_s[slot], joins.order[slot] = time_s, order
    joins.missing[slot] -= 1
    return bool(joins.missing[slot] == 0)
