"""Overhead of engines per hop: a pipeline of three operators without work, with sequential and concurrent requests."""

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

from benchmarks.harness.benchmark import PartResult
from benchmarks.harness.results import Figure
from circinus.operators import resolve_operator
from circinus.serving import Engine, Request
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.testing.desired_states import StageSpec, chain

HOPS = 3
_STEPS = tuple(
    StageSpec(name, "add", after=after, knobs=(("amount", 1),))
    for name, after in (("first", ()), ("second", ("first",)), ("third", ("second",)))
)
_CPUS = 0.5
"""CPUs of a replica, for which a replica without work is not throttled."""
_CONCURRENCY = 32
_PORT = 18_311
_COMPOSITION_CONCURRENCY = 100
"""Concurrent requests per replica of the plain composition: more than are sent, so that no request is rejected. One
request at a time, as in the engine, would be much slower, because Ray Serve retries rejected requests with backoff."""
_INGRESS_CONCURRENCY = 1000

Ask = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class HopOptions:
    """Number of requests and repeats."""

    requests: int = 400
    """Number of sequential requests, of which the first tenth is left out."""
    repeats: int = 3
    """Number of repeats, of which medians are taken."""


@dataclass(frozen=True)
class Hops:
    """Latency and throughput of one way to run the pipeline."""

    name: str
    p50_s: float
    p99_s: float
    per_s: float
    """Answers per second with concurrent requests."""


async def measured(name: str, ask: Ask, options: HopOptions) -> Hops:
    """Measure latencies of sequential requests, then throughput; medians over repeats."""
    repeats = [await _once(ask, options.requests) for _ in range(options.repeats)]
    p50_s, p99_s, per_s = np.median(np.array(repeats), axis=0).tolist()
    return Hops(name, p50_s, p99_s, per_s)


async def _once(ask: Ask, requests: int) -> tuple[float, float, float]:
    seconds = []
    for _ in range(requests):
        start_s = perf_counter()
        assert await ask() == HOPS
        seconds.append(perf_counter() - start_s)
    measured = seconds[requests // 10 :]

    async def many() -> None:
        for _ in range(requests // _CONCURRENCY):
            await ask()

    start_s = perf_counter()
    await asyncio.gather(*(many() for _ in range(_CONCURRENCY)))
    per_s = requests // _CONCURRENCY * _CONCURRENCY / (perf_counter() - start_s)
    return float(np.percentile(measured, 50)), float(np.percentile(measured, 99)), per_s


async def _of_engine(name: str, engine: Engine, options: HopOptions) -> Hops:
    async def ask() -> Any:
        return (await engine.submit(Request("q", "item", 0, 100.0))).output

    try:
        desired = chain("q", *_STEPS)
        sized = tuple(replace(deployment, cpus=_CPUS) for deployment in desired.deployments)
        await engine.apply(replace(desired, deployments=sized))
        return await measured(name, ask, options)
    finally:
        await engine.close()


def directly(options: HopOptions) -> Hops:
    """Measure calls of the functions in this process."""
    operator = resolve_operator("circinus.testing.operators:add").create({"amount": 1}, 1.0)

    async def ask() -> Any:
        value = 0
        for _ in range(HOPS):
            (value,) = operator.process([value])
        return value

    return asyncio.run(measured("functions called directly", ask, options))


def through_pipes(options: HopOptions) -> Hops:
    """Measure functions in a process each, called over pipes: a lower bound of process overhead on this machine."""
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
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_answer, args=(child_end,), daemon=True)
    process.start()
    child_end.close()
    try:
        yield parent_end
    finally:
        parent_end.close()
        process.join()


def _answer(pipe: Connection) -> None:
    operator = resolve_operator("circinus.testing.operators:add").create({"amount": 1}, 1.0)
    try:
        while True:
            (value,) = operator.process([pipe.recv()])
            pipe.send(value)
    except EOFError:
        pass


def locally(options: HopOptions) -> Hops:
    """Measure the local engine, with replicas in processes of their own."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_of_engine("local engine", LocalEngine(), options))


@contextmanager
def ray_cluster() -> Iterator[str]:
    """Start a Ray cluster of one node with both pools, configured for short hops; yield its address."""
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
    """Measure the Ray engine and Ray Serve's own model composition on one cluster."""
    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.settings import RaySettings

    settings = RaySettings(address=address, http=("127.0.0.1", _PORT))
    return [
        asyncio.run(_of_engine("Ray engine", RayEngine(settings), options)),
        asyncio.run(_composition(options)),
    ]


async def _composition(options: HopOptions) -> Hops:
    """Measure the composition of Ray Serve's documentation: an ingress that awaits one handle after the other.

    Environment of the cluster, router and backoff are those of the engine, as far as Ray Serve's public settings go;
    only the limit of concurrent requests per replica is higher.
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
            max_ongoing_requests=_COMPOSITION_CONCURRENCY,
            request_router_config=RequestRouterConfig(**ROUTING),
            ray_actor_options={"num_cpus": 0.1},
        )
        return deployed.bind()

    ingress = serve.deployment(
        Ingress, name="ingress", max_ongoing_requests=_INGRESS_CONCURRENCY, ray_actor_options={"num_cpus": 0.0}
    )
    bound = ingress.bind(*(operator(f"add-{number}") for number in range(HOPS)))
    handle = await asyncio.to_thread(serve.run, bound, name="plain", route_prefix="/plain")

    async def ask() -> Any:
        return await handle.remote(0)

    try:
        return await measured("plain Ray Serve composition", ask, options)
    finally:
        await asyncio.to_thread(serve.delete, "plain")


def hop_figures(results: list[Hops]) -> PartResult:
    """Return the figures of a hop, which is a third of a request."""
    by_name = {hops.name: hops for hops in results}
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
               f"{_CONCURRENCY} at once; a plain replica may hold {_COMPOSITION_CONCURRENCY}, the engine's one"),
    ]  # fmt: skip
    return figures, [{"part": "hops", **vars(hops)} for hops in results]


def hops(options: HopOptions, console: Console) -> PartResult:
    """Measure all ways to run the pipeline."""
    results = [directly(options), through_pipes(options), locally(options)]
    with ray_cluster() as address:
        results += on_ray(address, options)
    for result in results:
        console.print(
            f"{result.name}: p50 {result.p50_s * 1e3:.3f} ms, p99 {result.p99_s * 1e3:.3f} ms, {result.per_s:.0f}/s",
            highlight=False,
        )
    return hop_figures(results)
