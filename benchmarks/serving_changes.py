"""A plan is changed while requests come: what fails, and how long it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.results import Figure
from benchmarks.serving_hops import ray_cluster
from circinus.errors import ServingError
from circinus.serving import Engine, Request
from circinus.serving.conformance_states import Step, chain, route, state
from circinus.serving.engine import DesiredState
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.fine_timers import new_event_loop

_OLD = Step("first", "add", knobs=(("amount", 1),))
_NEW = Step("first", "add", knobs=(("amount", 10),), pool="far")
_ASKERS = 8
_PORT = 18_312


@dataclass(frozen=True)
class Change:
    """One change of a running query's plan."""

    engine: str
    deployed: bool
    """Whether what the new plan needs runs already."""
    asked: int
    failed: int
    switched_s: float
    """From asking for the change until requests that are sent are answered by the new plan."""
    startup_s: float
    """What a replica took to start, where one had to."""


async def _changed(name: str, engine: Engine, before: DesiredState, after: DesiredState, *, deployed: bool) -> Change:
    asked = failed = 0
    new_s = 0.0
    stop = asyncio.Event()

    async def keep_asking() -> None:
        nonlocal asked, failed, new_s
        while not stop.is_set():
            sent_s = perf_counter()
            asked += 1
            try:
                answer = (await engine.submit(Request("q", "item", 0, 100.0))).output
            except ServingError:
                failed += 1
                continue
            if answer == 10 and not new_s:
                new_s = sent_s

    await engine.apply(before)
    askers = [asyncio.create_task(keep_asking()) for _ in range(_ASKERS)]
    await asyncio.sleep(1.0)
    begin_s = perf_counter()
    await engine.apply(after)
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*askers)
    status = await engine.status()
    startup_s = max((found.startup_s or 0.0 for found in status.deployments), default=0.0)
    return Change(name, deployed, asked, failed, max(0.0, new_s - begin_s), startup_s)


async def _of(name: str, make: Callable[[], Engine], repeats: int) -> list[Change]:
    both = [_OLD, _NEW]
    found = []
    for _ in range(repeats):
        for deployed in (True, False):
            engine = make()
            if deployed:
                before, after = state([route("q", _OLD)], both), state([route("q", _NEW)], both)
            else:
                before, after = chain("q", _OLD), chain("q", _NEW)
            try:
                found.append(await _changed(name, engine, before, after, deployed=deployed))
            finally:
                await engine.close()
    return found


def changes(repeats: int, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """On both engines."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(_of("local engine", LocalEngine, repeats))
    with ray_cluster() as address:
        from circinus.serving.ray.engine import RayEngine
        from circinus.serving.ray.settings import RaySettings

        settings = RaySettings(address=address, http_port=_PORT)
        found += asyncio.run(_of("Ray engine", lambda: RayEngine(settings), repeats))
    figures = [
        Figure("requests that failed while a plan changed", float(sum(one.failed for one in found)), 0.0, "lower",
               "requests", f"of {sum(one.asked for one in found)}"),
    ]  # fmt: skip
    for name in ("local engine", "Ray engine"):
        for deployed, aim in ((True, 0.1), (False, None)):
            seconds = [one.switched_s for one in found if one.engine == name and one.deployed == deployed]
            what = "the deployment runs" if deployed else "a replica has to start"
            figures.append(Figure(f"{name}: new route in force, {what}", float(np.median(seconds)), aim, "lower", "s",
                                  f"median of {repeats}"))  # fmt: skip
    for one in found:
        console.print(
            f"{one.engine}, {'deployed' if one.deployed else 'to be started'}: {one.failed} of {one.asked} failed, "
            f"in force after {one.switched_s * 1e3:.0f} ms",
            highlight=False,
        )
    return figures, [{"part": "changes", **vars(one)} for one in found]
