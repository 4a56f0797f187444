"""What happens inside the site that requests come from: deploy a matching on the Ray engine, send traffic, measure."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from circinus.api.traffic_items import select_traffic_items
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
    """One matching under traffic."""

    report: LoadReport
    link_bytes: Mapping[str, Mapping[str, float]]
    """Query -> link -> bytes a request, as the engine counts them."""


class _CountingLinks:
    """An engine that adds up what the answers of another say of links."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self._answers: Counter[str] = Counter()
        self._bytes: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def submit(self, request: Request) -> Response:
        """As `Engine.submit`."""
        response = await self._engine.submit(request)
        self._answers[request.query] += 1
        self._bytes[request.query].update(response.link_bytes)
        return response

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`."""
        await self._engine.apply(desired)

    async def status(self) -> EngineStatus:
        """As `Engine.status`."""
        return await self._engine.status()

    async def close(self) -> None:
        """As `Engine.close`."""
        await self._engine.close()

    def a_request(self) -> dict[str, dict[str, float]]:
        """Query -> link -> bytes a request."""
        return {
            query: {link: size_bytes / self._answers[query] for link, size_bytes in found.items()}
            for query, found in self._bytes.items()
        }


@dataclass
class _Inside:
    """This process, once it is connected."""

    runner: asyncio.Runner
    engine: RayEngine


_inside: list[_Inside] = []


def connect(address: str, own_address: str) -> None:
    """Connect this process to the cluster, by the node of its own site.

    Ray looks for a node among the processes of this machine, and here would find those of all sites.
    """
    import ray
    from ray import serve

    from circinus.serving.ray.engine import RayEngine
    from circinus.serving.ray.settings import RaySettings

    ray.init(
        address=address, namespace="circinus", _node_ip_address=own_address, log_to_driver=False,
        configure_logging=False,
    )  # fmt: skip
    for module in (ray, serve):
        logging.getLogger(module.__name__).setLevel(logging.ERROR)
    _inside.append(_Inside(asyncio.Runner(loop_factory=new_event_loop), RayEngine(RaySettings(address=address))))


def deploy(specification: Specification, matching: Matching, store: Path) -> float:
    """Have a matching run, answering from recordings; the seconds until it does.

    Tried again as a controller would, where a router was too slow to answer: one machine is to be three sites.

    Raises:
        ServingError: of the last attempt.
    """
    desired = build_desired_state(matching, specification, Mode.REPLAY, store.resolve())
    inside = _inside[0]
    began_s = perf_counter()
    for _ in range(_ATTEMPTS - 1):
        with suppress(ServingError):
            inside.runner.run(inside.engine.apply(desired))
            return perf_counter() - began_s
    inside.runner.run(inside.engine.apply(desired))
    return perf_counter() - began_s


def load(specification: Specification, matching: Matching, store: Path, items: int, traffic: LoadSpec) -> Loaded:
    """Send traffic to what runs."""
    inside = _inside[0]
    counting = _CountingLinks(inside.engine)
    sent = select_traffic_items(specification, matching, store, items, Mode.REPLAY, seed=0)
    report = inside.runner.run(run_load_test(counting, specification, matching, sent, traffic))
    return Loaded(report, counting.a_request())


def disconnect() -> None:
    """End everything that this process started on the cluster."""
    import ray
    from ray import serve

    for inside in _inside:
        inside.runner.run(inside.engine.close())
        inside.runner.close()
    _inside.clear()
    serve.shutdown()
    ray.shutdown()
