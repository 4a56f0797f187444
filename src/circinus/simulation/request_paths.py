"""Paths of requests, as arrays over the visits of all queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.queueing.event_arrays import VisitArrivals, Visits, offsets
from circinus.simulation.joins import Joins
from circinus.simulation.model import QueryModel, Requests


class RequestPaths:
    """Paths of all requests through visits; visits and requests are numbered query after query.

    After the visits there are two pseudo-visits for each query, its result and its source, which take no time at no
    station.
    """

    def __init__(self, queries: Sequence[QueryModel], requests: Sequence[Requests]) -> None:
        """Assign indexes to visits and requests.

        Args:
            queries: the queries.
            requests: requests of each query.
        """
        self.first_visit = offsets([len(query.visits) for query in queries])
        """(queries + 1,) index of each query's first visit, and the total number of visits."""
        self.first_request = offsets([len(its_requests.items) for its_requests in requests])
        """(queries + 1,) index of each query's first request, and the total number of requests."""
        visits = [visit for query in queries for visit in query.visits]
        self._sources = len(visits) + len(queries) + np.arange(len(queries))
        """(queries,) pseudo-visits of the sources, after those of the results."""
        self.query_of: IntArray = np.repeat(np.arange(len(queries)), np.diff(self.first_visit))
        """(visits,) query index."""
        self.station_of = np.array([visit.station for visit in visits], dtype=np.int64)
        """(visits,) station index."""
        self.latest_start_s = np.array([visit.latest_start_s for visit in visits])
        """(visits,) latest start after the entry of the request."""
        self.drops_late: BoolArray = np.repeat(
            np.array([query.drops_late for query in queries], dtype=np.bool_), np.diff(self.first_visit)
        )
        """(visits,) whether late requests are dropped."""
        self.delay_s = np.array([visit.delay_s for visit in visits])
        """(visits,) delay after the end of a visit."""
        items = [its_requests.items for its_requests in requests]
        self.items: IntArray = np.concatenate(items) if items else np.zeros(0, np.int64)
        """(requests,) item index."""
        arrivals_s = [its_requests.arrival_s for its_requests in requests]
        self.entered_s: FloatArray = np.concatenate(arrivals_s) if arrivals_s else np.zeros(0)
        """(requests,) time of entry."""
        self.done_s = np.full(len(self.items), np.inf)
        """(requests,) time of the result; infinite for open and dropped requests."""
        self.dropped_s = np.full(len(self.items), np.inf)
        """(requests,) time at which the request was dropped; infinite for others."""
        self._all_service_s = np.concatenate([visit.service_s for visit in visits]) if visits else np.zeros(0)
        self._first_service = offsets([len(visit.service_s) for visit in visits])
        self._inputs = self._predecessors(queries)
        self.joins = Joins(
            {
                visit: (self._requests_of(visit), len(inputs))
                for visit, inputs in enumerate(self._inputs)
                if len(inputs) > 1
            }
        )
        targets: list[list[tuple[int, int]]] = [[] for _ in self._inputs]
        for target, inputs in enumerate(self._inputs):
            for rank, visit in enumerate(inputs):
                targets[visit].append((target, rank))
        self._first_target = offsets([len(its_targets) for its_targets in targets])
        self._targets = np.array([target for its_targets in targets for target, _ in its_targets], dtype=np.int64)
        self._ranks = np.array([rank for its_targets in targets for _, rank in its_targets], dtype=np.int64)

    def visit_arrays(self) -> Visits:
        """Return all visits for `event_kernel`."""
        count = len(self.query_of)
        targets = self._targets[: self._first_target[count]]
        return Visits(
            self.station_of, self._first_service, self._all_service_s, self.latest_start_s, self.drops_late,
            np.array([self._continues_transfer(visit) for visit in range(count)], dtype=np.bool_), self.delay_s,
            self._first_target[: count + 1], targets,
            np.array([target in self.joins for target in targets.tolist()], dtype=np.bool_),
            int(np.diff(self._first_target).max(initial=0)),
        )  # fmt: skip

    def _continues_transfer(self, visit: int) -> bool:
        """Return whether a visit continues a transfer: at a link after a link, which have no latest starts."""
        transfer = (visit, *self._inputs[visit])
        return all(index < len(self.query_of) and np.isinf(self.latest_start_s[index]) for index in transfer)

    def service_s(self, visit: IntArray, request: IntArray) -> FloatArray:
        """Return (n,) unbatched service times of requests at visits."""
        return np.asarray(self._all_service_s[self._first_service[visit] + self.items[request]])

    def first_visits(self, query: int, first: int, last: int) -> list[VisitArrivals]:
        """Return the arrivals at a query's first visits, of its requests with indexes from `first` to before `last`."""
        source, offset = self._sources[query], self.first_request[query]
        order: IntArray = np.arange(first, last)
        entered_s = self.entered_s[offset + first : offset + last]
        targets = self._targets[self._first_target[source] : self._first_target[source + 1]]
        return [VisitArrivals(entered_s, order, np.full(len(order), target), order + offset) for target in targets]

    def next_visits(self, visit: IntArray, request: IntArray, end_s: FloatArray, order: IntArray) -> VisitArrivals:
        """Return the arrivals at visits and results that ended visits cause, unless other inputs are missing.

        Args:
            visit: (n,) ended visits.
            request: (n,) their requests.
            end_s: (n,) end times.
            order: (n,) orders, see `VisitArrivals`.
        """
        first = self._first_target[visit]
        counts = self._first_target[visit + 1] - first
        if (counts == 1).all():
            inputs = VisitArrivals(end_s + self.delay_s[visit], order, self._targets[first], request)
            return self.joins.complete(inputs, self._ranks[first])
        source = np.repeat(np.arange(len(visit)), counts)
        # Index of each target: the first target of its source plus the position within the run of equal sources.
        edge = np.arange(len(source)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        targets = self._targets[edge]
        inputs = VisitArrivals((end_s + self.delay_s[visit])[source], order[source], targets, request[source])
        return self.joins.complete(inputs, self._ranks[edge])

    def _predecessors(self, queries: Sequence[QueryModel]) -> list[tuple[int, ...]]:
        """Return the inputs of each visit, result and source."""
        visits: list[tuple[int, ...]] = []
        results: list[tuple[int, ...]] = []
        for query, first, source in zip(queries, self.first_visit[:-1].tolist(), self._sources.tolist(), strict=True):
            *inputs, result_inputs = [
                tuple(first + index for index in dict.fromkeys(after)) or (source,)
                for after in (*(visit.after for visit in query.visits), query.sink_visits)
            ]
            visits += inputs
            results.append(result_inputs)
        return [*visits, *results, *[() for _ in queries]]

    def _requests_of(self, visit: int) -> range:
        is_result = visit >= len(self.query_of)
        query = visit - len(self.query_of) if is_result else int(self.query_of[visit])
        return range(int(self.first_request[query]), int(self.first_request[query + 1]))
