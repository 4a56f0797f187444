"""Tasks of each item of a query whose operators run never or several times for an item.

A *task* is one run of an operator, one transfer of an output over a link, or the result. What an item causes is known
before the simulation, as its runs were measured: the tasks and their order are a graph for each item, of which every
request of the item makes a copy. The rules are those of the routers: each edge of the pipeline carries one message for
each element, a value or the note that none will come. An operator runs when each of its inputs has a value. A list is
complete when the messages of all its elements have come, and the result when those of all sinks have. Notes are
forwarded along the pipeline, and take the delay of links, but no time on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.profiling import ConfigurationProfile
from circinus.profiling.item_runs import ItemRuns, branch_name, check_runs
from circinus.profiling.profile import runs_by_item
from circinus.specification.dataflow import Edge, FlowNode, RunPath, Scope, output_scope, scopes

NO_ELEMENT = -1
"""Index of the element that stands for an empty list, or for a list that is not made."""
RESULT = -1
"""Visit of the task that is the result."""
RESULT_CONSUMER = ""
"""Name of the consumer of the outputs of sinks, at the source."""


@dataclass(frozen=True, eq=False)
class TaskGraph:
    """Tasks of each item of a query, (t,) for t tasks, item after item."""

    first_task: IntArray
    """(items + 1,) index of each item's first task, and the number of tasks."""
    visit: IntArray
    """(t,) index of the visit of the query, or `RESULT`."""
    service_s: FloatArray
    """(t,) unbatched service time; before `scaled`, its unit is that of the visit."""
    inputs: IntArray
    """(t,) number of edges to the task; 0 for tasks that start with the request."""
    first_edge: IntArray
    """(t + 1,) index of each task's first edge, and the number of edges."""
    target: IntArray
    """(e,) task that waits for the end of the edge's task."""
    delay_s: FloatArray
    """(e,) delay from the end of the edge's task."""
    roots: IntArray
    """(items, r) tasks that start with the request, counted from the item's first one; of the same visits for all."""

    def of_items(self, items: IntArray) -> IntArray:
        """Return the tasks of items, one item after the other."""
        first, counts = self.first_task[items], np.diff(self.first_task)[items]
        ends = np.cumsum(counts)
        return np.asarray(np.arange(int(counts.sum())) + np.repeat(first - (ends - counts), counts))

    def scaled(self, factors: Sequence[float]) -> TaskGraph:
        """Return the graph with the service times times the (visits,) factors of the tasks' visits."""
        return replace(
            self, service_s=self.service_s * np.array([*factors, 1.0])[self.visit]
        )  # that of results is last

    @property
    def tasks_per_item(self) -> float:
        """Mean number of tasks of an item, without the result."""
        return len(self.visit) / (len(self.first_task) - 1) - 1


_Sources = Mapping[int, float]
"""Task of the item -> delay from its end; all of them have to end."""


@dataclass
class _Message:
    """Message on an edge of the pipeline for one element, at the site of the receiver."""

    sources: _Sources
    has_value: bool


@dataclass(frozen=True)
class Carrier:
    """Way of an output to one site."""

    site: str
    consumers: tuple[str, ...]
    """Operators there that receive it, and `RESULT_CONSUMER`."""
    links: tuple[tuple[int, float], ...]
    """(visit, delay in seconds) of each link; the unit of their service times is bytes."""

    @classmethod
    def of(
        cls,
        site: str,
        receivers: Sequence[str],
        sites: Mapping[str, str],
        links: Sequence[tuple[int, float]] = (),
    ) -> Carrier:
        """Return the way to those receivers that are at a site.

        Args:
            site: the site.
            receivers: all operators that receive the output, and `RESULT_CONSUMER`.
            sites: operator -> its site; that of the source for `RESULT_CONSUMER`.
            links: links to cross.
        """
        return cls(site, tuple(name for name in receivers if sites[name] == site), tuple(links))

    @property
    def delay_s(self) -> float:
        """Seconds that a note takes."""
        return sum(delay_s for _, delay_s in self.links)


@dataclass
class _ItemTasks:
    """Tasks of one item while they are made."""

    visits: list[int] = field(default_factory=list)
    service_s: list[float] = field(default_factory=list)
    sources: list[_Sources] = field(default_factory=list)

    def add(self, visit: int, service_s: float, sources: _Sources) -> int:
        self.visits.append(visit)
        self.service_s.append(service_s)
        self.sources.append(sources)
        return len(self.visits) - 1


@lru_cache(maxsize=64)
def task_graph(
    profile: ConfigurationProfile,
    nodes: tuple[FlowNode, ...],
    sinks: tuple[str, ...],
    carriers: tuple[tuple[str, tuple[Carrier, ...]], ...],
    visits: tuple[tuple[str, int], ...],
) -> TaskGraph:
    """Return the tasks of a profile's items, before `TaskGraph.scaled`; cached, as plans differ in speeds mostly.

    Arguments are those of `TaskGraphBuilder`, as tuples of pairs.
    """
    builder = TaskGraphBuilder(nodes, sinks, dict(carriers), dict(visits))
    for runs, input_bytes in zip(runs_by_item(profile.operators), profile.input_bytes.tolist(), strict=True):
        check_runs(nodes, runs)
        builder.add(runs, input_bytes)
    return builder.build()


class TaskGraphBuilder:
    """Builder of the tasks of a query's items."""

    def __init__(
        self,
        nodes: Sequence[FlowNode],
        sinks: Sequence[str],
        carriers: Mapping[str, Sequence[Carrier]],
        visits: Mapping[str, int],
    ) -> None:
        """Begin without an item.

        Args:
            nodes: operators in topological order.
            sinks: names of the sinks.
            carriers: operator (empty for the input of the pipeline) -> ways of its output, in the order of sending.
            visits: operator -> its visit; the unit of its service times is that of the measured ones.
        """
        self._nodes = {node.name: node for node in nodes}
        self._scopes = scopes(tuple(nodes))
        self._sinks, self._carriers, self._visits = sinks, carriers, visits
        self._items: list[_ItemTasks] = []

    def add(self, runs: Mapping[str, ItemRuns], input_bytes: float) -> None:
        """Add an item with its measured runs."""
        self._items.append(_Item(self, runs, input_bytes).tasks)

    def build(self) -> TaskGraph:
        """Return the tasks of all items."""
        first_task = np.cumsum([0, *(len(item.visits) for item in self._items)])
        edges = [
            (first + source, first + target, delay_s)
            for item, first in zip(self._items, first_task.tolist(), strict=False)
            for target, sources in enumerate(item.sources)
            for source, delay_s in sources.items()
        ]
        edges.sort(key=lambda edge: edge[0])  # stable: edges of a task stay in the order of their targets
        count = int(first_task[-1])
        sources, targets, delays_s = zip(*edges, strict=True) if edges else ((), (), ())
        first_edge = np.concatenate(([0], np.cumsum(np.bincount(np.array(sources, dtype=np.int64), minlength=count))))
        chain = itertools.chain.from_iterable
        return TaskGraph(
            first_task=first_task,
            visit=np.array(list(chain(item.visits for item in self._items)), dtype=np.int64),
            service_s=np.array(list(chain(item.service_s for item in self._items))),
            inputs=np.bincount(np.array(targets, dtype=np.int64), minlength=count),
            first_edge=first_edge,
            target=np.array(targets, dtype=np.int64),
            delay_s=np.array(delays_s, dtype=np.float64),
            roots=np.array(
                [[task for task, sources in enumerate(item.sources) if not sources] for item in self._items],
                dtype=np.int64,
            ),
        )

    @property
    def nodes(self) -> Mapping[str, FlowNode]:
        return self._nodes

    @property
    def sinks(self) -> Sequence[str]:
        return self._sinks

    def scope(self, operator: str) -> Scope:
        return self._scopes[operator]

    def carriers(self, producer: str) -> Sequence[Carrier]:
        return self._carriers.get(producer, ())

    def visit(self, operator: str) -> int:
        return self._visits[operator]


class _Item:
    """One item: the messages on all edges of the pipeline, and the tasks that they cause."""

    def __init__(self, builder: TaskGraphBuilder, runs: Mapping[str, ItemRuns], input_bytes: float) -> None:
        self._builder, self._runs = builder, runs
        self.tasks = _ItemTasks()
        self._elements: dict[str, dict[RunPath, int | None]] = {}
        """Fan-out -> path -> number of elements, None where it does not run."""
        self._messages: dict[tuple[Edge, str], dict[RunPath, _Message]] = {}
        """(edge, consumer) -> path -> message."""
        self._send_value("", (), None, {}, input_bytes)
        for node in builder.nodes.values():
            self._run(node)
        results = [
            message.sources for sink in builder.sinks for message in self._messages[Edge(sink), ""].values()
        ]  # fmt: skip
        self.tasks.add(RESULT, 0.0, _latest(results))

    def _run(self, node: FlowNode) -> None:
        """Add the runs of an operator, and send its outputs, or notes that there are none."""
        visit = self._builder.visit(node.name)
        measured = iter(self._measured(node.name))
        for path in self._paths(self._builder.scope(node.name)):
            inputs = [self._input(node, edges, path) for edges in node.inputs] or [
                self._messages[Edge(""), node.name][()]
            ]
            if not all(message.has_value for message in inputs):
                self._send_nothing(node, path, _latest([self._all_sources(node, edges, path) for edges in node.inputs]))
                continue
            _, service_s, sizes, branches = next(measured)
            task = self.tasks.add(visit, service_s, _latest([message.sources for message in inputs]))
            if node.emits_many:
                self._elements.setdefault(node.name, {})[path] = len(sizes)
                if not sizes:
                    self._send_note(node.name, (*path, NO_ELEMENT), {task: 0.0})
            for index, (size_bytes, branch) in enumerate(zip(sizes, branches, strict=True)):
                own = (*path, index) if node.emits_many else path
                self._send_value(node.name, own, branch_name(node, branch), {task: 0.0}, size_bytes)

    def _measured(self, operator: str) -> Sequence[tuple[RunPath, float, Sequence[float], Sequence[int]]]:
        """Return path, service time, and sizes and branches of the outputs of each run of an operator."""
        runs = self._runs[operator]
        return list(zip(runs.paths, runs.service_s, runs.output_bytes, runs.branches, strict=True))

    def _paths(self, scope: Scope) -> list[RunPath]:
        """Return the paths of a scope, with `NO_ELEMENT` where a fan-out has no elements."""
        paths: list[RunPath] = [()]
        for fan_out in scope:
            elements = self._elements.setdefault(fan_out, {})
            paths = [
                (*path, index) for path in paths for index in (range(elements.get(path) or 0) or (NO_ELEMENT,))
            ]  # fmt: skip
        return paths

    def _input(self, node: FlowNode, edges: Sequence[Edge], path: RunPath) -> _Message:
        """Return the value of an input, or a message without one."""
        depth = len(output_scope(self._builder.nodes[edges[0].operator], self._builder.scope(edges[0].operator)))
        if depth == len(path):
            messages = [self._messages[edge, node.name][path] for edge in edges]
            return next((m for m in messages if m.has_value), _Message({}, has_value=False))
        fan_out = output_scope(self._builder.nodes[edges[0].operator], self._builder.scope(edges[0].operator))[-1]
        if self._elements.get(fan_out, {}).get(path) is None:
            return _Message({}, has_value=False)
        sources = []
        for child in self._children(fan_out, path):
            messages = [self._messages[edge, node.name][child] for edge in edges]
            sources += [next(([m.sources] for m in messages if m.has_value), [m.sources for m in messages])]
        return _Message(_latest(list(itertools.chain.from_iterable(sources))), has_value=True)

    def _children(self, fan_out: str, path: RunPath) -> list[RunPath]:
        return [(*path, index) for index in (range(self._elements[fan_out].get(path) or 0) or (NO_ELEMENT,))]

    def _all_sources(self, node: FlowNode, edges: Sequence[Edge], path: RunPath) -> _Sources:
        """Return what ends before all messages of an input have come."""
        scope = output_scope(self._builder.nodes[edges[0].operator], self._builder.scope(edges[0].operator))
        paths = [path] if len(scope) == len(path) else self._children(scope[-1], path)
        return _latest([self._messages[edge, node.name][own].sources for edge in edges for own in paths])

    def _send_nothing(self, node: FlowNode, path: RunPath, sources: _Sources) -> None:
        """Send notes of an operator that does not run."""
        if node.emits_many:
            self._elements.setdefault(node.name, {})[path] = None
        self._send_note(node.name, (*path, NO_ELEMENT) if node.emits_many else path, sources)

    def _send_note(self, producer: str, path: RunPath, sources: _Sources) -> None:
        for carrier in self._builder.carriers(producer):
            self._deliver(producer, path, carrier, _delayed(sources, carrier.delay_s), None, is_note=True)

    def _send_value(
        self, producer: str, path: RunPath, branch: str | None, sources: _Sources, size_bytes: float
    ) -> None:
        """Send a value once to each site where an operator receives its branch, and a note to the others."""
        for carrier in self._builder.carriers(producer):
            last = sources
            if any(edge.carries(branch) for name in carrier.consumers for edge in self._edges(producer, name)):
                for visit, delay_s in carrier.links:
                    last = {self.tasks.add(visit, size_bytes, last): delay_s}
            else:
                last = _delayed(sources, carrier.delay_s)
            self._deliver(producer, path, carrier, last, branch)

    def _deliver(
        self,
        producer: str,
        path: RunPath,
        carrier: Carrier,
        sources: _Sources,
        branch: str | None,
        *,
        is_note: bool = False,
    ) -> None:
        """Deliver a message to all consumers at a site, of which some may receive other branches only."""
        for consumer in carrier.consumers:
            for edge in self._edges(producer, consumer):
                message = _Message(sources, has_value=not is_note and edge.carries(branch))
                self._messages.setdefault((edge, consumer), {})[path] = message

    def _edges(self, producer: str, consumer: str) -> Sequence[Edge]:
        """Return the edges from a producer to a consumer; every output of a sink is part of the result."""
        if not consumer or not producer:
            return (Edge(producer),)
        return [edge for edges in self._builder.nodes[consumer].inputs for edge in edges if edge.operator == producer]


def _latest(sources: Sequence[_Sources]) -> _Sources:
    """Return all sources, each with its longest delay."""
    if len(sources) == 1:
        return sources[0]
    merged: dict[int, float] = {}
    for its_sources in sources:
        for task, delay_s in its_sources.items():
            merged[task] = max(merged.get(task, 0.0), delay_s)
    return merged


def _delayed(sources: _Sources, delay_s: float) -> _Sources:
    return {task: own_s + delay_s for task, own_s in sources.items()} if delay_s else sources
