"""Fake cluster that records calls and reports its applications as running, to test changes step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value
from circinus.serving.engine import DeploymentStatus, QueryStatus, ResponseTimings, ServedBatch
from circinus.serving.ray.cluster import AppSnapshot, PoolNodes
from circinus.serving.ray.settings import ROUTER
from circinus.serving.ray.site_router import RouterConfig, RouterStatus, config_from_dict
from circinus.serving.router.entry_route import missing_route
from circinus.serving.router.request_messages import PickledResponse


@dataclass
class PaperCluster:
    """The part of `Cluster` that a change needs."""

    status: str = "RUNNING"
    """Status of all applications."""
    ailing: dict[str, str] = field(default_factory=dict)
    """Application -> status, where it differs."""
    ready: int = 1
    """Number of replicas of each application."""
    steps: list[str] = field(default_factory=list)
    """Calls in order."""
    apps: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    router_configs: dict[str, RouterConfig] = field(default_factory=dict)
    """Router -> its current configuration."""
    silent: set[str] = field(default_factory=set)
    """Routers that do not respond."""
    batches: int = 0
    """Number of batches that each deployment served."""
    waiting: int = 0
    """Length of each queue."""
    under_way: dict[str, int] = field(default_factory=dict)
    """Application -> number of requests in flight that may need it."""
    entered: int = 0
    """Number of requests of each query."""

    def start(self) -> None:
        pass

    def pools(self) -> dict[str, PoolNodes]:
        return {name: PoolNodes(1, labelled=False) for name in ("near", "far")}

    def snapshot(self) -> dict[str, AppSnapshot]:
        return {
            name: AppSnapshot(self.ailing.get(name, self.status), "", app, self.ready, 0, self.ready > 0)
            for name, app in self.apps.items()
        }

    def deploy(self, schema: Mapping[str, Any]) -> None:
        self.steps.append("deploy")
        self.apps = {app["name"]: app for app in schema["applications"]}
        for name, app in self.apps.items():
            (deployment,) = app["deployments"]
            if deployment["name"] == ROUTER:
                self.router_configs.setdefault(name, config_from_dict(deployment["user_config"]))

    def router(self, application: str) -> Any:
        if application not in self.apps:
            raise ServingError("the application is not running", code="ray.application_not_running")
        return PaperRouter(self, application)


@dataclass
class PaperRouter:
    """A handle to a router."""

    cluster: PaperCluster
    application: str

    def __getattr__(self, name: str) -> Any:
        return _Method(getattr(self, f"_{name}"))

    async def _switch(self, config: RouterConfig) -> None:
        self.cluster.steps.append("switch")
        self.cluster.router_configs[self.application] = config

    async def _abandon(self, applications: list[str], reason: str) -> None:
        self.cluster.steps.append("abandon")

    async def _submit(self, query: str, item_key: str, value: bytes | None, input_bytes: float) -> PickledResponse:
        """Return the name of the router."""
        if self.application in self.cluster.silent:
            raise ConnectionError
        routed = [route.query for route in self.cluster.router_configs[self.application].routes]
        if query not in routed:
            raise missing_route(query, routed)
        return PickledResponse({"end": pickle_value(self.application)}, ResponseTimings(0.0, {}, {}, {}))

    async def _observe(self) -> RouterStatus:
        if self.application in self.cluster.silent:
            await asyncio.sleep(1e6)
        config = self.cluster.router_configs[self.application]
        recent = tuple(ServedBatch(0.1, 1, "", 100 + n) for n in range(self.cluster.batches)[-32:])
        waiting, batches = self.cluster.waiting, self.cluster.batches
        statuses = {
            name: DeploymentStatus(target.deployment, 0, 0, waiting, 0, 0, batches=batches, recent_batches=recent)
            for name, target in config.deployments.items()
        }
        entered = self.cluster.entered
        counts = tuple(QueryStatus(route.query, entered, entered, 0) for route in config.routes)
        return RouterStatus(config, statuses, dict(self.cluster.under_way), counts)


@dataclass
class _Method:
    remote: Callable[..., Awaitable[Any]]
