"""From what Ray Serve runs to what it shall run, in two steps between which nothing that is needed is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from circinus.serving.ray.cluster import AppSnapshot
from circinus.serving.ray.router_protocol import RouterConfig, config_from_dict
from circinus.serving.ray.settings import REPLICA, ROUTER, pool_of_placement

App = Mapping[str, Any]
"""Configuration of one application."""


def reuse_unchanged(before: Mapping[str, AppSnapshot], wanted: Sequence[App]) -> list[App]:
    """The wanted applications, where they run already as they were deployed but for what changes in place.

    Ray Serve starts replicas anew where anything else differs, such as the memory that is set aside for one.
    """
    return [_kept(before[app["name"]].config, app) if app["name"] in before else app for app in wanted]


def _kept(old: App, new: App) -> App:
    (old_deployment,), (deployment,) = old["deployments"], new["deployments"]
    if deployment["name"] == REPLICA:
        return {**old, "deployments": [{**old_deployment, "num_replicas": deployment["num_replicas"]}]}
    if _pinned(old_deployment) != _pinned(deployment):
        return new  # the pool that it runs in has no node any more, or none was there before
    return {**old, "deployments": [{**old_deployment, "user_config": deployment["user_config"]}]}


def apps_without_nodes(apps: Iterable[App], there: Collection[str]) -> frozenset[str]:
    """Applications that can do nothing any more, nor start: the pool that they run in has no node.

    Args:
        apps: what was deployed.
        there: pools that have nodes.
    """
    found = set()
    for app in apps:
        pools = {pool_of_placement(deployment.get("ray_actor_options") or {}) for deployment in app["deployments"]}
        if pools - {None, *there}:
            found.add(app["name"])
    return frozenset(found)


def _pinned(deployment: App) -> Any:
    options = deployment.get("ray_actor_options") or {}
    return options.get("resources") or None, options.get("label_selector") or None


def surge_config(before: Mapping[str, AppSnapshot], final: Sequence[App]) -> list[App] | None:
    """What runs and what shall run together, each as large as the larger of both; None: nothing grows.

    Routers stay as they are: they are told themselves when the time has come. What failed to start before is left out.
    """
    together: dict[str, App] = {name: found.config for name, found in before.items() if found.status != "DEPLOY_FAILED"}
    grows = False
    for app in final:
        name, (deployment,) = app["name"], app["deployments"]
        known = together.get(name)
        if known is None:
            together[name], grows = app, True
        elif deployment["name"] == REPLICA:
            (old,) = known["deployments"]
            if deployment["num_replicas"] > old["num_replicas"]:
                together[name], grows = app, True
        elif _pinned(deployment) != _pinned(known["deployments"][0]):
            together[name], grows = app, True
    return list(together.values()) if grows else None


def unchanged_apps(before: Mapping[str, AppSnapshot], larger: Sequence[App] | None) -> frozenset[str]:
    """Applications that `grown` leaves as they are.

    Args:
        before: what ran.
        larger: what `grown` gave.
    """
    if larger is None:
        return frozenset(before)
    return frozenset(app["name"] for app in larger if app["name"] in before and before[app["name"]].config == app)


def without_graceful_shutdown(app: App) -> App:
    """The same, not waiting for batches under way when it is taken away; a change in place."""
    return {**app, "deployments": [{**one, "graceful_shutdown_timeout_s": 0.5} for one in app["deployments"]]}


def router_configs(apps: Sequence[App]) -> list[RouterConfig]:
    """What the routers among some applications were told when they were deployed."""
    deployments = [deployment for app in apps for deployment in app["deployments"]]
    return [config_from_dict(found["user_config"]) for found in deployments if found["name"] == ROUTER]


def without_deployments(config: RouterConfig, applications: Collection[str]) -> RouterConfig:
    """The same without some deployments."""
    kept = tuple(wanted for wanted in config.deployments if wanted.application not in applications)
    return replace(config, deployments=kept)


def with_deployments_of(config: RouterConfig, old: RouterConfig | None) -> RouterConfig:
    """The same with the deployments that an earlier configuration has besides."""
    if old is None:
        return config
    listed = {wanted.application for wanted in config.deployments}
    leaving = tuple(wanted for wanted in old.deployments if wanted.application not in listed)
    return replace(config, deployments=(*config.deployments, *leaving))
