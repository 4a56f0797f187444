"""Loss of nodes with a controller: its events and actions over time."""

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
"""Request rate: 80 % of the capacity of two of the four planned replicas."""
BEFORE_S, AFTER_S = 5.0, 30.0
_READY_S = 120.0
_POLL_S = 0.5
"""Polling interval of the cluster; polling uses CPU of the machine that runs all nodes and the load."""


@dataclass(frozen=True)
class LossCase:
    """Node that is killed."""

    name: str
    edge_nodes: int
    router: bool
    """True if the node has the router of the edge site."""


CASES = (
    LossCase("a node is killed", 2, router=False),
    LossCase("a node with a router is killed", 2, router=True),
    LossCase("the only node of a pool is killed", 1, router=True),
)


@dataclass(frozen=True)
class Moment:
    """Event, in seconds after the kill."""

    after_s: float
    what: str


@dataclass
class _ObservedEngine:
    """Engine that records its calls."""

    engine: Any
    calls: list[tuple[float, float, str]] = field(default_factory=list)
    """(start, end, method) by the clock of the loop."""
    nodes: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    """Reported nodes per pool, with the time of the report."""

    async def apply(self, desired: DesiredState) -> None:
        start_s = _now_s()
        try:
            await self.engine.apply(desired)
        finally:
            self.calls.append((start_s, _now_s(), "apply"))

    async def status(self) -> EngineStatus:
        start_s = _now_s()
        status: EngineStatus = await self.engine.status()
        self.calls.append((start_s, _now_s(), "status"))
        self.nodes.append((_now_s(), dict(status.nodes or {})))
        return status

    async def submit(self, request: Request) -> Response:
        answer: Response = await self.engine.submit(request)
        return answer

    async def close(self) -> None:
        await self.engine.close()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def controlled_loss(folder: Path, case: LossCase) -> tuple[NodeLoss, list[Moment]]:
    """Kill a node under load; return the analysis of the loss and the events after it.

    Args:
        folder: folder of plans, which may be reused.
        case: node to kill.
    """
    plans = lost_scene(folder, case.edge_nodes)
    with ray_nodes(HEAD, [*[EDGE] * case.edge_nodes, CLOUD]) as nodes:
        return asyncio.run(_controlled(plans, case, nodes))


async def _controlled(plans: PlanFileSource, case: LossCase, nodes: RayNodes) -> tuple[NodeLoss, list[Moment]]:
    from circinus.serving.ray.cluster import Cluster
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.lease import ClusterLease

    clients, observed = RayEngine(nodes.settings), _ObservedEngine(RayEngine(nodes.settings))
    events: list[tuple[float, Event]] = []
    records = ControlStateStore(Path(":memory:"))
    controller = Controller(
        observed,
        plans.managed,
        records,
        holder="benchmark",
        clock=asyncio.get_running_loop().time,
        wall_clock=time.time,
        on_event=lambda event: events.append((_now_s(), event)),
        planner=plans.planner(),
        engine_lease=ClusterLease(nodes.settings),
    )
    stop, ended = asyncio.Event(), asyncio.Event()
    controlling = asyncio.create_task(controller.run(stop))
    try:
        await asyncio.wait_for(_in_force(clients), _READY_S)
        count = int(RATE_PER_S * (BEFORE_S + AFTER_S))
        arrivals = [Arrival(number / RATE_PER_S, QUERY) for number in range(count)]
        requests = [Request(QUERY, str(number), number, 100.0) for number in range(count)]
        start_s = _now_s()
        load = asyncio.create_task(OpenLoop(clients, stragglers_s=20.0).send(arrivals, requests))
        await asyncio.sleep(BEFORE_S)
        observing = asyncio.create_task(_cluster_moments(Cluster(nodes.settings), _now_s(), ended))
        killed_s = _now_s()
        replicas = await asyncio.to_thread(nodes.kill, EDGE, router=case.router)
        answers = await load
        ended.set()
        moments = [*_moments(observed, events, killed_s), *await observing, *_answered(answers, killed_s - start_s)]
        until_s, limits_s = BEFORE_S + AFTER_S, {QUERY: LIMIT_S}
        loss = node_loss(f"controlled: {case.name}", answers, killed_s - start_s, until_s, limits_s, replicas)
        return loss, sorted(moments, key=lambda moment: moment.after_s)
    finally:
        stop.set()
        await asyncio.gather(controlling, return_exceptions=True)
        await observed.close()
        records.close()


async def _in_force(engine: Engine) -> None:
    """Wait until the planned state is deployed and answers."""
    while True:
        with suppress(Exception):  # the state is being applied
            status = await engine.status()
            if status.state and status.healthy:
                await engine.submit(Request(QUERY, "first", 0, 100.0))
                return
        await asyncio.sleep(0.25)


async def _cluster_moments(cluster: Cluster, killed_s: float, ended: asyncio.Event) -> list[Moment]:
    """Return changes of the numbers of nodes and replicas, as reported by Ray."""
    moments: list[Moment] = []
    before = await asyncio.to_thread(_counts, cluster)
    while not ended.is_set():
        await asyncio.sleep(_POLL_S)
        counts = await asyncio.to_thread(_counts, cluster)
        changed = [what for what in sorted(counts.keys() | before.keys()) if counts.get(what, 0) != before.get(what, 0)]
        moments += [Moment(_now_s() - killed_s, f"Ray: {counts.get(what, 0)} {what}") for what in changed]
        before = counts
    return moments


def _counts(cluster: Cluster) -> dict[str, int]:
    nodes = {f"nodes of {pool}": nodes.count for pool, nodes in cluster.pools().items()}
    return nodes | {f"replicas of {name}": replicas.ready for name, replicas in cluster.snapshot().items()}


def _moments(observed: _ObservedEngine, events: Sequence[tuple[float, Event]], killed_s: float) -> list[Moment]:
    """Return the observations, events and calls of the controller."""
    before = next((nodes for at_s, nodes in reversed(observed.nodes) if at_s < killed_s), {})
    seen = [at_s for at_s, nodes in observed.nodes if at_s > killed_s and nodes != before][:1]
    moments = [Moment(at_s - killed_s, "the engine tells of it") for at_s in seen]
    moments += [Moment(at_s - killed_s, f"{e.kind}: {e.reason}") for at_s, e in events if at_s > killed_s]
    for start_s, end_s, what in observed.calls:
        if end_s > killed_s and (what == "apply" or end_s - start_s > 1.0):
            moments.append(Moment(start_s - killed_s, f"{what}, {end_s - start_s:.2f} s"))
    return moments


def _answered(answers: Sequence[RequestOutcome], killed_s: float) -> list[Moment]:
    """Return the first answer to a request that was sent after the kill."""
    ends = [a.scheduled_s + a.latency_s for a in answers if a.response is not None and a.scheduled_s > killed_s]
    return [Moment(min(ends) - killed_s, "first answer to a request that came afterwards")] if ends else []
