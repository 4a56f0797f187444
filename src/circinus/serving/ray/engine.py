"""The engine across machines."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace

from circinus.errors import ServingError
from circinus.profiling.measurement.pickling import pickle_value
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
from circinus.serving.pickled_response import PickledResponse, unpickle_response
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
from circinus.serving.ray.router_client import ANSWER_S, CHANGE_S, START_S, RouterClient, call_in_thread
from circinus.serving.ray.router_protocol import RouterConfig, RouterStatus
from circinus.serving.ray.serve_config import build_applications, build_router_configs, serve_schema
from circinus.serving.ray.settings import POOL_LABEL, POOL_RESOURCE, RaySettings, router_name
from circinus.serving.ray.site_router import DEFAULT_DEADLINE_S
from circinus.serving.replicas.replay_executor import load_replay_stages
from circinus.serving.state_serialization import validate_state

_START_S = 600.0
"""Models may be large, and machines slow."""
_RESTORE_S = 30.0
_DRAIN_S = 60.0
"""How long requests under way may keep a deployment that is no longer wanted; then they fail."""
_END_S = 90.0
_GLANCE_S = 2.0
"""How long a look waits for a router."""
_POLL_S = 0.1
_ASK_AGAIN_S = 30.0
_TOO_LONG = "its route was replaced, and it took too long to finish there"
_NO_NODE = "a pool on its route has no node any more"


class RayEngine:
    """`Engine` on a Ray cluster. What runs is known to the cluster alone: any number of these may speak to it, one at a
    time may change it. All calls must come from one event loop."""

    def __init__(self, settings: RaySettings | None = None) -> None:
        """Nothing is connected before the first call."""
        self._settings = settings or RaySettings()
        self._cluster: Cluster | None = None
        self._applying = asyncio.Lock()
        self._calls = RouterClient(self._connected)
        self._sources: dict[str, str] = {}
        """Query -> site, as far as it was asked."""
        self._replays = False
        self._last_seen = RouterStatusCache()
        self._startups_s: dict[str, float] = {}
        self._asked_s: dict[str, float] = {}
        """Application -> when it was last asked for its start-up."""
        self._closed = False

    async def apply(self, desired: DesiredState) -> None:
        """As `Engine.apply`. Requests under way finish on the route they began on, if that takes no longer than a
        minute."""
        await self.apply_fenced(desired, _unguarded)

    async def apply_fenced(self, desired: DesiredState, guard: Guard) -> None:
        """As `Guarded.apply_guarded`; the guard is asked before every deployment and every switch of routers."""
        async with self._applying:
            validate_state(desired)
            if desired.mode is Mode.REPLAY:
                await asyncio.to_thread(load_replay_stages, desired)  # says what is missing before anything changes
            cluster = await self._connected()
            await call_in_thread(cluster.start, timeout_s=START_S)
            self._calls.retain(())  # those of a Ray Serve that was ended since answer no more
            await self._change(desired, cluster, guard)

    async def submit(self, request: Request) -> Response:
        """As `Engine.submit`."""
        if request.query not in self._sources:
            await self._learn_routes()
        site = self._sources.get(request.query)
        if site is None:
            known = ", ".join(self._sources) or "none"
            raise ServingError(
                f"the query has no route; queries with a route: {known}",
                code="route.missing",
                location=f"query {request.query}",
            )
        value = None if self._replays else pickle_value(request.value)
        arguments = (request.query, request.item_key, value, request.input_bytes)
        answer: PickledResponse = await self._calls.call(
            site, "submit", *arguments, patience_s=DEFAULT_DEADLINE_S + ANSWER_S
        )
        return unpickle_response(answer)

    async def status(self) -> EngineStatus:
        """As `Engine.status`. Of a site whose router does not answer, what was last deployed there is told, as it
        gets that from Ray Serve when it is back, with what it said last of its deployments. Of queries whose requests
        enter there nothing is told: from counts of before it would seem as if none came, and then a burst."""
        cluster = await self._connected()

        async def observe(site: str) -> RouterStatus | None:
            return (await self._calls.observe([site])).get(site)

        view, seen = await observe_cluster(lambda: _view(cluster), observe, _GLANCE_S)
        apps, told = view.apps, view.deployed_router_configs
        configs = [seen[c.site].config or c if c.site in seen else c for c in told]
        known = self._last_seen.after(configs, seen, view.sites)
        listed = [wanted for config in configs for wanted in config.deployments]
        started = [wanted.application for wanted in listed if wanted.application in apps]
        await self._learn_startups({name: apps[name] for name in started if apps[name].ready}, cluster)
        deployments = []
        for wanted in listed:
            found, its = apps.get(wanted.application), known.get(wanted.application)
            losses, replaced = its.losses if its else 0, found.restarts if found else 0
            message = (its.message if its else "") or ("a replica ended and was replaced" if replaced else "")
            healthy = found is not None and found.status == "RUNNING"
            deployments.append(
                DeploymentStatus(
                    deployment=wanted.deployment,
                    replicas_wanted=wanted.replicas,
                    replicas_ready=found.ready if found else 0,
                    queue_length=its.queue_length if its else 0,
                    requests=its.requests if its else 0,
                    restarts=max(losses, replaced),
                    message=message or ("" if healthy or found is None else found.message),
                    startup_s=self._startups_s.get(wanted.application),
                    batches=its.batches if its else 0,
                    recent_batches=its.recent_batches if its else (),
                )
            )
        states = {config.state for config in (*configs, *told)}
        if not all(c.site in seen or view.settled(router_name(c.site)) for c in told):
            states.add("")  # what a router was told is not in force before there is one
        return EngineStatus(
            mode=Mode(configs[0].mode) if configs else Mode.REAL,
            deployments=tuple(deployments),
            routes=tuple(route.query for config in configs for route in config.routes),
            state=states.pop() if len(states) == 1 else "",
            queries=queries_of(seen.values()),
            nodes={name: found.count for name, found in view.pools.items()},
        )

    async def drain_audits(self) -> AuditBatch:
        """As `Audited.audits`. What is kept where a router does not answer comes with a later call."""
        cluster = await self._connected()
        sites = (await _view(cluster)).sites
        calls = (self._calls.call(site, "drain_audits", patience_s=_GLANCE_S) for site in sites)
        found = await asyncio.gather(*calls, return_exceptions=True)
        failures = [one for one in found if isinstance(one, BaseException)]
        if failures and (len(failures) == len(found) or not all(isinstance(one, ServingError) for one in failures)):
            raise failures[0]
        return merge_audits(one for one in found if isinstance(one, AuditBatch))

    async def disconnect(self) -> None:
        """Leave everything running."""
        self._calls.retain(())

    async def close(self) -> None:
        """As `Engine.close`; the cluster, and what others serve there, stay."""
        async with self._applying:
            if self._closed:
                return
            cluster = await self._connected()
            self._closed = True
            view = await _view(cluster)
            apps = view.apps
            if not apps:
                return
            # Requests under way fail now, not when their deployments are gone.
            await self._calls.fail_requests(view.sites, list(apps), "the engine was closed", cluster)
            self._sources.clear()
            self._calls.retain(())
            hasty = [without_graceful_shutdown(found.config) for found in apps.values()]
            await call_in_thread(cluster.deploy, {"applications": hasty}, timeout_s=CHANGE_S)
            with suppress(ServingError):
                await self._running(apps.keys() - view.lost_applications, cluster, _RESTORE_S)
            await call_in_thread(cluster.deploy, {"applications": []}, timeout_s=CHANGE_S)
            deadline_s = asyncio.get_running_loop().time() + _END_S
            while await call_in_thread(cluster.has_residual_actors, list(apps)):
                if asyncio.get_running_loop().time() > deadline_s:
                    raise ServingError(
                        f"not everything has ended after {_END_S:.0f} s",
                        code="engine.not_ended",
                        hint="Look at `serve status`.",
                    )
                await asyncio.sleep(_POLL_S)

    async def _connected(self) -> Cluster:
        if self._closed:
            raise ServingError("the engine was closed", code="engine.closed", hint="Start another engine.")
        if self._cluster is None:
            self._cluster = await call_in_thread(Cluster, self._settings, timeout_s=CHANGE_S)
        return self._cluster

    async def _change(self, desired: DesiredState, cluster: Cluster, guard: Guard) -> None:
        view = await _view(cluster)
        before, pools, lost = view.apps, view.pools, view.lost_applications
        applications = build_applications(desired, self._settings)
        configs = build_router_configs(desired, applications)
        self._check_pools(desired, pools)
        if lost:  # what waits there waits in vain, however long all else may take
            await self._calls.fail_requests(view.sites, sorted(lost), _NO_NODE, cluster)
        labelled = frozenset(name for name, found in pools.items() if found.labelled)
        schema = serve_schema(
            applications,
            configs,
            desired.infrastructure,
            self._settings,
            replays=desired.mode is Mode.REPLAY,
            labelled=labelled,
            live_pools=pools.keys(),
        )
        final = reuse_unchanged(before, schema["applications"])
        larger = surge_config(before, final)
        try:
            if larger is not None:
                await _deploy({**schema, "applications": larger}, cluster, guard)
            wanted = frozenset(app["name"] for app in final)
            await self._running(wanted, cluster, _START_S, unchanged_apps(before, larger))
            await self._switch(before, configs, lost, guard)
        except LeaseLostError:  # what runs is up to somebody else now
            raise
        except BaseException as error:  # also being cancelled: what ran before stays as it was
            with suppress(LeaseLostError):
                await self._restore(before, schema, cluster, guard)
                if isinstance(error, Exception):  # who gives a change up has other plans already
                    await self._running_again(before, cluster)
            raise
        # Who is cancelled meanwhile leaves what is leaving to the next change: requests are under way there.
        await self._drain(before, final, lost, guard)
        await _deploy({**schema, "applications": final}, cluster, guard)
        await guard()
        # Ray Serve tells a router nothing that it was deployed with, as one that had to move was.
        await self._calls.broadcast(configs.values())
        self._calls.retain(configs)

    async def _running(
        self, names: Set[str], cluster: Cluster, patience_s: float, untouched: Set[str] = frozenset()
    ) -> None:
        """Wait until applications run with all their replicas.

        Args:
            names: of them.
            cluster: where.
            patience_s: how long at most.
            untouched: those that were told nothing new. If one of them is not healthy, Ray Serve is mending it already.

        Raises:
            ServingError: one does not start, in the words of its replicas, or its pool has no node any more.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + patience_s
        while True:
            try:
                view = await _view(cluster)
            except ServingError:  # Serve may be busy, or on its way to another node
                if loop.time() > deadline_s:
                    raise
                await asyncio.sleep(_POLL_S)
                continue
            apps = view.apps
            settled = {name for name in untouched if name in apps and apps[name].usable}
            waiting = [name for name in names - settled if name not in apps or apps[name].status != "RUNNING"]
            for name in waiting:
                if name in apps and apps[name].status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    raise ServingError(
                        f"the application does not start: {apps[name].message}",
                        code="ray.application_failed",
                        location=f"application {name}",
                    )
                if name in view.lost_applications:
                    raise ServingError(
                        "the application cannot start because the last node of its pool is gone",
                        code="ray.pool_lost",
                        location=f"application {name}",
                    )
            if not waiting:
                return
            if loop.time() > deadline_s:
                reasons = [f"{name}: {apps[name].message if name in apps else 'not there'}" for name in waiting]
                raise ServingError(
                    f"applications do not run after {patience_s:.0f} s: {'; '.join(reasons)}", code="ray.not_started"
                )
            await asyncio.sleep(_POLL_S)

    async def _restore(self, before: Mapping[str, AppSnapshot], schema: App, cluster: Cluster, guard: Guard) -> None:
        """Bring back what ran before a change, as far as it can be."""
        view = await _view(cluster)
        apps = [found.config for found in before.values()]
        configs = router_configs(apps)
        await guard()
        await self._calls.broadcast(config for config in configs if config.site in view.sites)
        self._learn(configs)
        await _deploy({**schema, "applications": apps}, cluster, guard)

    async def _running_again(self, before: Mapping[str, AppSnapshot], cluster: Cluster) -> None:
        """Wait until what was brought back runs, but not for ever."""
        with suppress(ServingError):
            lost = apps_without_nodes([found.config for found in before.values()], (await _view(cluster)).pools)
            await self._running(before.keys() - lost, cluster, _RESTORE_S)

    @staticmethod
    def _check_pools(desired: DesiredState, there: Iterable[str]) -> None:
        known = sorted(there)
        pools = dict.fromkeys(wanted.deployment.pool for wanted in desired.deployments)
        missing = [pool for pool in pools if pool not in known]
        if missing:
            raise ServingError(
                f"the cluster has no node of pool {', '.join(missing)}; "
                f"pools that have nodes: {', '.join(known) or 'none'}",
                code="ray.missing_pool",
                hint=f"Start a node with the resource {POOL_RESOURCE}POOL or the label {POOL_LABEL}=POOL.",
            )

    async def _switch(
        self,
        before: Mapping[str, AppSnapshot],
        configs: Mapping[str, RouterConfig],
        lost: frozenset[str],
        guard: Guard,
    ) -> None:
        """First all routers learn of deployments to come, then requests enter on the new routes.

        Until the requests under way are through, routers serve what was deployed before, too.
        """
        old = {config.site: config for config in router_configs([found.config for found in before.values()])}
        both = {
            site: without_deployments(with_deployments_of(config, old.get(site)), lost)
            for site, config in configs.items()
        }
        entering = [_with_routes(config, old[site]) for site, config in both.items() if site in old]
        for step in (entering, list(both.values())):
            await guard()
            calls = (self._calls.call(config.site, "switch", config) for config in step)
            failures = [e for e in await asyncio.gather(*calls, return_exceptions=True) if isinstance(e, BaseException)]
            if failures:  # none is still under way that could come after what is told next
                raise failures[0]
        await guard()
        for site, config in old.items():
            if site not in configs and router_name(site) not in lost:
                with suppress(ServingError):  # it may be what is left because it is gone
                    await self._calls.call(site, "switch", _with_routes(config, None))
        self._learn(configs.values())

    async def _drain(
        self, before: Mapping[str, AppSnapshot], final: Sequence[App], lost: frozenset[str], guard: Guard
    ) -> None:
        """Wait for the requests that may need what is no longer wanted; in the end they fail, as those that need what
        was lost do at once."""
        leaving = before.keys() - {app["name"] for app in final}
        if not leaving:
            return
        cluster = await self._connected()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + _DRAIN_S
        while loop.time() < deadline_s:
            with suppress(ServingError):  # Serve may be busy: what is under way is not known, and waited for
                if await self._through(leaving, lost, cluster):
                    return
            await asyncio.sleep(_POLL_S)
        await guard()
        with suppress(ServingError):  # then they fail with their replicas
            await self._calls.fail_requests((await _view(cluster)).sites, sorted(leaving), _TOO_LONG, cluster)

    async def _through(self, leaving: Collection[str], lost: frozenset[str], cluster: Cluster) -> bool:
        """Whether no request under way needs what is leaving, as all routers say that are not lost."""
        view = await _view(cluster)
        lost |= view.lost_applications
        if lost:
            await self._calls.fail_requests(view.sites, sorted(lost), _NO_NODE, cluster)
        seen = await self._calls.observe(view.sites)
        silent = {
            config.site for config in view.deployed_router_configs if router_name(config.site) not in lost
        } - seen.keys()
        return not silent and not any(name in leaving for found in seen.values() for name in found.under_way)

    async def _learn_routes(self) -> None:
        cluster = await self._connected()
        seen = await self._calls.observe((await _view(cluster)).sites)
        self._learn(found.config for found in seen.values() if found.config is not None)

    def _learn(self, configs: Iterable[RouterConfig]) -> None:
        self._sources = {}
        for config in configs:
            self._replays = Mode(config.mode) is Mode.REPLAY
            self._sources |= {route.query: config.site for route in config.routes}

    async def _learn_startups(self, applications: Mapping[str, AppSnapshot], cluster: Cluster) -> None:
        """Ask replicas that were not asked yet or had no time; a busy one is asked again later.

        From when Ray Serve asked for one until it could take work, by the clocks of the machines of both.
        """
        now_s = asyncio.get_running_loop().time()
        asked = [
            name
            for name in applications
            if name not in self._startups_s and now_s - self._asked_s.get(name, -_ASK_AGAIN_S) >= _ASK_AGAIN_S
        ]

        async def learn(name: str) -> None:
            self._asked_s[name] = now_s
            with suppress(Exception):  # it is busy, or gone
                handle = await call_in_thread(cluster.replicas, name)
                async with asyncio.timeout(1.0):
                    replica, ready_s = await handle.ready.remote()
                self._startups_s[name] = max(0.0, ready_s - applications[name].requested_at_s[replica])

        await asyncio.gather(*(learn(name) for name in asked))


async def _view(cluster: Cluster) -> ClusterSnapshot:
    """As it is now."""
    return ClusterSnapshot(*await asyncio.gather(call_in_thread(cluster.snapshot), call_in_thread(cluster.pools)))


async def _deploy(schema: App, cluster: Cluster, guard: Guard) -> None:
    """Have these applications run, unless nothing may be changed any more."""
    await guard()
    await call_in_thread(cluster.deploy, schema, timeout_s=CHANGE_S)


async def _unguarded() -> None:
    """Everything may be changed."""


def _with_routes(config: RouterConfig, old: RouterConfig | None) -> RouterConfig:
    """The same with the routes of another configuration; None: without any."""
    return replace(config, routes=() if old is None else old.routes)
