"""Where the requests of all queries go, as arrays over the visits of all queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.simulation.joins import Joins
from circinus.simulation.model import QueryModel, Requests, VisitArrivals


class RequestPaths:
    """The visits of all queries, numbered one query after the other, and so their requests.

    Behind the visits, two more for each query stand for its result and for its source: they take no time, and no
    station serves them.
    """

    def __init__(self, queries: Sequence[QueryModel], requests: Sequence[Requests]) -> None:
        """Number visits and requests.

        Args:
            queries: in their order.
            requests: of each of them.
        """
        self.first_visit = _beginnings([len(query.visits) for query in queries])
        """(queries + 1,) the number of a query's first visit; last, how many there are."""
        self.first_request = _beginnings([len(one.items) for one in requests])
        """(queries + 1,) the same for requests."""
        visits = [visit for query in queries for visit in query.visits]
        self.results = len(visits) + np.arange(len(queries))
        """(queries,)"""
        self.sources = self.results + len(queries)
        """(queries,)"""
        self.query_of: IntArray = np.repeat(np.arange(len(queries)), np.diff(self.first_visit))
        """(visits,)"""
        self.station_of = np.array([visit.station for visit in visits], dtype=np.int64)
        """(visits,)"""
        self.delay_s = np.array([visit.delay_s for visit in visits] + [0.0] * 2 * len(queries))
        """(visits and results and sources,)"""
        self.items: IntArray = np.concatenate([one.items for one in requests]) if requests else np.zeros(0, np.int64)
        """(requests,)"""
        self._service_s = [visit.service_s for visit in visits]
        self._all_service_s = np.concatenate(self._service_s) if visits else np.zeros(0)
        self._first_service = _beginnings([len(visit.service_s) for visit in visits])
        self._before = self._predecessors(queries)
        self.joins = Joins(
            {
                visit: (self._requests_of(visit), len(before))
                for visit, before in enumerate(self._before)
                if len(before) > 1
            }
        )
        self.cut(())

    def cut(self, groups: Sequence[frozenset[int]]) -> None:
        """Leave it to groups of visits where requests go within each of them."""
        group_of = {visit: number for number, group in enumerate(groups) for visit in group}
        onward: list[list[tuple[int, int]]] = [[] for _ in self._before]
        self._within: dict[int, list[int]] = {visit: [] for visit in group_of}
        for target, before in enumerate(self._before):
            for rank, visit in enumerate(before):
                if visit in group_of and group_of[visit] == group_of.get(target):
                    self._within[visit].append(target)
                else:
                    onward[visit].append((target, rank))
        self._first_target = _beginnings([len(targets) for targets in onward])
        self._targets = np.array([target for targets in onward for target, _ in targets], dtype=np.int64)
        self._ranks = np.array([rank for targets in onward for _, rank in targets], dtype=np.int64)

    def within(self, visit: int) -> Sequence[int]:
        """The visits of its group that follow one that was left to a group."""
        return self._within[visit]

    def service_s(self, visit: IntArray, request: IntArray) -> FloatArray:
        """(n,) seconds of requests at visits, alone."""
        return np.asarray(self._all_service_s[self._first_service[visit] + self.items[request]])

    def alone_by_item_s(self, visit: int) -> FloatArray:
        """(items,) seconds at one visit, alone."""
        return self._service_s[visit]

    def next_visits(self, visit: IntArray, request: IntArray, end_s: FloatArray, order: IntArray) -> VisitArrivals:
        """Requests that come to visits or to their results because visits ended, where nothing else is missing.

        Args:
            visit: (n,) that ended.
            request: (n,) whose.
            end_s: (n,) when.
            order: (n,) see `Entries`.
        """
        first = self._first_target[visit]
        counts = self._first_target[visit + 1] - first
        if (counts == 1).all():
            coming = VisitArrivals(end_s + self.delay_s[visit], order, self._targets[first], request)
            return self.joins.complete(coming, self._ranks[first])
        source = np.repeat(np.arange(len(visit)), counts)
        # The k-th target of everybody: k counts from 0 within each run of equal sources.
        edge = np.arange(len(source)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        targets = self._targets[edge]
        coming = VisitArrivals((end_s + self.delay_s[visit])[source], order[source], targets, request[source])
        return self.joins.complete(coming, self._ranks[edge])

    def _predecessors(self, queries: Sequence[QueryModel]) -> list[tuple[int, ...]]:
        """Visit, result or source -> what it waits for."""
        visits: list[tuple[int, ...]] = []
        results: list[tuple[int, ...]] = []
        for query, first, source in zip(queries, self.first_visit[:-1].tolist(), self.sources.tolist(), strict=True):
            numbers = range(first, first + len(query.visits))
            *befores, final = [
                tuple(numbers[index] for index in dict.fromkeys(after)) or (source,)
                for after in (*(visit.after for visit in query.visits), query.sink_visits)
            ]
            visits += befores
            results.append(final)
        return [*visits, *results, *[() for _ in queries]]

    def _requests_of(self, visit: int) -> range:
        is_result = visit >= len(self.query_of)
        query = visit - len(self.query_of) if is_result else int(self.query_of[visit])
        return range(int(self.first_request[query]), int(self.first_request[query + 1]))


def _beginnings(counts: Sequence[int]) -> IntArray:
    """(n + 1,) where each of n runs begins that stand one after the other, and where the last ends."""
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64))).astype(np.int64)
