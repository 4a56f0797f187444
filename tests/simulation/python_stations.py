"""Stations simulated together event by event in Python: the reference of the compiled ones."""

from __future__ import annotations

import heapq
import math
from collections import deque
from itertools import count, islice

import numpy as np

from circinus.queueing.event_arrays import (
    BATCH_ORDER,
    BlockState,
    JoinArrays,
    RequestArrays,
    Stations,
    VisitArrivals,
    VisitDepartures,
    Visits,
)
from circinus.queueing.service_record import VisitSums

Event = tuple[float, int, int, int]
"""Arrival (time, order, visit, request), or batch start (time, `BATCH_ORDER`, number of earlier ones, station)."""


class Queue:
    """Queue of a station, whose requests with the earliest latest starts form the next batch."""

    def __init__(self, batch_size: int, batch_wait_s: float, dropped: set[int]) -> None:
        self.batch_size, self.batch_wait_s, self.dropped = batch_size, batch_wait_s, dropped
        self.waiting: deque[tuple[float, int, Event]] = deque()
        self.left: set[int] = set()
        self.answered: list[tuple[float, int, Event]] = []
        self.droppable: list[tuple[float, int, Event]] = []
        self.arrived = 0
        self.scheduled_s = math.inf

    def __len__(self) -> int:
        return len(self.waiting) - len(self.left)

    def put(self, event: Event, latest_start_s: float, drops_late: bool) -> None:
        number = self.arrived
        self.arrived = number + 1
        self.waiting.append((event[0], number, event))
        heapq.heappush(self.droppable if drops_late else self.answered, (latest_start_s, number, event))

    def next_start_s(self, free_s: float) -> float:
        waiting, left = self.waiting, self.left
        while waiting and (waiting[0][1] in left or waiting[0][2][3] in self.dropped):
            left.discard(waiting.popleft()[1])
        if not waiting:
            return math.inf
        start_s = waiting[0][0] + self.batch_wait_s
        if free_s < start_s and len(waiting) >= self.batch_size:
            arrivals_s = (
                arrival_s for arrival_s, number, event in waiting if number not in left and event[3] not in self.dropped
            )
            start_s = min(start_s, next(islice(arrivals_s, self.batch_size - 1, None), math.inf))
        return max(free_s, start_s)

    def take(self, start_s: float) -> tuple[list[Event], list[Event]]:
        batch: list[Event] = []
        late: list[Event] = []
        while self.droppable and self.droppable[0][0] < start_s:
            self._move(self.droppable, late)
        while not late and len(batch) < self.batch_size and (self.answered or self.droppable):
            is_first = self.answered and not (self.droppable and self.droppable[0] < self.answered[0])
            self._move(self.answered if is_first else self.droppable, batch)
        return batch, late

    def _move(self, heap: list[tuple[float, int, Event]], target: list[Event]) -> None:
        _, number, event = heapq.heappop(heap)
        if event[3] not in self.dropped:
            self.left.add(number)
            target.append(event)


class PythonBlock:
    """Block with the interface of `EventBlock`."""

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
        self.stations, self.visits, self.requests, self.joins, self.sums = stations, visits, requests, joins, sums
        self.state = BlockState.idle(stations)
        self.events: list[Event] = []
        self.dropped: set[int] = set()
        self.scheduled = count()
        self.queues = {
            station: Queue(len(self._ratios(station)), float(stations.batch_wait_s[station]), self.dropped)
            for station in np.flatnonzero(stations.has_queue).tolist()
        }
        self.departed: list[tuple[int, int, float, int, float, float, int]] = []

    def advance(self, entries: VisitArrivals, until_s: float) -> VisitDepartures:
        self.departed = []
        end: Event = (until_s, -1, -1, -1)
        rows = iter([*zip(*(column.tolist() for column in entries), strict=True), end])
        entry = next(rows)
        while True:
            if self.events and self.events[0] < entry:
                event = heapq.heappop(self.events)
            elif entry is end:
                columns = zip(*self.departed, strict=True) if self.departed else [[]] * 7
                kinds = (np.int64, np.int64, np.float64, np.int64, np.float64, np.float64, np.int64)
                return VisitDepartures(
                    *(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True))
                )
            else:
                event, entry = entry, next(rows)
            time_s, order, visit, request = event
            if order == BATCH_ORDER:
                self._start_batches(request, time_s)
                continue
            if request in self.dropped and not self.visits.continues[visit]:
                continue
            station = int(self.visits.station[visit])
            free_s = self._free_s(station)
            queue = self.queues.get(station)
            if queue is not None:
                drops_late = bool(self.visits.drops_late[visit])
                latest_start_s = float(self.requests.entered_s[request]) + float(self.visits.latest_start_s[visit])
                is_only_arrival = entry[0] > time_s and not (self.events and self.events[0][0] == time_s)
                starts_at_once = queue.batch_size == 1 and free_s[0] <= time_s and not len(queue)
                if (drops_late and latest_start_s < time_s) or not is_only_arrival or not starts_at_once:
                    queue.put(event, latest_start_s, drops_late)
                    if queue.scheduled_s == math.inf or queue.batch_wait_s:
                        self._schedule(station)
                    continue
            start_s = max(float(free_s[0]), time_s)
            end_s = start_s + self._service_s(visit, request) * self._ratios(station)[0]
            self._occupy(station, end_s)
            self._leave(event, start_s, end_s, 1)

    @property
    def is_idle(self) -> bool:
        return not self.events

    @property
    def queued(self) -> np.ndarray:
        return np.array([len(self.queues[s]) if s in self.queues else 0 for s in range(len(self.stations.has_queue))])

    def _ratios(self, station: int) -> list[float]:
        first, end = self.stations.first_ratio[station : station + 2]
        return self.stations.batch_time_ratios[first:end].tolist()

    def _free_s(self, station: int) -> np.ndarray:
        first, end = self.stations.first_server[station : station + 2]
        return self.state.free_s[first:end]

    def _occupy(self, station: int, end_s: float) -> None:
        free_s = self._free_s(station)
        heap = free_s.tolist()
        heapq.heapreplace(heap, end_s)
        free_s[:] = heap

    def _service_s(self, visit: int, request: int) -> float:
        return float(self.visits.service_s[self.visits.first_service[visit] + self.requests.items[request]])

    def _schedule(self, station: int) -> None:
        queue = self.queues[station]
        start_s = queue.next_start_s(float(self._free_s(station)[0]))
        if start_s < queue.scheduled_s:
            queue.scheduled_s = start_s
            heapq.heappush(self.events, (start_s, BATCH_ORDER, next(self.scheduled), station))

    def _start_batches(self, station: int, now_s: float) -> None:
        queue = self.queues[station]
        if now_s != queue.scheduled_s:
            return
        while queue.next_start_s(float(self._free_s(station)[0])) <= now_s:
            batch, late = queue.take(now_s)
            for *_, token in late:
                request = self.requests.request_of[token]
                tokens = np.flatnonzero(self.requests.request_of == request)
                self.dropped.update(tokens.tolist())
                self.requests.is_dropped[tokens] = True
                self.requests.dropped_s[request] = now_s
            if not batch:
                continue
            unbatched_s = 0.0
            for _, _, visit, request in batch:
                unbatched_s += self._service_s(visit, request)
            end_s = now_s + self._ratios(station)[len(batch) - 1] * unbatched_s / len(batch)
            self._occupy(station, end_s)
            for event in batch:
                self._leave(event, now_s, end_s, len(batch))
        queue.scheduled_s = math.inf
        self._schedule(station)

    def _leave(self, event: Event, start_s: float, end_s: float, fill: int) -> None:
        time_s, _, visit, request = event
        station = int(self.visits.station[visit])
        order = int(self.state.served[station])
        self.state.served[station] += 1
        self.departed.append((visit, request, time_s, order, start_s, end_s, fill))
        self._add(station, visit, request, time_s, start_s, end_s, fill)
        arrival_s = end_s + float(self.visits.delay_s[visit])
        for edge in range(self.visits.first_target[visit], self.visits.first_target[visit + 1]):
            target = int(self.visits.targets[edge])
            if not self.visits.is_join[edge]:
                self._arrive((arrival_s, order, target, request))
                continue
            self._join(int(self.joins.offset[target]) + request, arrival_s, order, target, request)
        if self.visits.has_tasks[visit]:
            self._leave_task(request, order, end_s)

    def _leave_task(self, token: int, order: int, end_s: float) -> None:
        tasks, task = self.visits.tasks, int(self.requests.items[token])
        for edge in range(tasks.first_edge[task], tasks.first_edge[task + 1]):
            step, arrival_s = int(tasks.step[edge]), end_s + float(tasks.delay_s[edge])
            target = int(tasks.visit[task + step])
            if tasks.inputs[task + step] == 1:
                self._arrive((arrival_s, order, target, token + step))
            else:
                self._join(tasks.first_slot + token + step, arrival_s, order, target, token + step)

    def _join(self, slot: int, arrival_s: float, order: int, target: int, token: int) -> None:
        if (arrival_s, order) > (self.joins.latest_s[slot], self.joins.order[slot]):
            self.joins.latest_s[slot], self.joins.order[slot] = arrival_s, order
        self.joins.missing[slot] -= 1
        if not self.joins.missing[slot]:
            last = float(self.joins.latest_s[slot]), int(self.joins.order[slot])
            self._arrive((*last, target, token))

    def _arrive(self, event: Event) -> None:
        time_s, _, target, token = event
        if target < len(self.visits.station):
            heapq.heappush(self.events, event)
        else:
            self.requests.done_s[self.requests.request_of[token]] = time_s

    def _add(
        self, station: int, visit: int, request: int, time_s: float, start_s: float, end_s: float, fill: int
    ) -> None:
        sums, wait_s, share = self.sums, start_s - time_s, 1.0 / fill
        sums.station_requests[station] += 1
        sums.station_wait_s[station] += wait_s
        sums.station_batches[station] += share
        sums.station_busy_s[station] += (min(end_s, sums.end_s) - min(start_s, sums.end_s)) * share
        if request >= sums.counted_from[visit]:
            sums.requests[visit] += 1
            sums.wait_s[visit] += wait_s
            sums.served_s[visit] += end_s - start_s
