"""Routers of several sites without Ray: replicas and links are functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from circinus.errors import ServingError
from circinus.operators.pickling import Payload, pickle_value, unpickle_value
from circinus.serving.applications import build_applications
from circinus.serving.engine import DesiredState
from circinus.serving.ray.application_replicas import ReplicaLostError
from circinus.serving.ray.serve_config import build_router_configs
from circinus.serving.ray.site_router import SiteRouterCore, config_from_dict, config_to_dict
from circinus.serving.replicas.replica_protocol import BatchItem, BatchResult, ItemResult
from circinus.serving.router.request_messages import RouterMessage
from virtual_time import run as in_virtual_time


class Scene:
    """Routers of all sites of a state. Replicas add 1 to a single input, and join several inputs."""

    def __init__(self, desired: DesiredState) -> None:
        self.batches: list[tuple[str, int]] = []
        self.under_way = 0
        self.most_at_once = 0
        self.hold = asyncio.Event()
        self.hold.set()
        self.present = asyncio.Event()
        self.present.set()
        self.lose: Callable[[Sequence[BatchItem]], bool] = lambda items: False
        self.unreachable: set[str] = set()
        self.crossings: list[tuple[str, str]] = []
        self.boards: dict[str, SiteRouterCore] = {}
        self.applications = build_applications(desired)
        for site, config in build_router_configs(desired, self.applications).items():
            board = self.boards[site] = SiteRouterCore(site, site, self, self, asyncio.get_running_loop())
            board.configure(config_from_dict(config_to_dict(config)))

    async def process(
        self, application: str, items: Sequence[BatchItem], payloads: Sequence[Payload], limit_s: float | None
    ) -> tuple[BatchResult, Sequence[Payload]]:
        self.batches.append((application, len(items)))
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            await asyncio.sleep(0)
            await self.present.wait()
            await self.hold.wait()
            if self.lose(items):
                raise ReplicaLostError("it was unplugged")
            remaining = iter(payloads)
            results, outputs = [], []
            for item in items:
                values = [unpickle_value(next(remaining)) for _ in range(item.inputs)]
                if values == [-1]:
                    results.append(ItemResult("ValueError: -1 is negative", 0.0, 0.0, 0.0, has_payload=False))
                    continue
                output = pickle_value(values[0] + 1 if len(values) == 1 else values)
                outputs.append(output)
                results.append(ItemResult("", 0.5, 0.5 / len(items), len(output), has_payload=True))
            return BatchResult(0.0, results), outputs
        finally:
            self.under_way -= 1

    async def deliver(self, site: str, parcel: RouterMessage, age_s: float, padding: bytes) -> None:
        await asyncio.sleep(0)
        if site in self.unreachable:
            raise ServingError("it was unplugged")
        self.crossings.append((parcel.producer, site))
        self.boards[site].accept(parcel, age_s)

    async def report(self, site: str, number: str, reason: str, code: str) -> None:
        self.boards[site].fail(number, reason, code)

    async def ask(self, value: Any, query: str = "q", left_s: float = 300.0) -> Any:
        response = await self.boards["home"].submit(query, "item", pickle_value(value), 100.0, left_s)
        outputs = {sink: unpickle_value(output) for sink, output in response.outputs.items()}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def driven(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test in virtual time, in which a sleep ends after all other pending work."""

    def run() -> None:
        in_virtual_time(test())

    run.__name__ = test.__name__
    return run
