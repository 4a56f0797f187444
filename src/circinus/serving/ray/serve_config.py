"""Declarative Ray Serve configuration of a desired state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from circinus.operators.protocol import ONE
from circinus.serving.applications import Application
from circinus.serving.engine import DesiredState, Mode
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.ray.recording_key import RecordingKey
from circinus.serving.ray.settings import DEFAULT_HTTP, REPLICA, ROUTER, RaySettings, placement_options, router_name
from circinus.serving.ray.site_router import RouterConfig, config_to_dict
from circinus.serving.router.compiled_route import CompiledRoute
from circinus.serving.settings import SERVING
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Infrastructure, Network

_MAX_REQUESTS = 100_000
"""Maximum number of concurrent requests of a router, which only forwards them."""


def build_router_configs(
    desired: DesiredState,
    applications: Sequence[Application],
    deployed: Sequence[RouterConfig] = (),
    tokens: HttpTokens | None = None,
) -> Mapping[str, RouterConfig]:
    """Return site -> configuration of its router, for each site with deployments or sources.

    Args:
        desired: the state.
        applications: applications of all deployments.
        deployed: configurations to replace. Unchanged ones keep their numbers, so that Ray Serve leaves their routers
            alone; others get a larger number than all of these.
        tokens: tokens of requests over HTTP; None: those of the deployed configurations.
    """
    network = Network(desired.infrastructure)
    names = {app.target.deployment: app.name for app in applications}
    sites = dict.fromkeys(
        [network.site_of(app.target.deployment.pool) for app in applications]
        + [route.source for route in desired.routes]
    )
    state = state_fingerprint(desired)
    routes = []
    for route in desired.routes:
        for index, part in enumerate(route.parts):
            recordings = {
                stage.operator: str(RecordingKey(route.pipeline, stage.unlimited, stage.operator in route.sinks))
                for stage in part.stages
                if desired.mode is Mode.REPLAY
            }
            routes.append(CompiledRoute.compile(route, network, names, recordings, index))
    number = 1 + max((config.number for config in deployed), default=0)
    configs = {
        site: RouterConfig(
            site=site,
            mode=desired.mode.value,
            state=state,
            deployments={
                app.name: app.target for app in applications if network.site_of(app.target.deployment.pool) == site
            },
            routes=tuple(route for route in routes if route.source == site),
            peers=_receiving_sites(site, routes),
            number=number,
            tokens=deployed_tokens(deployed) if tokens is None else tokens.text,
        )
        for site in sites
    }
    return configs | {c.site: c for c in deployed if replace(c, number=number) == configs.get(c.site)}


def deployed_tokens(configs: Iterable[RouterConfig]) -> str:
    """Return the tokens of deployed configurations, which are the same at all sites; empty if they have none."""
    return next((config.tokens for config in configs if config.tokens), "")


def _receiving_sites(site: str, routes: Sequence[CompiledRoute]) -> tuple[str, ...]:
    """Return the other sites that receive any output of a site."""
    transfers = [transfer for route in routes for outputs in route.transfers.values() for transfer in outputs]
    return tuple(sorted({t.site for t in transfers if t.path and t.path[0].source == site}))


def serve_schema(
    applications: Sequence[Application],
    configs: Mapping[str, RouterConfig],
    infrastructure: Infrastructure,
    settings: RaySettings,
    *,
    recordings: Path | None,
    labelled: Collection[str] = (),
    live_pools: Collection[str] | None = None,
    router_pools: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the document for Ray Serve's `ServeDeploySchema`.

    Args:
        applications: applications of all deployments.
        configs: site -> configuration of its router.
        infrastructure: pools of the sites.
        settings: settings of the cluster.
        recordings: profile store that replicas answer from; None if they compute.
        labelled: pools whose nodes declare them by a label instead of a resource.
        live_pools: pools with nodes; None: all.
        router_pools: site -> pool of its running router.
    """
    operators = [_operator(app, recordings, labelled) for app in applications]
    routers = [
        _router(config, router_pool(config, infrastructure, live_pools, router_pools.get(config.site)), labelled)
        for config in configs.values()
    ]
    host, port = settings.http or DEFAULT_HTTP
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [*operators, *routers],
    }


def router_pool(
    config: RouterConfig,
    infrastructure: Infrastructure,
    live_pools: Collection[str] | None = None,
    current: str | None = None,
) -> str | None:
    """Return the pool for a site's router; None: any node, as the site has no machine.

    Preferably the router stays in its current pool, as its requests would be lost, or is in a used one.
    """
    used = [target.deployment.pool for target in config.deployments.values()]
    local = [pool.name for pool in infrastructure.pools if pool.site == config.site]
    kept = [pool for pool in local if pool == current]
    return next((pool for pool in (*kept, *used, *local) if live_pools is None or pool in live_pools), None)


ROUTING = {
    "request_router_class": "circinus.serving.ray.idle_first_router:IdleFirstRequestRouter",
    "initial_backoff_s": 0.001,  # a busy replica is soon free again
    "max_backoff_s": 0.02,
}
"""Routing of requests to replicas: `RequestRouterConfig`."""
_COMMON = {
    "health_check_period_s": SERVING.health_check_period_s,
    "health_check_timeout_s": SERVING.replica_health_timeout_s,
    "graceful_shutdown_timeout_s": SERVING.drain_timeout_s,
    "graceful_shutdown_wait_loop_s": 0.1,
}


def _operator(application: Application, recordings: Path | None, labelled: Collection[str]) -> dict[str, Any]:
    target, replays = application.target, application.spec.replays
    spec = {**vars(application.spec), "module_paths": [str(path) for path in application.spec.module_paths]}
    emission = spec.pop("emission")
    if emission != ONE:
        spec["emission"] = {"max_elements": emission.max_elements, "branches": list(emission.branches)}
    options = {
        "num_cpus": 0.0 if replays else target.cpus,
        "num_gpus": 0.0 if replays else target.gpus,
        "memory": 0.0 if replays else target.memory_bytes,
        **placement_options(target.deployment.pool, labelled=target.deployment.pool in labelled),
    }
    deployment = {
        "name": REPLICA,
        "num_replicas": target.replicas,
        "max_ongoing_requests": 1,
        "ray_actor_options": options,
        "request_router_config": ROUTING,
    }
    if target.is_spread and not replays:  # a replay may run on one machine
        deployment["max_replicas_per_node"] = 1
    return {
        "name": application.name,
        "route_prefix": None,
        "import_path": "circinus.serving.ray.serve_replica:build_replica_application",
        "args": {"spec": spec, "store": str(recordings or "")},
        "deployments": [{**deployment, **_COMMON}],
    }


def _router(config: RouterConfig, pool: str | None, labelled: Collection[str]) -> dict[str, Any]:
    pinned = {} if pool is None else placement_options(pool, labelled=pool in labelled)
    deployment = {
        "name": ROUTER,
        "num_replicas": 1,
        "max_ongoing_requests": _MAX_REQUESTS,
        "user_config": config_to_dict(config),
        "ray_actor_options": {"num_cpus": 0.0, **pinned},
    }
    return {
        "name": router_name(config.site),
        "route_prefix": f"/{config.site}",
        "import_path": "circinus.serving.ray.router:build_router_application",
        "args": {"site": config.site},
        "deployments": [{**deployment, **_COMMON, "health_check_timeout_s": SERVING.router_health_timeout_s}],
    }
