"""Plan changes under load: failed requests and duration, compared with the start-up of a replica."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
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
_IDLE = "alone"
"""Query whose replica is started on an idle engine."""
_CLIENTS = 8
_TIMEOUT_S = 10.0
"""Timeout of the first answer by the new plan."""
_PORT = 18_312
_BEYOND_STARTUP_S = 1.0


@dataclass(frozen=True)
class Change:
    """Change of the plan of a running query."""

    engine: str
    deployed: bool
    """True if the deployments of the new plan run already."""
    asked: int
    failed: int
    switched_s: float
    """Time until new requests are answered by the new plan; NaN if never."""
    alone_s: float
    """Time until the deployment answers on an idle engine; NaN where none has to start."""


async def _changed(name: str, engine: Engine, before: DesiredState, after: DesiredState, alone_s: float) -> Change:
    sent = failed = 0
    new_s = math.inf
    stop, switched = asyncio.Event(), asyncio.Event()

    async def send_requests() -> None:
        nonlocal sent, failed, new_s
        while not stop.is_set():
            sent_s = perf_counter()
            sent += 1
            try:
                answer = (await engine.submit(Request("q", "item", 0, 100.0))).output
            except ServingError:
                failed += 1
                continue
            if answer == _NEW_ANSWER:
                new_s = min(new_s, sent_s)
                switched.set()

    await engine.apply(before)
    clients = [asyncio.create_task(send_requests()) for _ in range(_CLIENTS)]
    await asyncio.sleep(1.0)
    start_s = perf_counter()
    await engine.apply(after)
    with suppress(TimeoutError):
        await asyncio.wait_for(switched.wait(), _TIMEOUT_S)
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*clients)
    switched_s = max(0.0, new_s - start_s) if switched.is_set() else math.nan
    return Change(name, math.isnan(alone_s), sent, failed, switched_s, alone_s)


async def _started_idle(engine: Engine) -> float:
    """Return the seconds until a new deployment answers, on an engine without requests."""
    old = route("q", _OLD)
    await engine.apply(state([old], [_OLD]))
    await engine.submit(Request("q", "item", 0, 100.0))
    start_s = perf_counter()
    await engine.apply(state([old, route(_IDLE, _NEW)], [_OLD, _NEW]))
    answer = (await engine.submit(Request(_IDLE, "item", 0, 100.0))).output
    assert answer == _NEW_ANSWER
    return perf_counter() - start_s


async def _of(name: str, make: Callable[[], Engine], repeats: int) -> list[Change]:
    both, results = [_OLD, _NEW], []
    for _ in range(repeats):
        async with _closing(make()) as engine:
            before, after = state([route("q", _OLD)], both), state([route("q", _NEW)], both)
            results.append(await _changed(name, engine, before, after, math.nan))
        async with _closing(make()) as engine:
            alone_s = await _started_idle(engine)
        async with _closing(make()) as engine:
            results.append(await _changed(name, engine, chain("q", _OLD), chain("q", _NEW), alone_s))
    return results


@asynccontextmanager
async def _closing(engine: Engine) -> AsyncIterator[Engine]:
    try:
        yield engine
    finally:
        await engine.close()


def change_figures(results: Sequence[Change], names: Sequence[str]) -> list[Figure]:
    """Return medians over repeats; a new route that never came into force makes its figure NaN."""
    figures = [
        Figure("requests that failed while a plan changed", float(sum(change.failed for change in results)), 0.0,
               "lower", "requests", f"of {sum(change.asked for change in results)}"),
    ]  # fmt: skip
    for name in names:
        of_engine = [change for change in results if change.engine == name]
        running, started = ([c for c in of_engine if c.deployed is deployed] for deployed in (True, False))
        idle_note = f"a replica takes {np.median([c.alone_s for c in started]):.3f} s alone, on the idle engine"
        figures += [
            _median(f"{name}: new route in force, the deployment runs", [c.switched_s for c in running], 0.1),
            _median(f"{name}: new route in force, a replica has to start", [c.switched_s for c in started], None),
            _median(f"{name}: new route in force, beyond start-up of a replica",
                    [c.switched_s - c.alone_s for c in started], _BEYOND_STARTUP_S,
                    f"; {idle_note}, from asking until it answers"),
        ]  # fmt: skip
    return figures


def _median(name: str, seconds: Sequence[float], aim: float | None, note: str = "") -> Figure:
    return Figure(name, float(np.median(seconds)), aim, "lower", "s", f"median of {len(seconds)}{note}")


def changes(repeats: int, console: Console) -> PartResult:
    """Change plans on both engines."""
    local, on_ray = "local engine", "Ray engine"
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        results = runner.run(_of(local, LocalEngine, repeats))
    with ray_cluster() as address:
        from circinus.serving.ray.engine import RayEngine
        from circinus.serving.ray.settings import RaySettings

        settings = RaySettings(address=address, http=("127.0.0.1", _PORT))
        results += asyncio.run(_of(on_ray, lambda: RayEngine(settings), repeats))
    for change in results:
        case = "deployed" if change.deployed else f"to be started, which takes {change.alone_s * 1e3:.0f} ms alone"
        console.print(
            f"{change.engine}, {case}: {change.failed} of {change.asked} failed, in force after "
            f"{change.switched_s * 1e3:.0f} ms",
            highlight=False,
        )
    return change_figures(results, (local, on_ray)), [{"part": "changes", **vars(change)} for change in results]
