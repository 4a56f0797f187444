"""Rolling update of Ray Serve applications, in two steps that never remove a needed one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from circinus.serving.ray.cluster import AppSnapshot
from circinus.serving.ray.settings import REPLICA, ROUTER, pool_of_placement
from circinus.serving.ray.site_router import RouterConfig, config_from_dict

App = Mapping[str, Any]
"""Configuration of one application."""


def reuse_unchanged(running: Mapping[str, AppSnapshot], desired: Sequence[App]) -> list[App]:
    """Return the desired applications, keeping deployed configurations except for what changes in place.

    Ray Serve replaces replicas if anything else differs, such as the memory reserved for one.
    """
    return [_merged(running[app["name"]].config, app) if app["name"] in running else app for app in desired]


def _merged(deployed: App, desired: App) -> App:
    (previous,), (deployment,) = deployed["deployments"], desired["deployments"]
    if deployment["name"] == REPLICA:
        return {**deployed, "deployments": [{**previous, "num_replicas": deployment["num_replicas"]}]}
    if _placement(previous) != _placement(deployment):
        return desired  # its pool lost its nodes, or got some
    return {**deployed, "deployments": [{**previous, "user_config": deployment["user_config"]}]}


def apps_without_nodes(apps: Iterable[App], live_pools: Collection[str]) -> frozenset[str]:
    """Return the applications that can neither run nor start because their pool has no nodes.

    Args:
        apps: the deployed applications.
        live_pools: pools with nodes.
    """
    names = set()
    for app in apps:
        pools = {pool_of_placement(deployment.get("ray_actor_options") or {}) for deployment in app["deployments"]}
        if pools - {None, *live_pools}:
            names.add(app["name"])
    return frozenset(names)


def _placement(deployment: App) -> Any:
    options = deployment.get("ray_actor_options") or {}
    return options.get("resources") or None, options.get("label_selector") or None


def surge_config(running: Mapping[str, AppSnapshot], final: Sequence[App]) -> list[App] | None:
    """Return the union of running and desired applications at the larger of both sizes; None: nothing grows.

    Routers keep their configuration, as they are switched separately. Applications that failed to start are omitted.
    """
    union: dict[str, App] = {name: entry.config for name, entry in running.items() if entry.status != "DEPLOY_FAILED"}
    grows = False
    for app in final:
        name, (deployment,) = app["name"], app["deployments"]
        current = union.get(name)
        if current is None:
            union[name], grows = app, True
        elif deployment["name"] == REPLICA:
            (previous,) = current["deployments"]
            if deployment["num_replicas"] > previous["num_replicas"]:
                union[name], grows = app, True
        elif _placement(deployment) != _placement(current["deployments"][0]):
            union[name], grows = app, True
    return list(union.values()) if grows else None


def unchanged_apps(running: Mapping[str, AppSnapshot], larger: Sequence[App] | None) -> frozenset[str]:
    """Return the running applications that `surge_config` leaves unchanged.

    Args:
        running: the running applications.
        larger: result of `surge_config`.
    """
    if larger is None:
        return frozenset(running)
    return frozenset(app["name"] for app in larger if app["name"] in running and running[app["name"]].config == app)


def without_graceful_shutdown(app: App) -> App:
    """Return an application that ends without waiting for its batches; the change is made in place."""
    return {**app, "deployments": [{**item, "graceful_shutdown_timeout_s": 0.5} for item in app["deployments"]]}


def router_configs(apps: Sequence[App]) -> list[RouterConfig]:
    """Return the configurations that the routers among some applications were deployed with."""
    return [config_from_dict(router["user_config"]) for router in _routers(apps)]


def router_pools(apps: Sequence[App]) -> dict[str, str]:
    """Return site -> pool of its router, where the router was deployed to one."""
    pools = {router["user_config"]["site"]: pool_of_placement(router["ray_actor_options"]) for router in _routers(apps)}
    return {site: pool for site, pool in pools.items() if pool is not None}


def _routers(apps: Sequence[App]) -> list[App]:
    return [deployment for app in apps for deployment in app["deployments"] if deployment["name"] == ROUTER]


def without_deployments(config: RouterConfig, applications: Collection[str]) -> RouterConfig:
    """Return a router configuration without some applications."""
    deployments = {name: target for name, target in config.deployments.items() if name not in applications}
    return replace(config, deployments=deployments)


def with_deployments_of(config: RouterConfig, previous: RouterConfig | None) -> RouterConfig:
    """Return a router configuration with the additional deployments of a previous one."""
    return config if previous is None else replace(config, deployments={**previous.deployments, **config.deployments})
