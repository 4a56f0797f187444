"""Loss of a node of a Ray cluster under load: failed requests, and time until the remaining nodes serve the load."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.control.node_loss import CASES, Moment, controlled_loss
from benchmarks.harness.benchmark import PartResult
from benchmarks.serving.node_loss_analysis import NodeLoss, loss_figures, node_loss
from benchmarks.testbeds.ray_nodes import RayNodes, ray_nodes
from benchmarks.workloads.operators import with_pauses
from circinus.serving import DesiredState, Request
from circinus.serving.loadtest.open_loop import Arrival, OpenLoop
from circinus.testing.desired_states import StageSpec, route, state

_PAUSE_S = 0.1
"""Service time: long, so that few requests keep replicas busy on a machine that also runs all nodes."""
_REPLICAS = 4
"""Number of replicas, two on each of two nodes; one node has room for all."""
_RATE_PER_S = 16.0
"""Request rate: 80 % of the capacity of the replicas on one node, so that the remaining capacity suffices."""
_LIMIT_S = 1.0
_BEFORE_S, _AFTER_S = 5.0, 25.0
_QUERY = "q"


def lost_nodes(repeats: int, console: Console) -> PartResult:
    """Kill nodes with and without the router of their site, without a controller; then all cases with a controller."""
    rows: list[dict[str, Any]] = []
    losses: list[NodeLoss] = []

    def record(loss: NodeLoss, moments: Sequence[Moment] = ()) -> None:
        losses.append(loss)
        listed = [(round(moment.after_s, 2), moment.what) for moment in moments]
        rows.append({"part": "lost nodes", **vars(loss), "moments": listed})
        console.print(
            f"{loss.what}: {loss.failed} of {loss.requests} requests failed, {loss.in_flight} were under way, back "
            f"after {loss.back_s:.1f} s",
            highlight=False,
        )

    for router_lost in (False, True):
        for _ in range(repeats):
            with ray_nodes("near", ["far", "far"]) as nodes:
                record(asyncio.run(_lost(nodes, router_lost=router_lost)))
    with tempfile.TemporaryDirectory(prefix="circinus-lost-node-") as folder:
        for case in CASES:
            for _ in range(repeats):
                record(*controlled_loss(Path(folder), case))
    return loss_figures(losses), rows


def _desired() -> DesiredState:
    step = StageSpec("slow", "pause", knobs=(("seconds", _PAUSE_S),), pool="far", replicas=_REPLICAS)
    return with_pauses(state([route(_QUERY, step)], [step]), [step], cpus=0.5)


async def _lost(nodes: RayNodes, *, router_lost: bool) -> NodeLoss:
    from circinus.serving.ray.engine import RayEngine

    engine = RayEngine(nodes.settings)
    try:
        await engine.apply(_desired())
        count = int(_RATE_PER_S * (_BEFORE_S + _AFTER_S))
        arrivals = [Arrival(number / _RATE_PER_S, _QUERY) for number in range(count)]
        requests = [Request(_QUERY, str(number), number, 100.0) for number in range(count)]
        load = asyncio.create_task(OpenLoop(engine, stragglers_s=20.0).send(arrivals, requests))
        start_s = asyncio.get_running_loop().time()
        await asyncio.sleep(_BEFORE_S)
        killed_s = asyncio.get_running_loop().time() - start_s
        replicas = await asyncio.to_thread(nodes.kill, "far", router=router_lost)
        what = f"a node{' with a router' if router_lost else ''} is killed"
        return node_loss(what, await load, killed_s, _BEFORE_S + _AFTER_S, {_QUERY: _LIMIT_S}, replicas)
    finally:
        await engine.close()
