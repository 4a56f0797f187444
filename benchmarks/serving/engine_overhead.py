"""What an engine adds to operators that take no time: a pipeline of three, asked one by one and many at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console

from benchmarks.harness.results import Figure
from circinus.serving import Engine, Request
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.testing.desired_states import StageSpec, chain
from circinus.testing.operators import add

HOPS = 3
_STEPS = tuple(
    StageSpec(name, "add", after=after, knobs=(("amount", 1),))
    for name, after in (("first", ()), ("second", ("first",)), ("third", ("second",)))
)
_CPUS = 0.5
"""Of a replica, for which one that takes no time waits no longer than it took."""
_AT_ONCE = 32
_PORT = 18_311
_COMPOSED_AT_ONCE = 100
"""Requests that a replica of the plain composition may hold: more than come, so that none is turned away. With one at
a time, as the engine has them, it would be much slower: what is turned away waits in Ray Serve until it tries again."""
_INGRESS_AT_ONCE = 1000

Ask = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class HopOptions:
    """How much."""

    requests: int = 400
    """One after the other, of which a tenth is left out at the beginning."""
    repeats: int = 3
    """Of which medians are given."""


@dataclass(frozen=True)
class Hops:
    """One way to run the pipeline."""

    name: str
    p50_s: float
    p99_s: float
    per_s: float
    """Answers a second with many requests at once."""


async def measured(name: str, ask: Ask, options: HopOptions) -> Hops:
    """Latencies one by one, then answers a second with many at once; medians over repeats."""
    found = [await _once(ask, options.requests) for _ in range(options.repeats)]
    p50_s, p99_s, per_s = np.median(np.array(found), axis=0).tolist()
    return Hops(name, p50_s, p99_s, per_s)


async def _once(ask: Ask, requests: int) -> tuple[float, float, float]:
    seconds = []
    for _ in range(requests):
        begin_s = perf_counter()
        assert await ask() == HOPS
        seconds.append(perf_counter() - begin_s)
    kept = seconds[requests // 10 :]

    async def many() -> None:
        for _ in range(requests // _AT_ONCE):
            await ask()

    begin_s = perf_counter()
    await asyncio.gather(*(many() for _ in range(_AT_ONCE)))
    per_s = requests // _AT_ONCE * _AT_ONCE / (perf_counter() - begin_s)
    return float(np.percentile(kept, 50)), float(np.percentile(kept, 99)), per_s


async def _of_engine(name: str, engine: Engine, options: HopOptions) -> Hops:
    async def ask() -> Any:
        return (await engine.submit(Request("q", "item", 0, 100.0))).output

    try:
        desired = chain("q", *_STEPS)
        sized = tuple(replace(found, cpus=_CPUS) for found in desired.deployments)
        await engine.apply(replace(desired, deployments=sized))
        return await measured(name, ask, options)
    finally:
        await engine.close()


def directly(options: HopOptions) -> Hops:
    """Calls of the functions, in this process."""
    operator = add.create({"amount": 1}, 1.0)

    async def ask() -> Any:
        value = 0
        for _ in range(HOPS):
            (value,) = operator.process([value])
        return value

    return asyncio.run(measured("functions called directly", ask, options))


def through_pipes(options: HopOptions) -> Hops:
    """Calls of the functions in a process each, one at a time: the least that processes cost on this machine."""
    with ExitStack() as stack:
        pipes = [stack.enter_context(_process()) for _ in range(HOPS)]

        async def ask() -> Any:
            value = 0
            for pipe in pipes:
                pipe.send(value)
                value = pipe.recv()
            return value

        return asyncio.run(measured("functions behind pipes", ask, options))


@contextmanager
def _process() -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_answer, args=(there,), daemon=True)
    process.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        process.join()


def _answer(pipe: Connection) -> None:
    operator = add.create({"amount": 1}, 1.0)
    try:
        while True:
            (value,) = operator.process([pipe.recv()])
            pipe.send(value)
    except EOFError:
        pass


def locally(options: HopOptions) -> Hops:
    """The local engine, replicas in processes of their own."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_of_engine("local engine", LocalEngine(), options))


@contextmanager
def ray_cluster() -> Iterator[str]:
    """The address of a cluster of one node with both pools, as short hops want it."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from circinus.serving.ray.settings import HEAD_SETTINGS, SERVE_ENVIRONMENT

    resources = {"pool:near": 1000, "pool:far": 1000}
    with mock.patch.dict(os.environ, SERVE_ENVIRONMENT):
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 4,
                "object_store_memory": 100 * 2**20,
                "resources": resources,
                "include_dashboard": False,
                "_system_config": dict(HEAD_SETTINGS),
            },
        )
    try:
        yield cluster.address
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def on_ray(address: str, options: HopOptions) -> list[Hops]:
    """The engine on Ray Serve, and Ray Serve's own composition, on the same cluster."""
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.settings import RaySettings

    settings = RaySettings(address=address, http=("127.0.0.1", _PORT))
    return [
        asyncio.run(_of_engine("Ray engine", RayEngine(settings), options)),
        asyncio.run(_composition(options)),
    ]


async def _composition(options: HopOptions) -> Hops:
    """What Ray Serve's documentation shows: an ingress that awaits one handle after the other.

    Everything is set as the engine sets it, as far as Ray Serve's public settings go: the same environment of the
    cluster, router and back-off; but for what a replica may hold, of which it gets more.
    """
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    from circinus.serving.ray.serve_config import ROUTING

    class Add:
        def __call__(self, value: int) -> int:
            return value + 1

    class Ingress:
        def __init__(self, *handles: Any) -> None:
            self._handles = handles

        async def __call__(self, value: int) -> int:
            for handle in self._handles:
                value = await handle.remote(value)
            return value

    def operator(name: str) -> Any:
        deployed = serve.deployment(
            Add,
            name=name,
            max_ongoing_requests=_COMPOSED_AT_ONCE,
            request_router_config=RequestRouterConfig(**ROUTING),
            ray_actor_options={"num_cpus": 0.1},
        )
        return deployed.bind()

    ingress = serve.deployment(
        Ingress, name="ingress", max_ongoing_requests=_INGRESS_AT_ONCE, ray_actor_options={"num_cpus": 0.0}
    )
    bound = ingress.bind(*(operator(f"add-{number}") for number in range(HOPS)))
    handle = await asyncio.to_thread(serve.run, bound, name="plain", route_prefix="/plain")

    async def ask() -> Any:
        return await handle.remote(0)

    try:
        return await measured("plain Ray Serve composition", ask, options)
    finally:
        await asyncio.to_thread(serve.delete, "plain")


def hop_figures(found: list[Hops]) -> tuple[list[Figure], list[dict[str, Any]]]:
    """A hop is a third of what a request takes beyond the functions themselves."""
    by_name = {one.name: one for one in found}
    names = "functions behind pipes", "local engine", "Ray engine", "plain Ray Serve composition"
    pipes, local, rayed, plain = (by_name[name] for name in names)
    figures = [
        Figure("local engine, a hop, p50", local.p50_s / HOPS * 1e3, 0.3, "lower", "ms",
               f"operators that take no time; {pipes.p50_s / HOPS * 1e3:.2f} ms behind a bare pipe"),
        Figure("local engine, a hop, p99", local.p99_s / HOPS * 1e3, None, "lower", "ms"),
        Figure("Ray engine, a hop, p50", rayed.p50_s / HOPS * 1e3, None, "lower", "ms"),
        Figure("Ray engine, a hop, p99", rayed.p99_s / HOPS * 1e3, None, "lower", "ms"),
        Figure("Ray engine over plain composition, p50", rayed.p50_s / plain.p50_s, 1.0, "lower", "times",
               "the same cluster, router and back-off for both"),
        Figure("Ray engine over plain composition, p99", rayed.p99_s / plain.p99_s, 1.0, "lower", "times"),
        Figure("Ray engine over plain composition, answers a second", rayed.per_s / plain.per_s, 1.0, "higher", "times",
               f"{_AT_ONCE} at once; a plain replica may hold {_COMPOSED_AT_ONCE}, the engine's one"),
    ]  # fmt: skip
    return figures, [{"part": "hops", **vars(one)} for one in found]


def hops(options: HopOptions, console: Console) -> tuple[list[Figure], list[dict[str, Any]]]:
    """All ways side by side."""
    found = [directly(options), through_pipes(options), locally(options)]
    with ray_cluster() as address:
        found += on_ray(address, options)
    for one in found:
        console.print(
            f"{one.name}: p50 {one.p50_s * 1e3:.3f} ms, p99 {one.p99_s * 1e3:.3f} ms, {one.per_s:.0f}/s",
            highlight=False,
        )
    return hop_figures(found)
