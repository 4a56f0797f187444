"""Stations that are simulated alone, and those that only can be together because requests come back."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from circinus.queueing.discipline import serve
from circinus.queueing.station import Station
from circinus.simulation.model import FloatArray, IntArray

Key = tuple[int, int, int]
"""Query, visit, request."""


@dataclass(frozen=True, eq=False)
class Entries:
    """Requests that come to stations, (n,) each, in order of time."""

    time_s: FloatArray
    query: IntArray
    visit: IntArray
    request: IntArray
    service_s: FloatArray
    """Alone."""

    def chosen(self, which: slice | NDArray[Any]) -> Entries:
        """Some of them."""
        return Entries(
            self.time_s[which], self.query[which], self.visit[which], self.request[which], self.service_s[which]
        )

    @classmethod
    def merged(cls, parts: Sequence[Entries]) -> Entries:
        """Several in order of time; of equal times the earlier part comes first."""
        if len(parts) == 1:
            return parts[0]
        columns = [np.concatenate(column) for column in zip(*(part.columns for part in parts), strict=True)]
        return cls(*columns).chosen(np.argsort(columns[0], kind="stable"))

    @property
    def columns(self) -> tuple[FloatArray, IntArray, IntArray, IntArray, FloatArray]:
        """All arrays."""
        return self.time_s, self.query, self.visit, self.request, self.service_s


@dataclass(frozen=True, eq=False)
class Exits:
    """Visits that ended, (m,) each."""

    entries: Entries
    start_s: FloatArray
    end_s: FloatArray
    fill: IntArray
    """How many requests were in the same batch."""


class Block(Protocol):
    """Stations that are simulated at once."""

    def advance(self, entries: Entries, until_s: float) -> Exits:
        """Take what comes before `until_s` and give what begins before then."""
        ...


class OneStation:
    """A station to which nothing comes back from behind it: everything that comes is known before it serves."""

    def __init__(self, station: Station, now_s: float = 0.0) -> None:
        self._station = station
        self._free_s = [now_s] * station.servers
        self._waiting: Entries | None = None

    def advance(self, entries: Entries, until_s: float) -> Exits:
        """As of `Block`."""
        waiting = entries if self._waiting is None else Entries.merged([self._waiting, entries])
        served = serve(self._station, self._free_s, waiting.time_s, waiting.service_s, until_s)
        begun = len(served.start_s)
        self._waiting = waiting.chosen(slice(begun, None)) if begun < len(waiting.time_s) else None
        return Exits(waiting.chosen(slice(0, begun)), served.start_s, served.end_s, served.batch)


class StationsTogether:
    """Several stations, event by event in order of time."""

    def __init__(
        self,
        stations: dict[int, Station],
        next_visits: Callable[[int, int, int, float], Sequence[tuple[float, Key, float]]],
        station_of: Callable[[int, int], int],
        now_s: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            stations: by number.
            next_visits: told (query, visit, request, end) of a visit that ended, gives (time, key, seconds alone) of
                those within these stations that can begin then.
            station_of: (query, visit) -> station.
            now_s: when the simulation begins.
        """
        self._stations = stations
        self._next_visits = next_visits
        self._station_of = station_of
        self._free_s = {number: [now_s] * station.servers for number, station in stations.items()}
        self._queues: dict[int, deque[tuple[float, Key, float]]] = {number: deque() for number in stations}
        self._events: list[tuple[float, int, int, Key | None, float]] = []
        self._events_seen = 0

    def advance(self, entries: Entries, until_s: float) -> Exits:
        """As of `Block`."""
        ended: list[tuple[float, Key, float, float, float, int]] = []
        keys = zip(entries.query.tolist(), entries.visit.tolist(), entries.request.tolist(), strict=True)
        coming = iter(list(zip(entries.time_s.tolist(), keys, entries.service_s.tolist(), strict=True)))
        next_in = next(coming, None)
        while True:
            if next_in is not None and (not self._events or next_in[0] <= self._events[0][0]):
                time_s, key, service_s = next_in
                next_in = next(coming, None)
            elif self._events and self._events[0][0] < until_s:
                time_s, _, number, known, service_s = heapq.heappop(self._events)
                if known is None:  # a batch may be due
                    self._dispatch(number, time_s, until_s, ended)
                    continue
                key = known
            else:
                break
            number = self._station_of(key[0], key[1])
            self._queues[number].append((time_s, key, service_s))
            self._dispatch(number, time_s, until_s, ended)
        return _exits(ended)

    def _push(self, time_s: float, number: int, key: Key | None, service_s: float) -> None:
        self._events_seen += 1
        heapq.heappush(self._events, (time_s, self._events_seen, number, key, service_s))

    def _dispatch(
        self, number: int, now_s: float, until_s: float, ended: list[tuple[float, Key, float, float, float, int]]
    ) -> None:
        station, queue, free_s = self._stations[number], self._queues[number], self._free_s[number]
        while queue:
            full_s = queue[station.batch_size - 1][0] if len(queue) >= station.batch_size else math.inf
            start_s = max(free_s[0], min(queue[0][0] + station.batch_wait_s, full_s))
            if start_s > now_s:
                self._push(start_s, number, None, 0.0)
                return
            batch = [queue.popleft() for _ in range(min(station.batch_size, len(queue)))]
            fill = len(batch)
            end_s = start_s + station.fill_ratios[fill - 1] * sum(service_s for _, _, service_s in batch) / fill
            heapq.heapreplace(free_s, end_s)
            for time_s, key, service_s in batch:
                ended.append((time_s, key, service_s, start_s, end_s, fill))
                for when_s, next_key, next_service_s in self._next_visits(*key, end_s):
                    self._push(when_s, self._station_of(next_key[0], next_key[1]), next_key, next_service_s)


def _exits(ended: list[tuple[float, Key, float, float, float, int]]) -> Exits:
    keys = np.array([key for _, key, *_ in ended], dtype=np.int64).reshape(-1, 3)
    times = np.array([(t, service_s, start_s, end_s) for t, _, service_s, start_s, end_s, _ in ended]).reshape(-1, 4)
    entries = Entries(times[:, 0], keys[:, 0], keys[:, 1], keys[:, 2], times[:, 1])
    return Exits(entries, times[:, 2], times[:, 3], np.array([fill for *_, fill in ended], dtype=np.int64))
