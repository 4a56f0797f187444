"""A plan is changed while requests come: what fails, and how long it takes, beside what starting a replica takes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.harness.results import Figure
from benchmarks.serving.engine_overhead import ray_cluster
from circinus.errors import ServingError
from circinus.serving import Engine, Request
from circinus.serving.engine import DesiredState
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.testing.desired_states import StageSpec, chain, route, state

_OLD = StageSpec("first", "add", knobs=(("amount", 1),))
_NEW = StageSpec("first", "add", knobs=(("amount", 10),), pool="far")
_NEW_ANSWER = 10
_ALONE = "alone"
"""A query whose replica is started while nothing else is asked."""
_ASKERS = 8
_PATIENCE_S = 10.0
"""How long after a change came into force the first answer by the new plan may take to be seen."""
_PORT = 18_312
_BEYOND_STARTUP_S = 1.0


@dataclass(frozen=True)
class Change:
    """One change of a running query's plan."""

    engine: str
    deployed: bool
    """Whether what the new plan needs runs already."""
    asked: int
    failed: int
    switched_s: float
    """From asking for the change until requests that are sent are answered by the new plan; NaN: that was not seen."""
    alone_s: float
    """From asking for the same deployment alone, on an idle engine, until it answers; NaN where none has to start."""


async def _changed(name: str, engine: Engine, before: DesiredState, after: DesiredState, alone_s: float) -> Change:
    asked = failed = 0
    new_s = math.inf
    stop, switched = asyncio.Event(), asyncio.Event()

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
            if answer == _NEW_ANSWER:
                new_s = min(new_s, sent_s)
                switched.set()

    await engine.apply(before)
    askers = [asyncio.create_task(keep_asking()) for _ in range(_ASKERS)]
    await asyncio.sleep(1.0)
    begin_s = perf_counter()
    await engine.apply(after)
    with suppress(TimeoutError):
        await asyncio.wait_for(switched.wait(), _PATIENCE_S)
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*askers)
    switched_s = max(0.0, new_s - begin_s) if switched.is_set() else math.nan
    return Change(name, math.isnan(alone_s), asked, failed, switched_s, alone_s)


async def _started_alone(engine: Engine) -> float:
    """Seconds from asking for the new deployment until it answers, beside an old one that nobody asks."""
    old = route("q", _OLD)
    await engine.apply(state([old], [_OLD]))
    await engine.submit(Request("q", "item", 0, 100.0))
    begin_s = perf_counter()
    await engine.apply(state([old, route(_ALONE, _NEW)], [_OLD, _NEW]))
    answer = (await engine.submit(Request(_ALONE, "item", 0, 100.0))).output
    assert answer == _NEW_ANSWER
    return perf_counter() - begin_s


async def _of(name: str, make: Callable[[], Engine], repeats: int) -> list[Change]:
    both, found = [_OLD, _NEW], []
    for _ in range(repeats):
        async with _closing(make()) as engine:
            before, after = state([route("q", _OLD)], both), state([route("q", _NEW)], both)
            found.append(await _changed(name, engine, before, after, math.nan))
        async with _closing(make()) as engine:
            alone_s = await _started_alone(engine)
        async with _closing(make()) as engine:
            found.append(await _changed(name, engine, chain("q", _OLD), chain("q", _NEW), alone_s))
    return found


@asynccontextmanager
async def _closing(engine: Engine) -> AsyncIterator[Engine]:
    try:
        yield engine
    finally:
        await engine.close()


def change_figures(found: Sequence[Change], names: Sequence[str]) -> list[Figure]:
    """Medians over repeats; one new route that was never seen in force spoils the figure of its kind (NaN)."""
    figures = [
        Figure("requests that failed while a plan changed", float(sum(one.failed for one in found)), 0.0, "lower",
               "requests", f"of {sum(one.asked for one in found)}"),
    ]  # fmt: skip
    for name in names:
        its = [one for one in found if one.engine == name]
        there, started = ([one for one in its if one.deployed is deployed] for deployed in (True, False))
        alone = f"a replica takes {np.median([one.alone_s for one in started]):.3f} s alone, on the idle engine"
        figures += [
            _median(f"{name}: new route in force, the deployment runs", [one.switched_s for one in there], 0.1),
            _median(f"{name}: new route in force, a replica has to start", [one.switched_s for one in started], None),
            _median(f"{name}: new route in force, beyond start-up of a replica",
                    [one.switched_s - one.alone_s for one in started], _BEYOND_STARTUP_S,
                    f"; {alone}, from asking until it answers"),
        ]  # fmt: skip
    return figures


def _median(name: str, seconds: Sequence[float], aim: float | None, note: str = "") -> Figure:
    return Figure(name, float(np.median(seconds)), aim, "lower", "s", f"median of {len(seconds)}{note}")


def changes(repeats: int, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """On both engines."""
    local, on_ray = "local engine", "Ray engine"
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        found = runner.run(_of(local, LocalEngine, repeats))
    with ray_cluster() as address:
        from circinus.serving.ray.engine import RayEngine
        from circinus.serving.ray.settings import RaySettings

        settings = RaySettings(address=address, http=("127.0.0.1", _PORT))
        found += asyncio.run(_of(on_ray, lambda: RayEngine(settings), repeats))
    for one in found:
        to_start = "deployed" if one.deployed else f"to be started, which takes {one.alone_s * 1e3:.0f} ms alone"
        console.print(
            f"{one.engine}, {to_start}: {one.failed} of {one.asked} failed, in force after "
            f"{one.switched_s * 1e3:.0f} ms",
            highlight=False,
        )
    return change_figures(found, (local, on_ray)), [{"part": "changes", **vars(one)} for one in found]
