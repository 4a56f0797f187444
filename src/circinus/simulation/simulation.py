"""Requests of all queries on their way through all stations, window by window of simulated time."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from circinus.queueing.station import Station
from circinus.simulation.blocks import Block, Entries, Exits, Key, OneStation, StationsTogether
from circinus.simulation.groups import sends_to, station_groups
from circinus.simulation.model import FloatArray, IntArray, SimulatedQuery


@dataclass(eq=False)
class QueryRun:
    """One query's requests as far as they came."""

    query: SimulatedQuery
    arrival_s: FloatArray
    """(N,)"""
    items: IntArray
    """(N,)"""
    end_s: list[FloatArray]
    """Visit -> (N,) when it ended; infinite where it has not."""
    wait_s: list[FloatArray]
    """Visit -> (N,) how long it waited for its server."""
    outstanding: list[IntArray]
    """Visit -> requests that have not come to it yet."""
    entered: dict[int, np.ndarray] = field(default_factory=dict)
    """Visit in a group of stations -> (N,) whether the request has come to it."""

    def ready_s(self, visit: int, requests: IntArray) -> FloatArray:
        """(n,) when `requests` come to `visit`; infinite where that is not known."""
        after = self.query.visits[visit].after
        if not after:
            return self.arrival_s[requests]
        return np.asarray(np.maximum.reduce([self.end_s[v][requests] + self.query.visits[v].delay_s for v in after]))

    @property
    def latency_s(self) -> FloatArray:
        """(N,) from arrival to result; infinite where there is none yet."""
        visits = self.query.visits
        done_s = np.maximum.reduce([self.end_s[v] + visits[v].delay_s for v in self.query.finals])
        return np.asarray(done_s - self.arrival_s)


@dataclass(eq=False)
class StationRun:
    """What a station did."""

    requests: int = 0
    batches: float = 0.0
    busy_s: float = 0.0
    wait_s: float = 0.0
    """Sum over requests."""


class Simulation:
    """A run of all queries.

    Service times are those of an item drawn for each request, the same at all its visits: their correlation stays. The
    same seed gives the same requests, whatever is deployed, and every query has a random stream of its own.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        queries: Sequence[SimulatedQuery],
        *,
        duration_s: float,
        seed: int,
    ) -> None:
        """Draw all requests.

        Args:
            stations: numbered as they come.
            queries: whose visits name them.
            duration_s: how long requests arrive.
            seed: of arrivals and items.
        """
        self.stations = tuple(stations)
        self.duration_s = duration_s
        self.now_s = 0.0
        self.runs = tuple(_drawn(query, duration_s, seed) for query in queries)
        self.did = tuple(StationRun() for _ in stations)
        self._visits: dict[int, list[tuple[int, int]]] = {number: [] for number in range(len(stations))}
        for number, query in enumerate(queries):
            for index, visit in enumerate(query.visits):
                self._visits[visit.station].append((number, index))
        self._most_visits = max((len(query.visits) for query in queries), default=1)
        self._blocks = self._grouped(queries)

    def run(self) -> None:
        """Until every request is done."""
        self.advance(math.inf)

    def advance(self, until_s: float) -> None:
        """Until a moment of simulated time, later than the last."""
        for group, block in self._blocks:
            entries = self._entries(group, until_s, together=isinstance(block, StationsTogether))
            self._record(block.advance(entries, until_s))
        self.now_s = until_s

    def _grouped(self, queries: Sequence[SimulatedQuery]) -> list[tuple[tuple[int, ...], Block]]:
        targets = sends_to(queries, len(self.stations))
        blocks: list[tuple[tuple[int, ...], Block]] = []
        for group in station_groups(queries, len(self.stations)):
            if len(group) == 1 and group[0] not in targets[group[0]]:
                blocks.append((group, OneStation(self.stations[group[0]])))
                continue
            members = {number: self.stations[number] for number in group}
            blocks.append((group, StationsTogether(members, _Onward(self.runs, set(group)), self._station_of)))
            for number in group:
                for query, visit in self._visits[number]:
                    run = self.runs[query]
                    run.entered[visit] = np.zeros(len(run.arrival_s), dtype=np.bool_)
        return blocks

    def _station_of(self, query: int, visit: int) -> int:
        return self.runs[query].query.visits[visit].station

    def _entries(self, group: tuple[int, ...], until_s: float, *, together: bool) -> Entries:
        """Who comes to a group of stations before `until_s` from elsewhere."""
        parts = []
        for number in group:
            for query, visit in self._visits[number]:
                run = self.runs[query]
                requests = run.outstanding[visit]
                if together:
                    requests = requests[~run.entered[visit][requests]]
                ready_s = run.ready_s(visit, requests)
                comes = ready_s < until_s
                run.outstanding[visit], requests, ready_s = requests[~comes], requests[comes], ready_s[comes]
                if together:
                    run.entered[visit][requests] = True
                service_s = run.query.visits[visit].service_s[run.items[requests]]
                order = np.argsort(ready_s, kind="stable")
                filled = np.full(len(order), 0, dtype=np.int64)
                parts.append(Entries(ready_s[order], filled + query, filled + visit, requests[order], service_s[order]))
        return Entries.merged(parts) if parts else _NOBODY

    def _record(self, exits: Exits) -> None:
        entries, duration_s = exits.entries, exits.end_s - exits.start_s
        wait_s = exits.start_s - entries.time_s
        code = entries.query * self._most_visits + entries.visit
        order = np.argsort(code, kind="stable")
        beginnings = np.flatnonzero(np.diff(code[order], prepend=-1))
        for mine in np.split(order, beginnings[1:]):
            if not len(mine):
                continue
            query, visit = divmod(int(code[mine[0]]), self._most_visits)
            run = self.runs[query]
            requests = entries.request[mine]
            run.end_s[visit][requests] = exits.end_s[mine]
            run.wait_s[visit][requests] = wait_s[mine]
            did, shares = self.did[run.query.visits[visit].station], 1.0 / exits.fill[mine]
            did.requests += len(requests)
            did.batches += float(shares.sum())
            did.busy_s += float((duration_s[mine] * shares).sum())
            did.wait_s += float(wait_s[mine].sum())


class _Onward:
    """Where requests go next within a group of stations."""

    def __init__(self, runs: Sequence[QueryRun], group: set[int]) -> None:
        self._runs = runs
        self._next: dict[tuple[int, int], list[int]] = {}
        for number, run in enumerate(runs):
            for index, visit in enumerate(run.query.visits):
                if visit.station in group:
                    for before in visit.after:
                        if run.query.visits[before].station in group:
                            self._next.setdefault((number, before), []).append(index)

    def __call__(self, query: int, visit: int, request: int, end_s: float) -> list[tuple[float, Key, float]]:
        run = self._runs[query]
        run.end_s[visit][request] = end_s
        found = []
        for index in self._next.get((query, visit), ()):
            target = run.query.visits[index]
            ready_s = max(float(run.end_s[v][request]) + run.query.visits[v].delay_s for v in target.after)
            if math.isfinite(ready_s) and not run.entered[index][request]:
                run.entered[index][request] = True
                found.append((ready_s, (query, index, request), float(target.service_s[run.items[request]])))
        return found


_NOBODY = Entries(
    np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
)


def _drawn(query: SimulatedQuery, duration_s: float, seed: int) -> QueryRun:
    rng = np.random.default_rng([seed, zlib.crc32(query.name.encode())])
    arrival_s = query.arrivals.times_s(duration_s, rng)
    count = len(arrival_s)
    return QueryRun(
        query=query,
        arrival_s=arrival_s,
        items=rng.integers(query.items, size=count),
        end_s=[np.full(count, math.inf) for _ in query.visits],
        wait_s=[np.full(count, math.nan) for _ in query.visits],
        outstanding=[np.arange(count, dtype=np.int64) for _ in query.visits],
    )
