"""A burst to five times the planned rates: with the ladder, without it, and with its money spent on the plan itself."""

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
"""After the burst, in which requests still count as of the burst: queues last longer than bursts."""
PHASES = (Phase(10.0, 1.0), Phase(BURST_S, PEAK), Phase(25.0, 1.0))
_BEGIN_S = PHASES[0].duration_s
_END_S = sum(phase.duration_s for phase in PHASES)
LADDER, PLAIN, SAME_COST = "with the ladder", "without", "without, its cost spent on more of the same"
_STRAGGLERS_S = 30.0


@dataclass(frozen=True)
class Burst:
    """One way to meet the burst, one repeat."""

    way: str
    repeat: int
    cost_usd_per_h: float
    """Of all replicas."""
    requests: int
    failed: int
    share_in_burst: float
    """Of the requests from the begin of the burst until some seconds after it, those within their limit."""
    share_overall: float
    steps: int
    first_step_s: float | None
    """From the begin of the burst."""
    queries: Mapping[str, Mapping[str, Any]]
    """What each query got from the begin of the burst until some seconds after it."""


def same_cost(matching: Matching, infrastructure: Infrastructure, usd_per_h: float) -> StandbyReplicas:
    """More replicas of what a matching deploys, for as much money and as far as there is room.

    One after the other, of the busiest deployment for which there is still money and room: what somebody without
    ladders would do who expects a burst.
    """
    replicas = {found.deployment: list(found.nodes) for found in matching.deployments}
    left, spent = usd_per_h * (1 + 1e-9), 0.0
    while True:
        for sized in sorted(matching.deployments, key=lambda one: -_busy(one, len(replicas[one.deployment]))):
            node = _room(sized, matching.deployments, replicas, infrastructure)
            if node is not None and spent + sized.demand.cost_usd_per_h <= left:
                replicas[sized.deployment].append(node)
                spent += sized.demand.cost_usd_per_h
                break
        else:
            break
    deployments = tuple(
        replace(
            found, nodes=tuple(replicas[found.deployment]), utilization=_busy(found, len(replicas[found.deployment]))
        )
        for found in matching.deployments
    )
    extra = {found.deployment: len(replicas[found.deployment]) - found.replicas for found in matching.deployments}
    return StandbyReplicas(deployments, {deployment: more for deployment, more in extra.items() if more}, (), spent)


def _busy(sized: SizedDeployment, replicas: int) -> float:
    return sized.utilization * sized.replicas / replicas


def _room(
    wanted: SizedDeployment,
    deployments: Sequence[SizedDeployment],
    replicas: Mapping[Any, Sequence[int]],
    infrastructure: Infrastructure,
) -> int | None:
    """A node of its pool on which one more fits."""
    pool = infrastructure.pool(wanted.deployment.pool)
    for node in range(pool.nodes):
        there = [
            (found.demand, list(replicas[found.deployment]).count(node))
            for found in deployments
            if found.deployment.pool == pool.name
        ]
        cpus = sum(demand.cpus * count for demand, count in there) + wanted.demand.cpus
        memory = sum(demand.memory_bytes * count for demand, count in there) + wanted.demand.memory_bytes
        share = 1.0 - pool.headroom
        if cpus <= pool.cpus * share + 1e-9 and memory <= pool.memory_bytes * share:
            return node
    return None


def bursts(scene: Scene, repeats: int, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """All ways at the same time on the same requests, so that what else this machine does meets them alike."""
    found: list[Burst] = []
    for repeat in range(repeats):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            found += runner.run(_repeat(scene, repeat))
        for one in found[-3:]:
            console.print(
                f"burst to {PEAK:g}x, {one.way}: {one.share_in_burst:.1%} in time, {one.steps} steps, "
                f"{format_usd_per_h(one.cost_usd_per_h)}",
                highlight=False,
            )
    return burst_figures(found), [{"part": "bursts", **vars(one)} for one in found]


async def _repeat(scene: Scene, repeat: int) -> list[Burst]:
    matching, infrastructure = scene.opened.plan_set.matching, scene.opened.specification.infrastructure
    assert infrastructure is not None
    alike = same_cost(matching, infrastructure, scene.ready.cost_usd_per_h)
    planned = StandbyReplicas(matching.deployments, {}, (), 0.0)
    folders = {way: scene.folder / f"engine-{number}" for number, way in enumerate((LADDER, PLAIN, SAME_COST))}
    engines = {way: start_daemon(folder) for way, folder in folders.items()}
    try:
        for way, extra in ((PLAIN, planned), (SAME_COST, alike)):
            await engines[way].apply(scene.planned(extra))
        ladder = _Ladder(scene, folders[LADDER], repeat)
        try:
            await ladder.begin()
            began_s = time.time()
            answers = await asyncio.gather(*(_sent(engine, scene, repeat) for engine in engines.values()))
        finally:
            await ladder.end()
    finally:
        for engine in engines.values():
            await engine.close()
    costs = {LADDER: scene.ready, PLAIN: planned, SAME_COST: alike}
    steps = {LADDER: ladder.steps(), PLAIN: [], SAME_COST: []}
    return [
        burst_of(scene, way, repeat, of_way, steps[way], began_s, _cost_usd_per_h(costs[way]))
        for way, of_way in zip(engines, answers, strict=True)
    ]


def _cost_usd_per_h(what_runs: StandbyReplicas) -> float:
    return sum(found.demand.cost_usd_per_h * found.replicas for found in what_runs.deployments)


async def _sent(engine: LocalEngineClient, scene: Scene, repeat: int) -> list[RequestOutcome]:
    arrivals = phased_arrivals(scene.rates_per_s, PHASES, repeat)
    requests = recorded_requests(arrivals, scene.items, repeat)
    return await OpenLoop(engine, _STRAGGLERS_S).send(arrivals, requests)


class _Ladder:
    """A controller at work beside the traffic."""

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
            on_event=self._note,
        )
        self._task: asyncio.Task[None] | None = None

    def _note(self, event: Event) -> None:
        self._events.append(event)
        if event.kind == APPLIED:
            self._ready.set()

    async def begin(self) -> None:
        """Returns when the engine runs what it shall."""
        self._controller.start()
        self._task = asyncio.create_task(self._controller.run(self._stop))
        await asyncio.wait_for(self._ready.wait(), 60.0)

    async def end(self) -> None:
        """Give the lease back."""
        self._stop.set()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._client.disconnect()
        self._records.close()

    def steps(self) -> list[Event]:
        """Down and up."""
        return [event for event in self._events if event.kind == STEP]


def burst_of(
    scene: Scene,
    way: str,
    repeat: int,
    answers: Sequence[RequestOutcome],
    steps: Sequence[Event],
    began_s: float,
    cost_usd_per_h: float,
) -> Burst:
    """What one way showed; `began_s`: when the traffic began, seconds since 1970."""
    counted = within(answers, _BEGIN_S, _BEGIN_S + BURST_S + AFTER_S)
    opened = scene.opened
    measured = measure_queries(
        opened.specification, opened.plan_set.matching, counted, {PIPELINE: scene.items}, BURST_S + AFTER_S, _BEGIN_S
    )
    first = [event.time_s - began_s - _BEGIN_S for event in steps if event.time_s >= began_s + _BEGIN_S]
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
            found.query: {
                "share_in_time": share_in_time([a for a in counted if a.query == found.query], scene.limits_s),
                "p95_s": None if found.latency_s is None else found.latency_s.p95_s,
                "accuracy": found.score,
            }
            for found in measured
        },
    )


def burst_figures(found: Sequence[Burst]) -> list[Figure]:
    """Medians over repeats; the objectives say that 95 % of the requests shall be in time."""
    by_way = {way: [one for one in found if one.way == way] for way in (LADDER, PLAIN, SAME_COST)}
    figures = []
    for way, ones in by_way.items():
        aim, cost = (0.95 if way == LADDER else None), format_usd_per_h(ones[0].cost_usd_per_h)
        share, overall = (
            float(np.median([getattr(one, name) for one in ones])) for name in ("share_in_burst", "share_overall")
        )
        figures += [
            Figure(f"burst to {PEAK:g}x for {BURST_S:g} s, in time: {way}", share, aim, "higher", "of requests",
                   f"from its begin until {AFTER_S:g} s after; replicas for {cost}"),
            Figure(f"the whole {_END_S:g} s around it, in time: {way}", overall, None, "higher", "of requests"),
        ]  # fmt: skip
    ladders = by_way[LADDER]
    first_s = [one.first_step_s for one in ladders if one.first_step_s is not None]
    figures += [
        Figure("steps on ladders", float(np.median([one.steps for one in ladders])), None, "lower", "steps"),
        Figure("requests that failed in bursts", float(sum(one.failed for one in found)), 0.0, "lower", "requests",
               f"of {sum(one.requests for one in found)}"),
    ]  # fmt: skip
    if first_s:
        name, note = "from the begin of the burst to the first step down", "the controller looks every 0.25 s"
        figures.append(Figure(name, float(np.median(first_s)), None, "lower", "s", note))
    return figures
