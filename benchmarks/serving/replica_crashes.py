"""Crashes of replicas of the local engine under load, one at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from benchmarks.workloads.operators import with_pauses
from benchmarks.workloads.traffic import lost
from circinus.serving import Request
from circinus.serving.loadtest.open_loop import OpenLoop, RequestOutcome, poisson_arrivals
from circinus.serving.local.client import LocalEngineClient, start_daemon
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.testing.desired_states import StageSpec, chain

_PAUSE_S = 0.02
_REPLICAS = 3
_RATE_PER_S = 75.0
"""Request rate: half of the capacity of the replicas."""
_APART_S = (0.3, 1.0)
_ROOM_S = 0.3
"""Extra seconds of load per replacement."""
_TIMEOUT_S = 60.0
_QUERY = "q"


def replica_kills(folder: Path, count: int, seed: int, console: Console) -> PartResult:
    """Kill `count` replicas at random moments; each has at most one request in progress."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        answers, back_s = runner.run(_killed(folder, count, np.random.default_rng(seed)))
    failed = lost(answers)
    slowest_s = max((answer.latency_s for answer in answers if answer.response is not None), default=0.0)
    console.print(
        f"replicas killed: {failed} of {len(answers)} requests failed, back after {np.median(back_s):.3f} s",
        highlight=False,
    )
    figures = [
        Figure("requests that failed when replicas were killed", float(failed), float(count), "lower", "requests",
               f"{count} killed, each with at most one in work, of {len(answers)}"),
        Figure("until a killed replica is replaced", float(np.median(back_s)), None, "lower", "s",
               f"median of {count}"),
        Figure("slowest answer meanwhile", slowest_s, None, "lower", "s", f"operators take {_PAUSE_S * 1e3:g} ms"),
    ]  # fmt: skip
    return figures, [{"part": "replica kills", "number": n, "back_s": seconds} for n, seconds in enumerate(back_s)]


async def _killed(folder: Path, count: int, rng: np.random.Generator) -> tuple[list[RequestOutcome], list[float]]:
    step = StageSpec("slow", "pause", knobs=(("seconds", _PAUSE_S),), replicas=_REPLICAS)
    pauses_s = rng.uniform(*_APART_S, count)
    engine = start_daemon(folder)
    try:
        await engine.apply(with_pauses(chain(_QUERY, step), [step], cpus=0.1))
        load = asyncio.create_task(_sent(engine, float(pauses_s.sum()) + count * _ROOM_S))
        back_s = []
        for pause_s in pauses_s:
            await asyncio.sleep(pause_s)
            back_s.append(await _kill_one(engine))
        return await load, back_s
    finally:
        await engine.close()


async def _sent(engine: LocalEngineClient, duration_s: float) -> list[RequestOutcome]:
    arrivals = poisson_arrivals({_QUERY: _RATE_PER_S}, duration_s, seed=0)
    requests = [Request(_QUERY, str(number), number, 100.0) for number in range(len(arrivals))]
    return await OpenLoop(engine, stragglers_s=30.0).send(arrivals, requests)


async def _kill_one(engine: LocalEngineClient) -> float:
    """Kill the replica that answers next; return the seconds until it is replaced."""
    (before,) = (await engine.status()).deployments
    process = (await engine.submit(Request(_QUERY, "process", 0, 100.0))).output
    start_s = time.monotonic()
    os.kill(process, signal.SIGKILL)
    while True:
        (now,) = (await engine.status()).deployments
        if now.restarts > before.restarts and now.replicas_ready == _REPLICAS:
            return time.monotonic() - start_s
        if time.monotonic() - start_s > _TIMEOUT_S:
            raise RuntimeError(f"a killed replica was not replaced within {_TIMEOUT_S:g} s: {now}")
        await asyncio.sleep(0.002)
