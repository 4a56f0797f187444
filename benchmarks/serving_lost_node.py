"""A node of a Ray cluster is killed while requests come: what fails, and how soon what is left does all it can."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.results import Figure
from benchmarks.serving_operators import with_pauses
from benchmarks.serving_ray_nodes import RayNodes, ray_nodes
from benchmarks.serving_traffic import in_time, lost, within
from circinus.serving import DesiredState, Request
from circinus.serving.arrivals import Arrival
from circinus.serving.conformance_states import Step, route, state
from circinus.serving.open_loop import Answer, OpenLoop

_PAUSE_S = 0.05
_REPLICAS = 4
"""Two on each of two nodes; one node has room for all."""
_RATE_PER_S = 32.0
"""80 % of what the replicas on one node can do: all that comes is what the remaining capacity allows."""
_LIMIT_S = 1.0
_BEFORE_S, _AFTER_S = 5.0, 25.0
_WINDOW_S, _SHARE = 0.5, 0.95
_QUERY = "q"


@dataclass(frozen=True)
class NodeLoss:
    """One node killed."""

    router_lost: bool
    """Whether the router of the site went with it."""
    replicas_lost: int
    requests: int
    failed: int
    in_flight: int
    """Requests that were under way when the node was killed."""
    failed_beyond: int
    """Requests that failed though they came afterwards."""
    back_s: float
    """Until from then on nearly all requests are answered in time; as long as it was watched where they never are."""


def back_after_s(answers: Sequence[Answer], killed_s: float, until_s: float, limits_s: dict[str, float]) -> float:
    """Seconds from a moment until in every half second nearly all requests (95 % and one) are answered in time.

    Args:
        answers: to all requests.
        killed_s: the moment, in the seconds of `due_s`.
        until_s: end of the traffic.
        limits_s: query -> what is in time.
    """
    back_s, begin_s = 0.0, killed_s
    while begin_s < until_s:
        due = within(answers, begin_s, begin_s + _WINDOW_S)
        if due and sum(in_time(answer, limits_s) for answer in due) < _SHARE * len(due) - 1:
            back_s = begin_s + _WINDOW_S - killed_s
        begin_s += _WINDOW_S
    return min(back_s, until_s - killed_s)


def node_loss(answers: Sequence[Answer], killed_s: float, replicas_lost: int, *, router_lost: bool) -> NodeLoss:
    """What the answers show of a node that was killed at a moment, in the seconds of `due_s`."""
    under_way = [a for a in answers if a.due_s <= killed_s < a.due_s + a.latency_s]
    return NodeLoss(
        router_lost=router_lost,
        replicas_lost=replicas_lost,
        requests=len(answers),
        failed=lost(answers),
        in_flight=len(under_way),
        failed_beyond=lost([answer for answer in answers if answer.due_s > killed_s]),
        back_s=back_after_s(answers, killed_s, _BEFORE_S + _AFTER_S, {_QUERY: _LIMIT_S}),
    )


def lost_nodes(repeats: int, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """With the router of the site on the node that is killed, and on the other one."""
    found = []
    for router_lost in (False, True):
        for _ in range(repeats):
            with ray_nodes("near", ["far", "far"]) as nodes:
                found.append(asyncio.run(_lost(nodes, router_lost=router_lost)))
            console.print(
                f"node killed{', with the router' if router_lost else ''}: {found[-1].failed} of {found[-1].requests} "
                f"requests failed, {found[-1].in_flight} were under way, back after {found[-1].back_s:.1f} s",
                highlight=False,
            )
    return loss_figures(found), [{"part": "lost nodes", **vars(one)} for one in found]


def loss_figures(found: Sequence[NodeLoss]) -> list[Figure]:
    """Medians over repeats of seconds, sums of requests."""
    figures = []
    for router_lost, what in ((False, "a node is killed"), (True, "a node with a router is killed")):
        ones = [one for one in found if one.router_lost == router_lost]
        replicas = sum(one.replicas_lost for one in ones)
        requests = f"of {sum(one.requests for one in ones)}; {sum(one.in_flight for one in ones)} were under way"
        figures += [
            Figure(f"{what}: requests that failed and were not under way",
                   float(sum(one.failed_beyond for one in ones)), 0.0, "lower", "requests", requests),
            Figure(f"{what}: until goodput is what the rest allows",
                   float(np.median([one.back_s for one in ones])), 6.0, "lower", "s",
                   f"median of {len(ones)}; {replicas} replicas lost"),
        ]  # fmt: skip
    return figures


def _desired() -> DesiredState:
    step = Step("slow", "pause", knobs=(("seconds", _PAUSE_S),), pool="far", replicas=_REPLICAS)
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
        begin_s = asyncio.get_running_loop().time()
        await asyncio.sleep(_BEFORE_S)
        killed_s = asyncio.get_running_loop().time() - begin_s
        replicas = await asyncio.to_thread(nodes.kill, "far", router=router_lost)
        return node_loss(await load, killed_s, replicas, router_lost=router_lost)
    finally:
        await engine.close()
