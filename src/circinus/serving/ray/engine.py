"""Serving engine across machines, on Ray Serve."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace

from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value
from circinus.serving.applications import build_applications
from circinus.serving.audit_buffer import merge_audits
from circinus.serving.engine import (
    AuditBatch,
    DeploymentStatus,
    DesiredState,
    EngineStatus,
    Guard,
    Mode,
    Request,
    Response,
)
from circinus.serving.lease import LeaseLostError
from circinus.serving.ray.cluster import AppSnapshot, Cluster
from circinus.serving.ray.cluster_observer import ClusterSnapshot, RouterStatusCache, observe_cluster, queries_of
from circinus.serving.ray.rolling_update import (
    App,
    apps_without_nodes,
    reuse_unchanged,
    router_configs,
    surge_config,
    unchanged_apps,
    with_deployments_of,
    without_deployments,
    without_graceful_shutdown,
)
from circinus.serving.ray.router_client import RouterClient, call_in_thread
from circinus.serving.ray.serve_config import build_router_configs, serve_schema
from circinus.serving.ray.settings import POOL_LABEL, POOL_RESOURCE, RaySettings, router_name
from circinus.serving.ray.site_router import RouterConfig, RouterStatus
from circinus.serving.replicas.replay_executor import load_replay_stages
from circinus.serving.router.entry_route import missing_route
from circinus.serving.router.request_messages import PickledResponse
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import validate_state

_POLL_S = 0.1
_RETRY_S = 30.0
_DRAIN_TIMEOUT = "its route was replaced, and it did not finish there in time"
_NO_NODES = "a pool on its route has no nodes left"


class RayEngine:
    """`Engine` on a Ray cluster.

    All state is kept in the cluster, so any number of engines may observe it, but one at a time may change it. All
    calls must come from one event loop.
    """

    def __init__(self, settings: RaySettings | None = None) -> None:
        """Connect lazily, on the first call."""
        self._settings = settings or RaySettings()
        self._cluster: Cluster | None = None
        self._applying = asyncio.Lock()
        self._client = RouterClient(self._connect)
        self._sources: dict[str, str] = {}
        """Query -> source site, of the queries resolved so far."""
        self._doubtful: set[str] = set()
        """Queries whose source did not serve them last time: another engine may have moved them."""
        self._replays = False
        self._status_cache = RouterStatusCache()
        self._startups_s: dict[str, float] = {}
        self._requested_at_s: dict[str, float] = {}
        """Application -> when its start-up time was last requested."""
        self._closed = False

    async def apply(self, desired: DesiredState) -> None:
        """Implement `Engine.apply`; requests in flight may finish on their routes, for at most a minute."""
        await self.apply_fenced(desired, _unguarded)

    async def apply_fenced(self, desired: DesiredState, guard: Guard) -> None:
        """Implement `FencedEngine.apply_fenced`; the guard precedes every deployment and every switch of routers."""
        async with self._applying:
            validate_state(desired)
            if desired.mode is Mode.REPLAY:
                await asyncio.to_thread(load_replay_stages, desired)  # fails before anything changes
            cluster = await self._connected()
            await call_in_thread(cluster.start, timeout_s=SERVING.serve_start_timeout_s)
            self._client.retain(())  # handles of an earlier Ray Serve are dead
            await self._change(desired, cluster, guard)

    async def submit(self, request: Request) -> Response:
        """Implement `Engine.submit`."""
        if request.query not in self._sources or request.query in self._doubtful:
            self._doubtful.discard(request.query)
            await self._update_routes()
        site = self._sources.get(request.query)
        if site is None:
            raise missing_route(request.query, self._sources)
        value = None if self._replays else pickle_value(request.value)
        arguments = (request.query, request.item_key, value, request.input_bytes)
        timeout_s = SERVING.default_deadline_s + SERVING.router_timeout_s
        try:
            response: PickledResponse = await self._client.call(site, "submit", *arguments, timeout_s=timeout_s)
        except ServingError as error:
            if not error.code.startswith("query."):  # the request did not enter a route
                self._doubtful.add(request.query)
            raise
        return response.unpickle()

    async def status(self) -> EngineStatus:
        """Implement `Engine.status`.

        If a router does not respond, its site is reported with the configuration that was deployed last, which the
        router gets from Ray Serve when it is back, and with the last status of its deployments. Counters of queries
        that enter there are omitted: stale counts would look like a pause, followed by a burst.
        """
        cluster = await self._connected()

        async def observe(site: str) -> RouterStatus | None:
            return (await self._client.observe([site])).get(site)

        snapshot, seen = await observe_cluster(lambda: _observe(cluster), observe, SERVING.router_status_timeout_s)
        apps, deployed = snapshot.apps, snapshot.deployed_router_configs
        configs = [seen[c.site].config or c if c.site in seen else c for c in deployed]
        statuses = self._status_cache.after(configs, seen, snapshot.sites)
        desired = {name: target for config in configs for name, target in config.deployments.items()}
        ready = {name: apps[name] for name in desired if name in apps and apps[name].ready}
        await self._update_startups(ready, cluster)
        deployments = []
        for name, target in desired.items():
            app, status = apps.get(name), statuses.get(name) or DeploymentStatus(target.deployment, 0, 0, 0, 0, 0)
            replaced = app.restarts if app else 0
            message = status.message or ("a replica ended and was replaced" if replaced else "")
            if app and app.status != "RUNNING":
                message = message or app.message
            deployments.append(
                replace(
                    status,
                    target_replicas=target.replicas,
                    replicas_ready=app.ready if app else 0,
                    restarts=max(status.restarts, replaced),
                    message=message,
                    startup_s=self._startups_s.get(name),
                )
            )
        states = {config.state for config in (*configs, *deployed)}
        if not all(c.site in seen or snapshot.settled(router_name(c.site)) for c in deployed):
            states.add("")  # the deployed configuration is not in force before the router runs
        return EngineStatus(
            mode=Mode(configs[0].mode) if configs else Mode.REAL,
            deployments=tuple(deployments),
            routes=tuple(dict.fromkeys(r.query for config in configs for r in config.routes if not r.is_paused)),
            state=states.pop() if len(states) == 1 else "",
            queries=queries_of(seen.values()),
            splits=tuple(split for status in seen.values() for split in status.splits),
            nodes={name: nodes.count for name, nodes in snapshot.pools.items()},
        )

    async def drain_audits(self) -> AuditBatch:
        """Implement `AuditableEngine.drain_audits`; a silent router keeps its samples for a later call."""
        cluster = await self._connected()
        sites = (await _observe(cluster)).sites
        calls = (self._client.call(site, "drain_audits", timeout_s=SERVING.router_status_timeout_s) for site in sites)
        results = await asyncio.gather(*calls, return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures and (
            len(failures) == len(results) or not all(isinstance(failure, ServingError) for failure in failures)
        ):
            raise failures[0]
        return merge_audits(result for result in results if isinstance(result, AuditBatch))

    async def disconnect(self) -> None:
        """Disconnect; everything keeps running."""
        self._client.retain(())

    async def close(self) -> None:
        """Implement `Engine.close`; the cluster and applications of other projects keep running."""
        async with self._applying:
            if self._closed:
                return
            cluster = await self._connected()
            self._closed = True
            apps = (snapshot := await _observe(cluster)).apps
            if not apps:
                return
            # Fail requests in flight now, not when their deployments are gone.
            await self._client.fail_requests(snapshot.sites, None, "the engine was closed")
            self._sources.clear()
            self._client.retain(())
            immediate = [without_graceful_shutdown(app.config) for app in apps.values()]
            await call_in_thread(cluster.deploy, {"applications": immediate}, timeout_s=SERVING.change_timeout_s)
            with suppress(ServingError):
                await self._wait_until_running(
                    apps.keys() - snapshot.lost_applications, cluster, SERVING.restore_timeout_s
                )
            await call_in_thread(cluster.deploy, {"applications": []}, timeout_s=SERVING.change_timeout_s)
            deadline_s = asyncio.get_running_loop().time() + SERVING.end_timeout_s
            while await call_in_thread(cluster.has_residual_actors, list(apps)):
                if asyncio.get_running_loop().time() > deadline_s:
                    raise ServingError(
                        f"some applications are still shutting down after {SERVING.end_timeout_s:.0f} s",
                        code="engine.not_ended",
                        hint="Inspect them with `serve status`.",
                    )
                await asyncio.sleep(_POLL_S)

    async def _connected(self) -> Cluster:
        if self._closed:
            raise ServingError("the engine is closed", code="engine.closed", hint="Start another engine.")
        return await self._connect()

    async def _connect(self) -> Cluster:
        if self._cluster is None:
            self._cluster = await call_in_thread(Cluster, self._settings, timeout_s=SERVING.change_timeout_s)
        return self._cluster

    async def _change(self, desired: DesiredState, cluster: Cluster, guard: Guard) -> None:
        snapshot = await _observe(cluster)
        previous, pools, lost = snapshot.apps, snapshot.pools, snapshot.lost_applications
        applications = build_applications(desired, snapshot.deployments, emulate_speeds=False)
        configs = build_router_configs(desired, applications, snapshot.deployed_router_configs, self._settings.tokens)
        self._check_pools(desired, pools)
        labelled = frozenset(name for name, nodes in pools.items() if nodes.labelled)
        schema = serve_schema(
            applications,
            configs,
            desired.infrastructure,
            self._settings,
            recordings=desired.recordings,
            labelled=labelled,
            live_pools=pools.keys(),
            router_pools=snapshot.router_pools,
        )
        final = reuse_unchanged(previous, schema["applications"])
        larger = surge_config(previous, final)
        try:
            if larger is not None:
                await _deploy({**schema, "applications": larger}, cluster, guard)
            names = frozenset(app["name"] for app in final)
            await self._wait_until_running(names, cluster, SERVING.start_timeout_s, unchanged_apps(previous, larger))
            await self._switch(previous, configs, lost, guard)
        except LeaseLostError:  # the deployed state now belongs to another controller
            raise
        except BaseException as error:  # also if cancelled: the previous state must stay in force
            with suppress(LeaseLostError):
                await self._restore(previous, schema, cluster, guard)
                if isinstance(error, Exception):  # a cancelled change is superseded by a newer one
                    await self._wait_until_restored(previous, cluster)
            raise
        # If cancelled from here on, removed deployments are left to the next change, as requests are in flight there.
        await self._drain(previous, final, lost, guard)
        await _deploy({**schema, "applications": final}, cluster, guard)
        await guard()
        # Ray Serve does not reconfigure a router that was deployed with this configuration, such as a moved one.
        await self._client.broadcast(configs.values())
        self._client.retain(configs)

    async def _wait_until_running(
        self, names: Set[str], cluster: Cluster, timeout_s: float, unchanged: Set[str] = frozenset()
    ) -> None:
        """Wait until applications run with all their replicas.

        Args:
            names: the applications.
            cluster: the cluster.
            timeout_s: timeout.
            unchanged: applications deployed without a change; Ray Serve repairs them by itself if unhealthy.

        Raises:
            ServingError: an application fails to start, with the messages of its replicas, or its pool has no nodes
                left.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while True:
            try:
                snapshot = await _observe(cluster)
            except ServingError:  # Serve may be busy, or moving to another node
                if loop.time() > deadline_s:
                    raise
                await asyncio.sleep(_POLL_S)
                continue
            apps = snapshot.apps
            usable = {name for name in unchanged if name in apps and apps[name].usable}
            pending = [name for name in names - usable if name not in apps or apps[name].status != "RUNNING"]
            for name in pending:
                if name in apps and apps[name].status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    raise ServingError(
                        f"the application failed to start: {apps[name].message}",
                        code="ray.application_failed",
                        location=f"application {name}",
                    )
                if name in snapshot.lost_applications:
                    raise ServingError(
                        "the application cannot start because its pool has no nodes left",
                        code="ray.pool_lost",
                        location=f"application {name}",
                    )
            if not pending:
                return
            if loop.time() > deadline_s:
                reasons = [f"{name}: {apps[name].message if name in apps else 'not deployed'}" for name in pending]
                raise ServingError(
                    f"applications not running after {timeout_s:.0f} s: {'; '.join(reasons)}", code="ray.not_started"
                )
            await asyncio.sleep(_POLL_S)

    async def _restore(self, previous: Mapping[str, AppSnapshot], schema: App, cluster: Cluster, guard: Guard) -> None:
        """Roll back to the applications before a change, as far as possible."""
        snapshot = await _observe(cluster)
        apps = [app.config for app in previous.values()]
        configs = router_configs(apps)
        await guard()
        await self._client.broadcast(config for config in configs if config.site in snapshot.sites)
        self._set_routes(configs)
        await _deploy({**schema, "applications": apps}, cluster, guard)

    async def _wait_until_restored(self, previous: Mapping[str, AppSnapshot], cluster: Cluster) -> None:
        with suppress(ServingError):
            lost = apps_without_nodes([app.config for app in previous.values()], (await _observe(cluster)).pools)
            await self._wait_until_running(previous.keys() - lost, cluster, SERVING.restore_timeout_s)

    @staticmethod
    def _check_pools(desired: DesiredState, live_pools: Iterable[str]) -> None:
        available = sorted(live_pools)
        pools = dict.fromkeys(desired_deployment.deployment.pool for desired_deployment in desired.deployments)
        missing = [pool for pool in pools if pool not in available]
        if missing:
            raise ServingError(
                f"the cluster has no nodes in pool {', '.join(missing)}; "
                f"pools with nodes: {', '.join(available) or 'none'}",
                code="ray.missing_pool",
                hint=f"Start a node with the resource {POOL_RESOURCE}POOL or the label {POOL_LABEL}=POOL.",
            )

    async def _switch(
        self,
        previous: Mapping[str, AppSnapshot],
        configs: Mapping[str, RouterConfig],
        lost: frozenset[str],
        guard: Guard,
    ) -> None:
        """Configure all routers for new and previous deployments, and then let requests enter on the new routes."""
        old = {config.site: config for config in router_configs([app.config for app in previous.values()])}
        both = {
            site: without_deployments(with_deployments_of(config, old.get(site)), lost)
            for site, config in configs.items()
        }
        entering = [_with_routes(config, old[site]) for site, config in both.items() if site in old]
        for step in (entering, list(both.values())):
            await guard()
            calls = (self._client.call(config.site, "switch", config) for config in step)
            failures = [e for e in await asyncio.gather(*calls, return_exceptions=True) if isinstance(e, BaseException)]
            if failures:  # all calls have ended, so none can overtake a later one
                raise failures[0]
        await guard()
        for site, config in old.items():
            if site not in configs and router_name(site) not in lost:
                with suppress(ServingError):  # the router may be gone with its site
                    await self._client.call(site, "switch", _with_routes(config, None))
        self._set_routes(configs.values())

    async def _drain(
        self, previous: Mapping[str, AppSnapshot], final: Sequence[App], lost: frozenset[str], guard: Guard
    ) -> None:
        """Wait for requests on removed deployments; fail them at the timeout; those of a lost pool move or fail."""
        leaving = previous.keys() - {app["name"] for app in final}
        if not leaving:
            return
        cluster = await self._connected()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + SERVING.drain_timeout_s
        while loop.time() < deadline_s:
            with suppress(ServingError):  # Serve may be busy: wait until requests in flight can be observed
                if await self._is_drained(leaving, lost, cluster):
                    return
            await asyncio.sleep(_POLL_S)
        await guard()
        with suppress(ServingError):  # else they fail with their replicas
            await self._client.fail_requests((await _observe(cluster)).sites, sorted(leaving), _DRAIN_TIMEOUT)

    async def _is_drained(self, leaving: Collection[str], lost: frozenset[str], cluster: Cluster) -> bool:
        """Return whether all remaining routers report that no request in flight needs a removed application."""
        snapshot = await _observe(cluster)
        lost |= snapshot.lost_applications
        if lost:
            await self._client.fail_requests(snapshot.sites, sorted(lost), _NO_NODES)
        seen = await self._client.observe(snapshot.sites)
        silent = {
            config.site for config in snapshot.deployed_router_configs if router_name(config.site) not in lost
        } - seen.keys()
        return not silent and not any(name in leaving for status in seen.values() for name in status.under_way)

    async def _update_routes(self) -> None:
        snapshot = await _observe(await self._connected())
        seen = await self._client.observe(snapshot.sites)
        silent = {config.site for config in snapshot.deployed_router_configs} - seen.keys()  # keep their queries
        kept = {query: site for query, site in self._sources.items() if site in silent}
        self._set_routes(status.config for status in seen.values() if status.config is not None)
        self._sources = kept | self._sources

    def _set_routes(self, configs: Iterable[RouterConfig]) -> None:
        self._sources = {}
        for config in configs:
            self._replays = Mode(config.mode) is Mode.REPLAY
            self._sources |= {route.query: config.site for route in config.routes}

    async def _update_startups(self, applications: Mapping[str, AppSnapshot], cluster: Cluster) -> None:
        """Request missing start-up times of replicas; busy replicas are called again later.

        The start-up lasts from Ray Serve's request for a replica until it is ready, by the clocks of both machines.
        """
        now_s = asyncio.get_running_loop().time()
        names = [
            name
            for name in applications
            if name not in self._startups_s and now_s - self._requested_at_s.get(name, -_RETRY_S) >= _RETRY_S
        ]

        async def learn(name: str) -> None:
            self._requested_at_s[name] = now_s
            with suppress(Exception):  # the replica is busy or gone
                handle = await call_in_thread(cluster.replicas, name)
                async with asyncio.timeout(1.0):
                    replica, ready_s = await handle.ready.remote()
                self._startups_s[name] = max(0.0, ready_s - applications[name].requested_at_s[replica])

        await asyncio.gather(*(learn(name) for name in names))


async def _observe(cluster: Cluster) -> ClusterSnapshot:
    return ClusterSnapshot(*await asyncio.gather(call_in_thread(cluster.snapshot), call_in_thread(cluster.pools)))


async def _deploy(schema: App, cluster: Cluster, guard: Guard) -> None:
    """Deploy applications, if the guard allows it."""
    await guard()
    await call_in_thread(cluster.deploy, schema, timeout_s=SERVING.change_timeout_s)


async def _unguarded() -> None:
    """Allow all changes."""


def _with_routes(config: RouterConfig, other: RouterConfig | None) -> RouterConfig:
    """Return a configuration with the routes of another one; None: without routes."""
    return replace(config, routes=() if other is None else other.routes)
