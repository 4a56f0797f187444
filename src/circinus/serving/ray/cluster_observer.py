"""Looking at a cluster some of whose routers may be gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from circinus.serving.engine import QueryStatus
from circinus.serving.ray.cluster import AppSnapshot, PoolNodes
from circinus.serving.ray.rolling_update import apps_without_nodes, router_configs
from circinus.serving.ray.router_protocol import ApplicationStatus, RouterConfig, RouterStatus
from circinus.serving.ray.settings import router_name


class RouterStatusCache:
    """What the router of each site said last of its deployments.

    Their counters only ever grow, unless a router begins anew: none may seem to have done so because it was too busy to
    answer once.
    """

    def __init__(self) -> None:
        """Nothing was said."""
        self._known: dict[str, ApplicationStatus] = {}

    def after(
        self, configs: Sequence[RouterConfig], seen: Mapping[str, RouterStatus], sites: Collection[str]
    ) -> dict[str, ApplicationStatus]:
        """Application -> what was said last of it; of those only that are listed, and of which something was said.

        Args:
            configs: what lists them.
            seen: site -> what its router says now, of those that answer.
            sites: whose routers live; what waits at another one is gone.
        """
        now = {found.application: found for observation in seen.values() for found in observation.applications}
        found = {}
        for config in configs:
            for wanted in config.deployments:
                its = now.get(wanted.application, self._known.get(wanted.application))
                if its is not None:
                    found[wanted.application] = its if config.site in sites else replace(its, queue_length=0)
        self._known = found
        return found


def queries_of(seen: Collection[RouterStatus]) -> tuple[QueryStatus, ...]:
    """What became of the requests of every query, each once.

    Routers do not forget what they counted: of a query whose source is another site now, only its router is heard.
    """
    entering = [{route.query for route in found.config.routes} if found.config else set() for found in seen]
    anywhere = set().union(*entering)
    told = {
        found.query: found
        for observation, here in zip(seen, entering, strict=True)
        for found in observation.queries
        if found.query in here or found.query not in anywhere
    }
    return tuple(told.values())


_STEP_S = 0.25


@dataclass(frozen=True)
class ClusterSnapshot:
    """What Ray itself says of this project's applications."""

    apps: Mapping[str, AppSnapshot]
    pools: Mapping[str, PoolNodes]
    """Those that have nodes."""

    @property
    def lost_applications(self) -> frozenset[str]:
        """Applications that run where no node is any more."""
        return apps_without_nodes([found.config for found in self.apps.values()], self.pools)

    def settled(self, application: str) -> bool:
        """Whether an application runs as it was last told to, or is lost."""
        found = self.apps.get(application)
        return application in self.lost_applications or (found is not None and found.status == "RUNNING")

    @property
    def deployed_router_configs(self) -> list[RouterConfig]:
        """What routers were told when they were deployed."""
        return router_configs([found.config for found in self.apps.values()])

    @property
    def sites(self) -> list[str]:
        """Those whose routers can be called: where none runs a call would wait for nothing."""
        lost, reachable = self.lost_applications, {name for name, found in self.apps.items() if found.reachable}
        return [config.site for config in self.deployed_router_configs if router_name(config.site) in reachable - lost]


async def observe_cluster(
    look: Callable[[], Awaitable[ClusterSnapshot]],
    observe: Callable[[str], Awaitable[RouterStatus | None]],
    patience_s: float,
) -> tuple[ClusterSnapshot, dict[str, RouterStatus]]:
    """The cluster, and its routers as far as they answer.

    A router whose node was just lost does not answer, and is not known to be gone before Ray notices. So while one is
    waited for the cluster is looked at again and again: what that shows is not kept back by those who are gone.

    Args:
        look: at the cluster.
        observe: a site's router; None: it does not answer.
        patience_s: how long to wait for one that Ray takes to live.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + patience_s
    seen: dict[str, RouterStatus] = {}
    asked: dict[str, asyncio.Task[RouterStatus | None]] = {}
    try:
        while True:
            view = await look()
            missing = [site for site in view.sites if site not in seen]
            if not missing or loop.time() >= deadline_s:
                return view, seen
            for site in [site for site in asked if site not in missing]:
                asked.pop(site).cancel()
            for site in missing:
                if site not in asked:
                    asked[site] = asyncio.ensure_future(observe(site))
            step_s = loop.time() + _STEP_S
            await asyncio.wait(asked.values(), timeout=_STEP_S)
            for site in [site for site, task in asked.items() if task.done()]:
                found = asked.pop(site).result()
                if found is not None:
                    seen[site] = found
            if all(site in seen for site in missing):
                return view, seen
            await asyncio.sleep(step_s - loop.time())  # one that is just told something else fails for a moment
    finally:
        for task in asked.values():
            task.cancel()
