"""The same losses with a controller in force: what it says, what it does, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.serving.node_loss_analysis import NodeLoss, node_loss
from benchmarks.testbeds.ray_nodes import RayNodes, ray_nodes
from benchmarks.workloads.edge_and_cloud import CLOUD, EDGE, HEAD, LIMIT_S, QUERY, lost_scene
from circinus.api.plan_source import PlanFileSource
from circinus.control.controller import Controller
from circinus.control.state_store import ControlStateStore, Event
from circinus.serving import DesiredState, Engine, EngineStatus, Request, Response
from circinus.serving.loadtest.open_loop import Arrival, OpenLoop, RequestOutcome

if TYPE_CHECKING:
    from circinus.serving.ray.cluster import Cluster

RATE_PER_S = 16.0
"""That comes: 80 % of what two of the four planned replicas can do."""
BEFORE_S, AFTER_S = 5.0, 30.0
_READY_S = 120.0
_LOOK_S = 0.5
"""From one look at the cluster to the next: each takes time of a machine that has all nodes and the load."""


@dataclass(frozen=True)
class LossCase:
    """Which node is killed."""

    name: str
    edge_nodes: int
    router: bool
    """Whether it is the one with the router of the edge's site."""


CASES = (
    LossCase("a node is killed", 2, router=False),
    LossCase("a node with a router is killed", 2, router=True),
    LossCase("the only node of a pool is killed", 1, router=True),
)


@dataclass(frozen=True)
class Moment:
    """Something that happened, in seconds after the kill."""

    after_s: float
    what: str


@dataclass
class _Watched:
    """An engine, and when it was asked what."""

    engine: Any
    calls: list[tuple[float, float, str]] = field(default_factory=list)
    """(begin, end, what) by the loop's clock."""
    nodes: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """When the engine told that pools had so many nodes."""

    async def apply(self, desired: DesiredState) -> None:
        begin_s = _now_s()
        try:
            await self.engine.apply(desired)
        finally:
            self.calls.append((begin_s, _now_s(), "apply"))

    async def status(self) -> EngineStatus:
        begin_s = _now_s()
        found: EngineStatus = await self.engine.status()
        self.calls.append((begin_s, _now_s(), "status"))
        self.nodes.append((_now_s(), dict(found.nodes or {})))
        return found

    async def submit(self, request: Request) -> Response:
        answer: Response = await self.engine.submit(request)
        return answer

    async def close(self) -> None:
        await self.engine.close()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def controlled_loss(folder: Path, case: LossCase) -> tuple[NodeLoss, list[Moment]]:
    """Kill a node while requests come; what became of them, and what happened when.

    Args:
        folder: for plans; may be used again.
        case: which node.
    """
    plans = lost_scene(folder, case.edge_nodes)
    with ray_nodes(HEAD, [*[EDGE] * case.edge_nodes, CLOUD]) as nodes:
        return asyncio.run(_controlled(plans, case, nodes))


async def _controlled(plans: PlanFileSource, case: LossCase, nodes: RayNodes) -> tuple[NodeLoss, list[Moment]]:
    from circinus.serving.ray.cluster import Cluster
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.lease import ClusterLease

    clients, watched = RayEngine(nodes.settings), _Watched(RayEngine(nodes.settings))
    events: list[tuple[float, Event]] = []
    controlled, _ = plans.open()
    records = ControlStateStore(Path(":memory:"))
    controller = Controller(
        watched,
        controlled,
        records,
        holder="benchmark",
        clock=asyncio.get_running_loop().time,
        wall_clock=time.time,
        on_event=lambda event: events.append((_now_s(), event)),
        planner=plans.planner(),
        engine_lease=ClusterLease(nodes.settings),
    )
    stop, gone = asyncio.Event(), asyncio.Event()
    controller.start()
    controlling = asyncio.create_task(controller.run(stop))
    try:
        await asyncio.wait_for(_in_force(clients), _READY_S)
        count = int(RATE_PER_S * (BEFORE_S + AFTER_S))
        arrivals = [Arrival(number / RATE_PER_S, QUERY) for number in range(count)]
        requests = [Request(QUERY, str(number), number, 100.0) for number in range(count)]
        begin_s = _now_s()
        load = asyncio.create_task(OpenLoop(clients, stragglers_s=20.0).send(arrivals, requests))
        await asyncio.sleep(BEFORE_S)
        noticing = asyncio.create_task(_noticed(Cluster(nodes.settings), _now_s(), gone))
        killed_s = _now_s()
        replicas = await asyncio.to_thread(nodes.kill, EDGE, router=case.router)
        answers = await load
        gone.set()
        moments = [*_moments(watched, events, killed_s), *await noticing, *_answered(answers, killed_s - begin_s)]
        until_s, limits_s = BEFORE_S + AFTER_S, {QUERY: LIMIT_S}
        loss = node_loss(f"controlled: {case.name}", answers, killed_s - begin_s, until_s, limits_s, replicas)
        return loss, sorted(moments, key=lambda moment: moment.after_s)
    finally:
        stop.set()
        await asyncio.gather(controlling, return_exceptions=True)
        await watched.close()
        records.close()


async def _in_force(engine: Engine) -> None:
    """Until all that is planned runs and answers."""
    while True:
        with suppress(Exception):  # it is being brought about
            status = await engine.status()
            if status.state and status.healthy:
                await engine.submit(Request(QUERY, "first", 0, 100.0))
                return
        await asyncio.sleep(0.25)


async def _noticed(cluster: Cluster, killed_s: float, gone: asyncio.Event) -> list[Moment]:
    """What Ray itself says: that a node is dead, and how many replicas of what serve."""
    moments: list[Moment] = []
    before = await asyncio.to_thread(_counts, cluster)
    while not gone.is_set():
        await asyncio.sleep(_LOOK_S)
        counts = await asyncio.to_thread(_counts, cluster)
        other = [what for what in sorted(counts.keys() | before.keys()) if counts.get(what, 0) != before.get(what, 0)]
        moments += [Moment(_now_s() - killed_s, f"Ray: {counts.get(what, 0)} {what}") for what in other]
        before = counts
    return moments


def _counts(cluster: Cluster) -> dict[str, int]:
    nodes = {f"nodes of {pool}": found.count for pool, found in cluster.pools().items()}
    return nodes | {f"replicas of {name}": found.ready for name, found in cluster.snapshot().items()}


def _moments(watched: _Watched, events: Sequence[tuple[float, Event]], killed_s: float) -> list[Moment]:
    """What the controller saw, said and did."""
    before = next((nodes for at_s, nodes in reversed(watched.nodes) if at_s < killed_s), {})
    seen = [at_s for at_s, nodes in watched.nodes if at_s > killed_s and nodes != before][:1]
    moments = [Moment(at_s - killed_s, "the engine tells of it") for at_s in seen]
    moments += [Moment(at_s - killed_s, f"{e.kind}: {e.reason}") for at_s, e in events if at_s > killed_s]
    for begin_s, end_s, what in watched.calls:
        if end_s > killed_s and (what == "apply" or end_s - begin_s > 1.0):
            moments.append(Moment(begin_s - killed_s, f"{what}, {end_s - begin_s:.2f} s"))
    return moments


def _answered(answers: Sequence[RequestOutcome], killed_s: float) -> list[Moment]:
    """When answers came again, of requests that came after the kill."""
    ends = [a.scheduled_s + a.latency_s for a in answers if a.response is not None and a.scheduled_s > killed_s]
    return [Moment(min(ends) - killed_s, "first answer to a request that came afterwards")] if ends else []
