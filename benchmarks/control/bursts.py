"""Burst to five times the planned rates: with the ladder, without it, and with its cost spent on more replicas."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.burst_shop import APPLIED, PEAK, PIPELINE, STEP, Scene
from benchmarks.workloads.traffic import Phase, lost, phased_arrivals, recorded_requests, share_in_time, within
from circinus.control.controller import Controller
from circinus.control.ladders.standby import StandbyReplicas
from circinus.control.state_store import ControlStateStore, Event
from circinus.matching import Matching, SizedDeployment
from circinus.serving.loadtest.open_loop import OpenLoop, RequestOutcome
from circinus.serving.loadtest.scoring import measure_queries
from circinus.serving.local.client import LocalEngineClient, start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.specification import Infrastructure
from circinus.specification.formatting import format_usd_per_h

BURST_S = 20.0
AFTER_S = 10.0
"""Seconds after the burst that still count as burst, because queues outlast it."""
PHASES = (Phase(10.0, 1.0), Phase(BURST_S, PEAK), Phase(25.0, 1.0))
_BURST_START_S = PHASES[0].duration_s
_END_S = sum(phase.duration_s for phase in PHASES)
LADDER, PLAIN, SAME_COST = "with the ladder", "without", "without, its cost spent on more of the same"
_STRAGGLERS_S = 30.0


@dataclass(frozen=True)
class Burst:
    """Result of one repeat of one way to serve the burst."""

    way: str
    repeat: int
    cost_usd_per_h: float
    """Cost of all replicas."""
    requests: int
    failed: int
    share_in_burst: float
    """Share of requests within their limit, from the start of the burst until `AFTER_S` after it."""
    share_overall: float
    steps: int
    first_step_s: float | None
    """Seconds from the start of the burst."""
    queries: Mapping[str, Mapping[str, Any]]
    """Results per query, from the start of the burst until `AFTER_S` after it."""


def same_cost(matching: Matching, infrastructure: Infrastructure, usd_per_h: float) -> StandbyReplicas:
    """Add replicas to the deployments of a matching, within a cost and the capacity of nodes.

    Each replica goes to the busiest deployment that cost and capacity allow: provisioning for a burst without ladders.
    """
    replicas = {sized.deployment: list(sized.nodes) for sized in matching.deployments}
    budget, spent = usd_per_h * (1 + 1e-9), 0.0
    while True:
        for sized in sorted(
            matching.deployments, key=lambda sized: -_utilization(sized, len(replicas[sized.deployment]))
        ):
            node = _free_node(sized, matching.deployments, replicas, infrastructure)
            if node is not None and spent + sized.demand.cost_usd_per_h <= budget:
                replicas[sized.deployment].append(node)
                spent += sized.demand.cost_usd_per_h
                break
        else:
            break
    deployments = tuple(
        replace(sized, nodes=tuple(nodes), utilization=_utilization(sized, len(nodes)))
        for sized in matching.deployments
        for nodes in [replicas[sized.deployment]]
    )
    extra = {sized.deployment: len(replicas[sized.deployment]) - sized.replicas for sized in matching.deployments}
    return StandbyReplicas(deployments, {deployment: count for deployment, count in extra.items() if count}, (), spent)


def _utilization(sized: SizedDeployment, replicas: int) -> float:
    return sized.utilization * sized.replicas / replicas


def _free_node(
    added: SizedDeployment,
    deployments: Sequence[SizedDeployment],
    replicas: Mapping[Any, Sequence[int]],
    infrastructure: Infrastructure,
) -> int | None:
    """Return a node of the pool with room for one more replica."""
    pool = infrastructure.pool(added.deployment.pool)
    for node in range(pool.nodes):
        present = [
            (sized.demand, list(replicas[sized.deployment]).count(node))
            for sized in deployments
            if sized.deployment.pool == pool.name
        ]
        cpus = sum(demand.cpus * count for demand, count in present) + added.demand.cpus
        memory = sum(demand.memory_bytes * count for demand, count in present) + added.demand.memory_bytes
        share = 1.0 - pool.headroom
        if cpus <= pool.cpus * share + 1e-9 and memory <= pool.memory_bytes * share:
            return node
    return None


def bursts(scene: Scene, repeats: int, console: Console) -> PartResult:
    """Run all ways concurrently on the same requests, so that other load of this machine affects them alike."""
    results: list[Burst] = []
    for repeat in range(repeats):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            results += runner.run(_repeat(scene, repeat))
        for burst in results[-3:]:
            console.print(
                f"burst to {PEAK:g}x, {burst.way}: {burst.share_in_burst:.1%} in time, {burst.steps} steps, "
                f"{format_usd_per_h(burst.cost_usd_per_h)}",
                highlight=False,
            )
    return burst_figures(results), [{"part": "bursts", **vars(burst)} for burst in results]


async def _repeat(scene: Scene, repeat: int) -> list[Burst]:
    matching, infrastructure = scene.opened.plan_set.matching, scene.opened.specification.infrastructure
    assert infrastructure is not None
    larger = same_cost(matching, infrastructure, scene.ready.cost_usd_per_h)
    planned = StandbyReplicas(matching.deployments, {}, (), 0.0)
    folders = {way: scene.folder / f"engine-{number}" for number, way in enumerate((LADDER, PLAIN, SAME_COST))}
    engines = {way: start_daemon(folder) for way, folder in folders.items()}
    try:
        for way, extra in ((PLAIN, planned), (SAME_COST, larger)):
            await engines[way].apply(scene.planned(extra))
        ladder = _Ladder(scene, folders[LADDER], repeat)
        try:
            await ladder.begin()
            start_s = time.time()
            answers = await asyncio.gather(*(_sent(engine, scene, repeat) for engine in engines.values()))
        finally:
            await ladder.end()
    finally:
        for engine in engines.values():
            await engine.close()
    costs = {LADDER: scene.ready, PLAIN: planned, SAME_COST: larger}
    steps = {LADDER: ladder.steps(), PLAIN: [], SAME_COST: []}
    return [
        burst_of(scene, way, repeat, of_way, steps[way], start_s, _cost_usd_per_h(costs[way]))
        for way, of_way in zip(engines, answers, strict=True)
    ]


def _cost_usd_per_h(running: StandbyReplicas) -> float:
    return sum(sized.demand.cost_usd_per_h * sized.replicas for sized in running.deployments)


async def _sent(engine: LocalEngineClient, scene: Scene, repeat: int) -> list[RequestOutcome]:
    arrivals = phased_arrivals(scene.rates_per_s, PHASES, repeat)
    requests = recorded_requests(arrivals, scene.items, repeat)
    return await OpenLoop(engine, _STRAGGLERS_S).send(arrivals, requests)


class _Ladder:
    """Controller that runs concurrently with the traffic."""

    def __init__(self, scene: Scene, folder: Path, repeat: int) -> None:
        self._events: list[Event] = []
        self._ready, self._stop = asyncio.Event(), asyncio.Event()
        self._client = LocalEngineClient(folder)
        self._records = ControlStateStore(scene.folder / f"control-{repeat}.sqlite")
        self._controller = Controller(
            self._client,
            scene.controlled(dwell_s=10.0),
            self._records,
            holder="the benchmark",
            clock=asyncio.get_running_loop().time,
            wall_clock=time.time,
            on_event=self._record,
        )
        self._task: asyncio.Task[None] | None = None

    def _record(self, event: Event) -> None:
        self._events.append(event)
        if event.kind == APPLIED:
            self._ready.set()

    async def begin(self) -> None:
        """Start the controller and wait until the planned state is deployed."""
        self._task = asyncio.create_task(self._controller.run(self._stop))
        await asyncio.wait_for(self._ready.wait(), 60.0)

    async def end(self) -> None:
        """Stop the controller, which releases its lease."""
        self._stop.set()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._client.disconnect()
        self._records.close()

    def steps(self) -> list[Event]:
        """Return the steps down and up."""
        return [event for event in self._events if event.kind == STEP]


def burst_of(
    scene: Scene,
    way: str,
    repeat: int,
    answers: Sequence[RequestOutcome],
    steps: Sequence[Event],
    start_s: float,
    cost_usd_per_h: float,
) -> Burst:
    """Return the result of one way; `start_s` is the start of the traffic in seconds since 1970."""
    counted = within(answers, _BURST_START_S, _BURST_START_S + BURST_S + AFTER_S)
    opened = scene.opened
    measured = measure_queries(
        opened.specification,
        opened.plan_set.matching,
        counted,
        {PIPELINE: scene.items},
        BURST_S + AFTER_S,
        _BURST_START_S,
    )
    first = [event.time_s - start_s - _BURST_START_S for event in steps if event.time_s >= start_s + _BURST_START_S]
    return Burst(
        way,
        repeat,
        cost_usd_per_h,
        requests=len(answers),
        failed=lost(answers),
        share_in_burst=share_in_time(counted, scene.limits_s),
        share_overall=share_in_time(answers, scene.limits_s),
        steps=len(steps),
        first_step_s=min(first, default=None),
        queries={
            query.query: {
                "share_in_time": share_in_time([a for a in counted if a.query == query.query], scene.limits_s),
                "p95_s": None if query.latency_s is None else query.latency_s.p95_s,
                "accuracy": query.score,
            }
            for query in measured
        },
    )


def burst_figures(results: Sequence[Burst]) -> list[Figure]:
    """Return medians over repeats; the SLOs require 95 % of the requests to be in time."""
    by_way = {way: [burst for burst in results if burst.way == way] for way in (LADDER, PLAIN, SAME_COST)}
    figures = []
    for way, repeats in by_way.items():
        aim, cost = (0.95 if way == LADDER else None), format_usd_per_h(repeats[0].cost_usd_per_h)
        share, overall = (
            float(np.median([getattr(burst, name) for burst in repeats]))
            for name in ("share_in_burst", "share_overall")
        )
        figures += [
            Figure(f"burst to {PEAK:g}x for {BURST_S:g} s, in time: {way}", share, aim, "higher", "of requests",
                   f"from its begin until {AFTER_S:g} s after; replicas for {cost}"),
            Figure(f"the whole {_END_S:g} s around it, in time: {way}", overall, None, "higher", "of requests"),
        ]  # fmt: skip
    ladders = by_way[LADDER]
    first_s = [burst.first_step_s for burst in ladders if burst.first_step_s is not None]
    figures += [
        Figure("steps on ladders", float(np.median([burst.steps for burst in ladders])), None, "lower", "steps"),
        Figure("requests that failed in bursts", float(sum(burst.failed for burst in results)), 0.0, "lower",
               "requests", f"of {sum(burst.requests for burst in results)}"),
    ]  # fmt: skip
    if first_s:
        name, note = "from the begin of the burst to the first step down", "polling interval of the controller: 0.25 s"
        figures.append(Figure(name, float(np.median(first_s)), None, "lower", "s", note))
    return figures
