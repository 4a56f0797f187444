"""From a desired state to what Ray Serve is told, declaratively."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from circinus.serving.engine import DesiredDeployment, DesiredState, Mode, Route
from circinus.serving.ray.recording_key import RecordingKey
from circinus.serving.ray.router_protocol import RouterConfig, RouterDeployment, RouterRoute, config_to_dict
from circinus.serving.ray.settings import (
    DEFAULT_HTTP,
    HEALTH_CHECK_PERIOD_S,
    HEALTH_CHECK_TIMEOUT_S,
    REPLICA,
    ROUTER,
    ROUTER_TIMEOUT_S,
    RaySettings,
    placement_options,
    router_name,
)
from circinus.serving.route_transfers import INPUT, route_transfers
from circinus.serving.state_serialization import state_fingerprint
from circinus.specification import Infrastructure, Network

_DEPLOYMENT = TypeAdapter(DesiredDeployment)
_DRAIN_S = 60.0
"""How long a replica that is no longer wanted may take for the batch that it has."""
_MOST_AT_ONCE = 100_000
"""Requests at a router: it only passes them on."""


@dataclass(frozen=True)
class ServeApplication:
    """One deployment as Ray Serve runs it."""

    name: str
    wanted: DesiredDeployment
    args: Mapping[str, Any]


def build_applications(desired: DesiredState, settings: RaySettings) -> tuple[ServeApplication, ...]:
    """One for each deployment of `desired`, in its order. Replicas that can take each other's place have one name."""
    found = []
    for wanted in desired.deployments:
        deployment, replays = wanted.deployment, desired.mode is Mode.REPLAY
        # Where it does not slow replicas down, another speed is no reason to replace them.
        speed = wanted.relative_speed if replays or settings.emulate_speeds else 1.0
        args = {
            "spec": {
                "name": deployment.name,
                "replays": replays,
                "uses": wanted.uses,
                "operator_version": wanted.operator_version,
                "knobs": deployment.knobs.as_dict(),
                "cpus": wanted.cpus,
                "relative_speed": speed,
                "module_paths": [str(path) for path in desired.module_paths],
            },
            "store": str(desired.recordings) if replays else "",
        }
        alike = replace(wanted, replicas=0, memory_bytes=0.0, batch_wait_s=0.0, relative_speed=speed)
        told = json.dumps([args, _DEPLOYMENT.dump_python(alike, mode="json")], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:10]
        words = re.sub(r"[^A-Za-z0-9]+", "-", f"{deployment.operator}-{deployment.pool}").strip("-")
        found.append(ServeApplication(f"{words}-{digest}", wanted, args))
    return tuple(found)


def build_router_configs(desired: DesiredState, applications: Sequence[ServeApplication]) -> Mapping[str, RouterConfig]:
    """Site -> what its router is told, for every site that deploys anything or is a source."""
    network = Network(desired.infrastructure)
    names = {found.wanted.deployment: found.name for found in applications}
    sites = dict.fromkeys(
        [network.site_of(found.wanted.deployment.pool) for found in applications]
        + [route.source for route in desired.routes]
    )
    state = state_fingerprint(desired)
    routes = []
    for route in desired.routes:
        recordings = {
            stage.operator: str(RecordingKey(route.pipeline, stage, stage.operator in route.sinks))
            for stage in route.stages
            if desired.mode is Mode.REPLAY
        }
        routes.append(RouterRoute.of(route, network, names, recordings))
    return {
        site: RouterConfig(
            site=site,
            mode=desired.mode.value,
            state=state,
            deployments=tuple(
                RouterDeployment(
                    found.name, found.wanted.deployment, found.wanted.replicas, _batch_wait_s(found.wanted)
                )
                for found in applications
                if network.site_of(found.wanted.deployment.pool) == site
            ),
            routes=tuple(route for route in routes if route.source == site),
            peers=_sends_to(site, desired.routes, network),
        )
        for site in sites
    }


def _sends_to(site: str, routes: Sequence[Route], network: Network) -> tuple[str, ...]:
    """The other sites that anything goes to which is produced at a site."""
    found = set()
    for route in routes:
        at = {stage.operator: network.site_of(stage.deployment.pool) for stage in route.stages} | {INPUT: route.source}
        for producer, deliveries in route_transfers(route, network).items():
            if at[producer] == site:
                found |= {delivery.site for delivery in deliveries}
    return tuple(sorted(found - {site}))


def _batch_wait_s(wanted: DesiredDeployment) -> float:
    return wanted.batch_wait_s if wanted.deployment.allocation.batch_size > 1 else 0.0


def serve_schema(
    applications: Sequence[ServeApplication],
    configs: Mapping[str, RouterConfig],
    infrastructure: Infrastructure,
    settings: RaySettings,
    *,
    replays: bool,
    labelled: Collection[str] = (),
    live_pools: Collection[str] | None = None,
) -> dict[str, Any]:
    """What Ray Serve shall run: a document as of its `ServeDeploySchema`.

    Args:
        applications: those of all deployments.
        configs: site -> what its router is told.
        infrastructure: with the pools of the sites.
        settings: of the cluster.
        replays: whether replicas answer from recordings, and need no CPUs.
        labelled: pools whose nodes say by a label of which pool they are, and not by a resource.
        live_pools: pools that have nodes; None: all.
    """
    operators = [_operator(found, replays=replays, labelled=labelled) for found in applications]
    routers = [
        _router(config, router_pool(config, infrastructure, live_pools), labelled) for config in configs.values()
    ]
    host, port = settings.http or DEFAULT_HTTP
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": host, "port": port},
        "applications": [*operators, *routers],
    }


def router_pool(
    config: RouterConfig, infrastructure: Infrastructure, live_pools: Collection[str] | None = None
) -> str | None:
    """In which pool the router of a site runs: one that the site's deployments use, or else any that has nodes; None:
    wherever there is room, as the site has no machine."""
    used = [wanted.deployment.pool for wanted in config.deployments]
    others = [pool.name for pool in infrastructure.pools if pool.site == config.site]
    return next((pool for pool in (*used, *others) if live_pools is None or pool in live_pools), None)


ROUTING = {
    "request_router_class": "circinus.serving.ray.idle_first_router:IdleFirstRequestRouter",
    "initial_backoff_s": 0.001,  # a replica that was taken is soon free again
    "max_backoff_s": 0.02,
}
"""How requests find a replica: `RequestRouterConfig`."""
_ALL = {
    "health_check_period_s": HEALTH_CHECK_PERIOD_S,
    "health_check_timeout_s": HEALTH_CHECK_TIMEOUT_S,
    "graceful_shutdown_timeout_s": _DRAIN_S,
    "graceful_shutdown_wait_loop_s": 0.1,
}


def _operator(application: ServeApplication, *, replays: bool, labelled: Collection[str]) -> dict[str, Any]:
    wanted = application.wanted
    options = {
        "num_cpus": 0.0 if replays else wanted.cpus,
        "num_gpus": 0.0 if replays else wanted.gpus,
        "memory": 0.0 if replays else wanted.memory_bytes,
        **placement_options(wanted.deployment.pool, labelled=wanted.deployment.pool in labelled),
    }
    deployment = {
        "name": REPLICA,
        "num_replicas": wanted.replicas,
        "max_ongoing_requests": 1,
        "ray_actor_options": options,
        "request_router_config": ROUTING,
    }
    return {
        "name": application.name,
        "route_prefix": None,
        "import_path": "circinus.serving.ray.serve_replica:build_replica_application",
        "args": dict(application.args),
        "deployments": [{**deployment, **_ALL}],
    }


def _router(config: RouterConfig, pool: str | None, labelled: Collection[str]) -> dict[str, Any]:
    pinned = {} if pool is None else placement_options(pool, labelled=pool in labelled)
    deployment = {
        "name": ROUTER,
        "num_replicas": 1,
        "max_ongoing_requests": _MOST_AT_ONCE,
        "user_config": config_to_dict(config),
        "ray_actor_options": {"num_cpus": 0.0, **pinned},
    }
    return {
        "name": router_name(config.site),
        "route_prefix": f"/{config.site}",
        "import_path": "circinus.serving.ray.router:build_router_application",
        "args": {"site": config.site},
        "deployments": [{**deployment, **_ALL, "health_check_timeout_s": ROUTER_TIMEOUT_S}],
    }
