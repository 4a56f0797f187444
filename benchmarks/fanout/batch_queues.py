"""Queues with batch arrivals, M^X/M/c: exact waits of elements and of items, the simulator and the formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.arrays import FloatArray
from circinus.estimation.merged_load import station_load
from circinus.estimation.traffic import RequestStream
from circinus.operators.protocol import NO_BRANCH
from circinus.profiling.item_runs import ItemRuns
from circinus.queueing.arrivals import Poisson
from circinus.queueing.fcfs import Station
from circinus.simulation.engine import Simulation
from circinus.simulation.model import QueryModel, Requests, Visit
from circinus.simulation.report import percentile_interval
from circinus.simulation.task_graph import RESULT_CONSUMER, Carrier, TaskGraph, TaskGraphBuilder
from circinus.specification.dataflow import Edge, FlowNode
from circinus.statistics.student_t import student_t_quantile

SERVERS = (1, 2, 4)
UTILIZATIONS = (0.3, 0.5, 0.7, 0.8)
MEAN_SIZES = (2.0, 8.0)
_PERCENTILES = (50.0, 95.0, 99.0)
_SECTIONS = 20
_NEAR = 0.05
_NODES = (
    FlowNode("split", (), emits_many=True),
    FlowNode("work", ((Edge("split"),),)),
    FlowNode("join", ((Edge("work"),),), gathers=True),
)


@dataclass(frozen=True)
class BatchQueue:
    """M^X/M/c with geometric batch sizes, and service times of mean 1."""

    servers: int
    utilization: float
    mean_size: float

    @property
    def rate_per_s(self) -> float:
        """Rate of items."""
        return self.utilization * self.servers / self.mean_size

    def states(self) -> FloatArray:
        """(n,) probability that 0, 1, ... elements are present, from the balance of the flows across each level.

        Elements enter above a level n from all levels below it, and leave it one by one.
        """
        continues = 1 - 1 / self.mean_size  # P(X > k) = continues^k
        weights, above = [1.0], 1.0
        while len(weights) < 64 or weights[-1] > 1e-14 * max(weights):
            served = min(len(weights), self.servers)
            weights.append(self.rate_per_s * above / served)
            above = above * continues + weights[-1]
        states = np.array(weights)
        return np.asarray(states / states.sum())

    def item_wait_beyond(self, time_s: float) -> float:
        """Return the probability that the first element of an item waits longer."""
        return float(self.states() @ self._beyond(np.arange(len(self.states())), time_s))

    def element_wait_beyond(self, time_s: float) -> float:
        """Return the probability that an element waits longer: those of its item before it are ahead, too."""
        before = (1 - 1 / self.mean_size) ** np.arange(len(self.states())) / self.mean_size
        ahead = np.convolve(self.states(), before)
        return float(ahead @ self._beyond(np.arange(len(ahead)), time_s))

    def mean_element_wait_s(self) -> float:
        """Return the mean wait of elements, by Little's law."""
        states = self.states()
        waiting = np.maximum(np.arange(len(states)) - self.servers, 0)
        return float(states @ waiting) / (self.rate_per_s * self.mean_size)

    def mean_item_wait_s(self) -> float:
        """Return the mean wait of first elements."""
        states = self.states()
        return float(states @ np.maximum(np.arange(len(states)) - self.servers + 1, 0)) / self.servers

    def percentile_s(self, percentile: float, *, of_items: bool) -> float:
        """Return a percentile of the waits, by bisection."""
        beyond = self.item_wait_beyond if of_items else self.element_wait_beyond
        if beyond(0.0) <= 1 - percentile / 100:
            return 0.0
        low_s, high_s = 0.0, 1.0
        while beyond(high_s) > 1 - percentile / 100:
            high_s *= 2
        for _ in range(50):
            middle_s = (low_s + high_s) / 2
            low_s, high_s = (middle_s, high_s) if beyond(middle_s) > 1 - percentile / 100 else (low_s, middle_s)
        return high_s

    def _beyond(self, ahead: Any, time_s: float) -> FloatArray:
        """P(wait > t) of an element behind so many: an Erlang distribution of the ends that it waits for."""
        phases = np.maximum(ahead - self.servers + 1, 0)
        mean = self.servers * time_s
        terms = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) if mean else float(k == 0)
                 for k in range(int(phases.max()))]  # fmt: skip
        return np.asarray(np.concatenate(([0.0], np.cumsum(terms)))[phases])


def batch_queues(items: int, console: Console) -> PartResult:
    """Compare exact waits with the simulator on so many items of each queue, and with the formulas."""
    rows = []
    queues = [BatchQueue(c, rho, size) for c in SERVERS for size in MEAN_SIZES for rho in UTILIZATIONS]
    for seed, queue in enumerate(track(queues, "queues with batches", console=console, transient=True)):
        rows.append(_row(queue, items, seed))
    console.print(_table(rows))
    inside = [row["inside"] for row in rows]
    within = [row["formula_error"] for row in rows if row["servers"] == 1]
    near = [row for row in rows if abs(row["formula_error"]) <= _NEAR]
    return [
        Figure("simulator: exact value inside its 95 % interval, M^X/M/c", float(np.mean(np.concatenate(inside))), 0.95,
               "higher", "of intervals", f"{len(rows)} queues, mean and p95 of the waits of elements and items"),
        Figure("formula: largest error of the mean wait of items, one server", max(map(abs, within)), _NEAR, "lower",
               "of the wait", "M^X/M/1"),
        Figure("formula within 5 % of the mean wait of items", len(near) / len(rows), None, "higher", "of queues",
               "all others are simulated, as every plan with elements is"),
    ], rows  # fmt: skip


def _row(queue: BatchQueue, items: int, seed: int) -> dict[str, Any]:
    waits_s = _simulated(queue, items, seed)
    exact = {
        "item": (queue.mean_item_wait_s(), queue.percentile_s(95.0, of_items=True)),
        "element": (queue.mean_element_wait_s(), queue.percentile_s(95.0, of_items=False)),
    }
    inside = []
    for kind, (mean_s, p95_s) in exact.items():
        inside += [_has_mean(waits_s[kind], mean_s), _has_percentile(waits_s[kind], 95.0, p95_s)]
    square = queue.mean_size * (2 * queue.mean_size - 1) + queue.mean_size  # of the sum of X exponentials
    cube = _third_moment(queue.mean_size)
    stream = RequestStream(queue.rate_per_s, queue.mean_size, square, cube, has_elements=True)
    station = station_load(queue.servers, stream)
    formula_s = float(station.wait(station.utilization).mean_s)
    return {
        "part": "closed",
        "servers": queue.servers,
        "utilization": queue.utilization,
        "mean_size": queue.mean_size,
        "exact_item_wait_s": exact["item"][0],
        "exact_element_wait_s": exact["element"][0],
        "simulated_item_wait_s": float(waits_s["item"].mean()),
        "simulated_element_wait_s": float(waits_s["element"].mean()),
        "formula_item_wait_s": formula_s,
        "formula_error": formula_s / exact["item"][0] - 1,
        "inside": inside,
    }


def _third_moment(mean_size: float) -> float:
    """Return the third moment of a geometric number of standard exponentials, which is exponential."""
    return 6.0 * mean_size**3


def _simulated(queue: BatchQueue, items: int, seed: int) -> dict[str, FloatArray]:
    """Return the waits of first elements, and of all elements, without those of the first tenth of the items."""
    rng = np.random.default_rng([seed, 27])
    sizes = rng.geometric(1 / queue.mean_size, items)
    graph, total_s = _tasks(sizes, rng)
    none = np.zeros(items)
    visits = (Visit(0, (), none), Visit(1, (0,), total_s), Visit(2, (1,), none))
    model = QueryModel("q", Poisson(queue.rate_per_s), items, visits, (2,), tasks=graph)
    arrival_s = np.cumsum(rng.exponential(1 / queue.rate_per_s, items))
    waits: list[tuple[FloatArray, Any]] = []
    simulation = Simulation(
        [Station("split", 1_000_000), Station("work", queue.servers), Station("join", 1_000_000)],
        [model],
        duration_s=float(arrival_s[-1]) + 1.0,
        requests=[Requests(arrival_s, np.arange(items))],
        watch=lambda left: waits.append(
            (left.start_s[left.visit == 1] - left.time_s[left.visit == 1], left.request[left.visit == 1])
        ),
    )
    simulation.run()
    wait_s = np.concatenate([part for part, _ in waits])
    token = np.concatenate([part for _, part in waits])
    order = np.argsort(token)
    wait_s, token = wait_s[order], token[order]
    first_task = graph.first_task[:-1]
    is_first = np.isin(token, first_task + 1)
    late = token >= first_task[items // 10]
    return {"item": wait_s[is_first & late], "element": wait_s[late]}


def _tasks(sizes: Any, rng: np.random.Generator) -> tuple[TaskGraph, FloatArray]:
    sites = dict.fromkeys((RESULT_CONSUMER, "split", "work", "join"), "here")
    receivers = {"": ["split"], "split": ["work"], "work": ["join"], "join": [RESULT_CONSUMER]}
    carriers = {producer: [Carrier.of("here", names, sites)] for producer, names in receivers.items()}
    visits = {"split": 0, "work": 1, "join": 2}
    builder = TaskGraphBuilder(_NODES, ["join"], carriers, visits)
    total_s = np.zeros(len(sizes))
    single = ItemRuns.single(0.0, 1.0)
    for item, size in enumerate(sizes.tolist()):
        service_s = tuple(rng.exponential(1.0, size).tolist())
        total_s[item] = sum(service_s)
        paths = tuple((index,) for index in range(size))
        split = ItemRuns(((),), (0.0,), ((1.0,) * size,), ((NO_BRANCH,) * size,))
        work = ItemRuns(paths, service_s, ((1.0,),) * size, ((NO_BRANCH,),) * size)
        builder.add({"split": split, "work": work, "join": single}, 1.0)
    return builder.build(), total_s


def _has_mean(waits_s: FloatArray, exact_s: float) -> bool:
    """Return whether the 95 % interval of the means of sections contains the mean."""
    means = np.array([section.mean() for section in np.array_split(waits_s, _SECTIONS)])
    reach = student_t_quantile(0.025, _SECTIONS - 1) * means.std(ddof=1) / math.sqrt(_SECTIONS)
    return bool(abs(means.mean() - exact_s) <= reach)


def _has_percentile(waits_s: FloatArray, percentile: float, exact_s: float) -> bool:
    interval = percentile_interval(waits_s, percentile)
    return interval.lower - 1e-12 <= exact_s <= interval.upper + 1e-12


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("servers", "mean size", "utilization", "item", "simulated", "formula", "element", "simulated")
    table.title = "Mean waits in M^X/M/c, in service times"
    keys = ("exact_item", "simulated_item", "formula_item", "exact_element", "simulated_element")
    for row in rows:
        waits = [f"{row[f'{key}_wait_s']:.3f}" for key in keys]
        table.add_row(str(row["servers"]), f"{row['mean_size']:g}", f"{row['utilization']:g}", *waits)
    return table
