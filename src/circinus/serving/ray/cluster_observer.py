"""Status of a cluster that tolerates missing routers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.serving.engine import DeploymentStatus, QueryStatus
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.cluster import AppSnapshot, Cluster, PoolNodes
from circinus.serving.ray.rolling_update import apps_without_nodes, router_configs, router_pools
from circinus.serving.ray.serve_config import deployed_tokens
from circinus.serving.ray.settings import DEFAULT_HTTP, RaySettings, router_name
from circinus.serving.ray.site_router import RouterConfig, RouterStatus
from circinus.specification import Deployment


class RouterStatusCache:
    """Last status of each deployment, as reported by the router of its site.

    Counters grow until their router restarts. Without the cache, a router that is too busy to respond once would look
    restarted.
    """

    def __init__(self) -> None:
        self._last: dict[str, DeploymentStatus] = {}

    def after(
        self, configs: Sequence[RouterConfig], routers: Mapping[str, RouterStatus], sites: Collection[str]
    ) -> dict[str, DeploymentStatus]:
        """Return the last status of each application that is deployed and was reported at least once.

        Args:
            configs: the deployed applications.
            routers: site -> current status of its router, of the routers that respond.
            sites: sites whose routers live. Queues of other routers are lost.
        """
        current = {name: status for router in routers.values() for name, status in router.deployments.items()}
        statuses = {}
        for config in configs:
            for name in config.deployments:
                status = current.get(name, self._last.get(name))
                if status is not None:
                    statuses[name] = status if config.site in sites else replace(status, queue_length=0)
        self._last = statuses
        return statuses


def queries_of(statuses: Collection[RouterStatus]) -> tuple[QueryStatus, ...]:
    """Return the counters of each query once.

    Routers keep their counters, so if the source of a query has moved to another site, only the router there counts.
    """
    entering = [{route.query for route in status.config.routes} if status.config else set() for status in statuses]
    all_queries = set().union(*entering)
    counters = {
        status.query: status
        for observation, local in zip(statuses, entering, strict=True)
        for status in observation.queries
        if status.query in local or status.query not in all_queries
    }
    return tuple(counters.values())


def deployed_http(settings: RaySettings) -> tuple[tuple[str, int], HttpTokens]:
    """Return the address (host, port) of requests over HTTP, and the tokens that they need.

    Raises:
        ServingError: there is no such cluster.
    """
    cluster = Cluster(settings)
    tokens = deployed_tokens(router_configs([app.config for app in cluster.snapshot().values()]))
    address = cluster.http_address() or settings.http or DEFAULT_HTTP
    return address, HttpTokens.parse(tokens, settings.address) if tokens else HttpTokens()


_STEP_S = 0.25


@dataclass(frozen=True)
class ClusterSnapshot:
    """State of this project's applications, as reported by Ray itself."""

    apps: Mapping[str, AppSnapshot]
    pools: Mapping[str, PoolNodes]
    """Pools with live nodes."""

    @property
    def lost_applications(self) -> frozenset[str]:
        """Applications whose pool has no node any more."""
        return apps_without_nodes([app.config for app in self.apps.values()], self.pools)

    def settled(self, application: str) -> bool:
        """Return whether an application runs its last deployed configuration, or is lost."""
        app = self.apps.get(application)
        return application in self.lost_applications or (app is not None and app.status == "RUNNING")

    @property
    def deployed_router_configs(self) -> list[RouterConfig]:
        """Configurations that the routers were deployed with."""
        return router_configs([app.config for app in self.apps.values()])

    @property
    def router_pools(self) -> dict[str, str]:
        """Site -> pool of its router, where it has one."""
        return router_pools([app.config for app in self.apps.values()])

    @property
    def deployments(self) -> dict[str, Deployment]:
        """Application -> its deployment, as the routers were deployed with."""
        targets = (target for config in self.deployed_router_configs for target in config.deployments.items())
        return {name: target.deployment for name, target in targets}

    @property
    def sites(self) -> list[str]:
        """Sites with a reachable router. A call to any other router would never return."""
        lost, reachable = self.lost_applications, {name for name, app in self.apps.items() if app.reachable}
        return [config.site for config in self.deployed_router_configs if router_name(config.site) in reachable - lost]


async def observe_cluster(
    look: Callable[[], Awaitable[ClusterSnapshot]],
    observe: Callable[[str], Awaitable[RouterStatus | None]],
    timeout_s: float,
) -> tuple[ClusterSnapshot, dict[str, RouterStatus]]:
    """Return the state of the cluster, and the status of each router that responds.

    A router does not respond if its node was just lost, and Ray notices the loss only later. So the cluster is polled
    while routers are pending, and its state is returned even if some never respond.

    Args:
        look: returns the state of the cluster.
        observe: returns the status of a site's router, or None if the router does not respond.
        timeout_s: timeout of a router that Ray reports as alive.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + timeout_s
    statuses: dict[str, RouterStatus] = {}
    calls: dict[str, asyncio.Task[RouterStatus | None]] = {}
    try:
        while True:
            snapshot = await look()
            pending = [site for site in snapshot.sites if site not in statuses]
            if not pending or loop.time() >= deadline_s:
                return snapshot, statuses
            for site in [site for site in calls if site not in pending]:
                calls.pop(site).cancel()
            for site in pending:
                if site not in calls:
                    calls[site] = asyncio.ensure_future(observe(site))
            step_s = loop.time() + _STEP_S
            await asyncio.wait(calls.values(), timeout=_STEP_S)
            for site in [site for site, task in calls.items() if task.done()]:
                status = calls.pop(site).result()
                if status is not None:
                    statuses[site] = status
            if all(site in statuses for site in pending):
                return snapshot, statuses
            await asyncio.sleep(step_s - loop.time())  # a router fails briefly while it is reconfigured
    finally:
        for task in calls.values():
            task.cancel()
