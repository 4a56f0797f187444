"""Process inside the site of the clients: deploys a matching on the Ray engine, sends traffic and measures."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from circinus.api.traffic_items import select_traffic_items
from circinus.arrays import FloatArray
from circinus.errors import ServingError
from circinus.matching import Matching
from circinus.serving import DesiredState, EngineStatus, Mode, Request, Response
from circinus.serving.desired_state import build_desired_state
from circinus.serving.loadtest.load_report import LoadReport
from circinus.serving.loadtest.load_test import LoadSpec, run_load_test
from circinus.serving.local.high_resolution_loop import new_event_loop
from circinus.specification import Specification

if TYPE_CHECKING:
    from circinus.serving.ray.engine import RayEngine

_ATTEMPTS = 3


@dataclass(frozen=True)
class Loaded:
    """Measurements of a matching under traffic."""

    report: LoadReport
    link_bytes: Mapping[str, Mapping[str, float]]
    """Bytes per request, by query and link, as counted by the engine."""
    latency_s: Mapping[str, FloatArray]
    """(n,) latencies of each query's requests after the warm-up, in order of arrival; infinite without an answer."""


class _ObservedEngine:
    """Engine that notes the latencies of another one, and sums the link bytes reported in its answers."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self._answers: Counter[str] = Counter()
        self._bytes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._latency_s: defaultdict[str, list[float]] = defaultdict(list)

    async def submit(self, request: Request) -> Response:
        latencies, start_s = self._latency_s[request.query], perf_counter()
        number = len(latencies)
        latencies.append(math.inf)
        response = await self._engine.submit(request)
        latencies[number] = perf_counter() - start_s
        self._answers[request.query] += 1
        self._bytes[request.query].update(response.timings.link_bytes)
        return response

    async def apply(self, desired: DesiredState) -> None:
        await self._engine.apply(desired)

    async def status(self) -> EngineStatus:
        return await self._engine.status()

    async def close(self) -> None:
        await self._engine.close()

    def bytes_per_request(self) -> dict[str, dict[str, float]]:
        """Return bytes per request, by query and link."""
        return {
            query: {link: size_bytes / self._answers[query] for link, size_bytes in links.items()}
            for query, links in self._bytes.items()
        }

    def latencies(self, report: LoadReport) -> dict[str, FloatArray]:
        """Return the latencies after the warm-up, by query."""
        return {
            query.query: np.array(self._latency_s[query.query][-query.requests :])
            for query in report.queries
            if query.requests
        }


@dataclass
class _Connection:
    """Connection of this process to the cluster."""

    runner: asyncio.Runner
    engine: RayEngine


_connections: list[_Connection] = []


def connect(address: str, own_address: str) -> None:
    """Connect this process to the cluster, by the node of its own site.

    The node address is explicit, because Ray would choose among the nodes of all sites on this machine.
    """
    import ray
    from ray import serve

    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.ray_connection import log_node_reports
    from circinus.serving.ray.settings import RaySettings

    log_node_reports()
    ray.init(
        address=address, namespace="circinus", _node_ip_address=own_address, log_to_driver=False,
        configure_logging=False,
    )  # fmt: skip
    for module in (ray, serve):
        logging.getLogger(module.__name__).setLevel(logging.ERROR)
    _connections.append(
        _Connection(asyncio.Runner(loop_factory=new_event_loop), RayEngine(RaySettings(address=address)))
    )


def deploy(specification: Specification, matching: Matching, store: Path) -> float:
    """Deploy a matching in replay mode; return the seconds until it runs.

    Raises:
        ServingError: see `apply`.
    """
    return apply(build_desired_state(matching, specification, Mode.REPLAY, store.resolve()))


def apply(desired: DesiredState) -> float:
    """Bring about a state; return the seconds until it is in force.

    Retries as a controller would, because routers may be slow where one machine runs all sites.

    Raises:
        ServingError: the last attempt failed.
    """
    connection = _connections[0]
    start_s = perf_counter()
    for _ in range(_ATTEMPTS - 1):
        with suppress(ServingError):
            connection.runner.run(connection.engine.apply(desired))
            return perf_counter() - start_s
    connection.runner.run(connection.engine.apply(desired))
    return perf_counter() - start_s


def trouble() -> str:
    """Return an empty text if a state is in force with every replica ready, else a description."""
    connection = _connections[0]
    try:
        status = connection.runner.run(connection.engine.status())
    except ServingError as error:
        return str(error)
    return "" if status.healthy and status.state else f"{status}\nstate: {status.state}"


def load(specification: Specification, matching: Matching, store: Path, items: int | None, traffic: LoadSpec) -> Loaded:
    """Send traffic to the deployed matching."""
    connection = _connections[0]
    observed = _ObservedEngine(connection.engine)
    sent = select_traffic_items(specification, matching, store, items, Mode.REPLAY, seed=0)
    report = connection.runner.run(run_load_test(observed, specification, matching, sent, traffic))
    return Loaded(report, observed.bytes_per_request(), observed.latencies(report))


def disconnect() -> None:
    """Close the engine and shut down the applications that this process started on the cluster."""
    import ray
    from ray import serve

    for connection in _connections:
        connection.runner.run(connection.engine.close())
        connection.runner.close()
    _connections.clear()
    serve.shutdown()
    ray.shutdown()
