"""Paths of requests, as arrays over the visits of all queries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.queueing.event_arrays import (
    NO_TASKS,
    JoinArrays,
    RequestArrays,
    Tasks,
    VisitArrivals,
    Visits,
    offsets,
)
from circinus.simulation.joins import Joins
from circinus.simulation.model import QueryModel, Requests
from circinus.simulation.task_graph import RESULT


class RequestPaths:
    """Paths of all requests through visits; visits, requests and tokens are numbered query after query.

    A request has one token, which makes all its visits, or with `QueryModel.tasks` one for each task of its item. After
    the visits there are two pseudo-visits for each query, its result and its source, which take no time at no station.
    """

    def __init__(self, queries: Sequence[QueryModel], requests: Sequence[Requests]) -> None:
        """Assign indexes to visits, requests and tokens.

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
        self._all_tasks = [query.tasks for query in queries]
        self._first_task = offsets([0 if tasks is None else len(tasks.visit) for tasks in self._all_tasks]).tolist()
        items, tokens = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for its_requests, tasks, first in zip(requests, self._all_tasks, self._first_task, strict=False):
            items.append(its_requests.items if tasks is None else first + tasks.of_items(its_requests.items))
            ones = np.ones(len(its_requests.items), np.int64)
            tokens.append(ones if tasks is None else np.diff(tasks.first_task)[its_requests.items])
        counts = np.concatenate(tokens)
        self.first_token = offsets(counts.tolist())
        """(requests + 1,) index of each request's first token, and the number of tokens."""
        self.items: IntArray = np.concatenate(items)
        """(tokens,) item index of the query, or task index of all queries."""
        self.request_of: IntArray = np.repeat(np.arange(len(counts)), counts)
        """(tokens,) request."""
        self.entered_s: FloatArray = np.concatenate([np.zeros(0), *(r.arrival_s for r in requests)])[self.request_of]
        """(tokens,) time of entry."""
        self.done_s = np.full(len(counts), np.inf)
        """(requests,) time of the result; infinite for open and dropped requests."""
        self.dropped_s = np.full(len(counts), np.inf)
        """(requests,) time at which the request was dropped; infinite for others."""
        service_s = [visit.service_s for query in queries if query.tasks is None for visit in query.visits]
        task_service_s = [tasks.service_s for tasks in self._all_tasks if tasks is not None]
        self._all_service_s = np.concatenate([np.zeros(0), *service_s, *task_service_s])
        self._first_service = self._first_services(queries)
        self._inputs = self._predecessors(queries)
        self.joins = Joins(
            {
                visit: (self._tokens_of(visit), len(inputs))
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
        is_transfer = [[np.isinf(visit.latest_start_s) for visit in query.visits] for query in queries]
        self._continues = np.array(
            [
                bool(visit.after) and all(transfers[index] for index in (number, *visit.after))
                for query, transfers in zip(queries, is_transfer, strict=True)
                for number, visit in enumerate(query.visits)
            ],
            dtype=np.bool_,
        )
        """(visits,) whether a visit continues a transfer: at a link after a link, which have no latest starts."""

    def visit_arrays(self) -> Visits:
        """Return all visits for `event_kernel`."""
        count = len(self.query_of)
        targets = self._targets[: self._first_target[count]]
        tasks = self._tasks()
        has_tasks = np.array([tasks is not None for tasks in self._all_tasks], dtype=np.bool_)[self.query_of]
        most_targets = max(np.diff(first).max(initial=0) for first in (self._first_target, tasks.first_edge))
        return Visits(
            self.station_of, self._first_service, self._all_service_s, self.latest_start_s, self.drops_late,
            self._continues, self.delay_s, self._first_target[: count + 1], targets,
            np.array([target in self.joins for target in targets.tolist()], dtype=np.bool_), int(most_targets),
            has_tasks, tasks,
        )  # fmt: skip

    def request_arrays(self) -> RequestArrays:
        """Return all requests for `event_kernel`, which updates their times."""
        is_dropped = np.zeros(len(self.items), dtype=np.bool_)
        return RequestArrays(self.items, self.entered_s, self.request_of, self.done_s, self.dropped_s, is_dropped)

    def join_arrays(self) -> JoinArrays:
        """Return the inputs at joins for `event_kernel`, which updates them."""
        joins = self.joins.arrays
        if all(tasks is None for tasks in self._all_tasks):
            return joins
        missing = self._tasks().inputs[np.minimum(self.items, len(self._tasks().inputs) - 1)].astype(np.int32)
        count = len(self.items)
        return JoinArrays(
            joins.offset,
            np.concatenate((joins.missing, missing)),
            np.concatenate((joins.latest_s, np.full(count, -np.inf))),
            np.concatenate((joins.order, np.zeros(count, dtype=np.int64))),
        )

    def _tasks(self) -> Tasks:
        """Return the tasks of all queries."""
        parts = [(query, tasks) for query, tasks in enumerate(self._all_tasks) if tasks is not None]
        if not parts:
            return NO_TASKS
        visits = [
            np.where(tasks.visit == RESULT, len(self.query_of) + query, self.first_visit[query] + tasks.visit)
            for query, tasks in parts
        ]
        first_edge = [first + tasks.first_edge[:-1] for (_, tasks), first in zip(
            parts, offsets([len(tasks.target) for _, tasks in parts]).tolist(), strict=False)]  # fmt: skip
        sources = [np.repeat(np.arange(len(tasks.visit)), np.diff(tasks.first_edge)) for _, tasks in parts]
        return Tasks(
            np.concatenate(visits),
            np.concatenate([tasks.inputs for _, tasks in parts]),
            np.concatenate([*first_edge, [sum(len(tasks.target) for _, tasks in parts)]]),
            np.concatenate([tasks.target - source for (_, tasks), source in zip(parts, sources, strict=True)]),
            np.concatenate([tasks.delay_s for _, tasks in parts]),
            len(self.joins.arrays.missing),
        )

    def _first_services(self, queries: Sequence[QueryModel]) -> IntArray:
        """Return (visits,) the index of the service time of each visit's first item, or of the first task of all."""
        plain = [len(visit.service_s) for query in queries if query.tasks is None for visit in query.visits]
        starts = iter(offsets(plain).tolist())
        return np.array(
            [next(starts) if query.tasks is None else sum(plain) for query in queries for _ in query.visits],
            dtype=np.int64,
        )

    def service_s(self, visit: IntArray, request: IntArray) -> FloatArray:
        """Return (n,) unbatched service times of requests at visits."""
        return np.asarray(self._all_service_s[self._first_service[visit] + self.items[request]])

    def first_visits(self, query: int, first: int, last: int) -> list[VisitArrivals]:
        """Return the arrivals at a query's first visits, of its requests with indexes from `first` to before `last`."""
        source, offset = self._sources[query], self.first_request[query]
        order: IntArray = np.arange(first, last)
        token = self.first_token[offset + first : offset + last]
        entered_s = self.entered_s[token]
        tasks = self._all_tasks[query]
        if tasks is not None:
            first_task = self.items[token] - self._first_task[query]
            roots = tasks.roots[np.searchsorted(tasks.first_task, first_task, side="right") - 1]
            visits = self.first_visit[query] + tasks.visit[first_task[:, None] + roots]
            return [VisitArrivals(entered_s, order, visits[:, k], token + roots[:, k]) for k in range(roots.shape[1])]
        targets = self._targets[self._first_target[source] : self._first_target[source + 1]]
        return [VisitArrivals(entered_s, order, np.full(len(order), target), token) for target in targets]

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
            if query.tasks is not None:
                visits += [()] * len(query.visits)
                results.append(())
                continue
            *inputs, result_inputs = [
                tuple(first + index for index in dict.fromkeys(after)) or (source,)
                for after in (*(visit.after for visit in query.visits), query.sink_visits)
            ]
            visits += inputs
            results.append(result_inputs)
        return [*visits, *results, *[() for _ in queries]]

    def _tokens_of(self, visit: int) -> range:
        is_result = visit >= len(self.query_of)
        query = visit - len(self.query_of) if is_result else int(self.query_of[visit])
        first, last = self.first_request[query : query + 2]
        return range(int(self.first_token[first]), int(self.first_token[last]))
