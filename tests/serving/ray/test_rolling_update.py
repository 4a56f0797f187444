"""Ray Serve configurations between two states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from circinus.serving.applications import build_applications
from circinus.serving.engine import DesiredState
from circinus.serving.ray.cluster import AppSnapshot
from circinus.serving.ray.rolling_update import (
    apps_without_nodes,
    reuse_unchanged,
    router_configs,
    router_pools,
    surge_config,
    with_deployments_of,
)
from circinus.serving.ray.serve_config import build_router_configs, serve_schema
from circinus.serving.ray.settings import RaySettings, placement_options, pool_of_placement
from circinus.testing.desired_states import StageSpec, chain, infrastructure

NEAR, MORE = StageSpec("start", "add"), StageSpec("start", "add", replicas=3)
FAR = StageSpec("start", "add", pool="far")


def _apps(
    desired: DesiredState, live_pools: tuple[str, ...] = ("near", "far"), pools: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    applications = build_applications(desired)
    configs = build_router_configs(desired, applications)
    schema = serve_schema(
        applications,
        configs,
        desired.infrastructure,
        RaySettings(),
        recordings=None,
        live_pools=live_pools,
        router_pools=pools or {},
    )
    apps: list[dict[str, Any]] = schema["applications"]
    return apps


def _running(apps: list[dict[str, Any]], status: str = "RUNNING") -> dict[str, AppSnapshot]:
    return {app["name"]: AppSnapshot(status, "", app, 1, 0) for app in apps}


def _replicas(apps: list[Any]) -> dict[str, int]:
    return {app["name"].rpartition("-")[0]: app["deployments"][0]["num_replicas"] for app in apps}


def test_where_only_a_route_changes_nothing_grows() -> None:
    both = chain("q", NEAR)
    before = _running(_apps(both))
    assert surge_config(before, _apps(both)) is None


def test_more_replicas_are_added_first_and_fewer_taken_last() -> None:
    few, many = _apps(chain("q", NEAR)), _apps(chain("q", MORE))
    larger = surge_config(_running(few), many)
    assert larger is not None
    assert _replicas(larger)["start-near"] == 3
    assert surge_config(_running(many), few) is None


def test_old_and_new_run_beside_each_other() -> None:
    old, new = _apps(chain("q", NEAR)), _apps(chain("q", FAR))
    larger = surge_config(_running(old), new)
    assert larger is not None
    assert {"start-near", "start-far"} <= set(_replicas(larger))
    # The router of the source keeps its configuration until it is switched.
    configs = {config.site: config for config in router_configs(larger)}
    assert [d.deployment.pool for d in configs["home"].deployments.values()] == ["near"]
    assert [d.deployment.pool for d in configs["center"].deployments.values()] == ["far"]
    home = next(config for config in router_configs(new) if config.site == "home")
    assert home.deployments == {}
    assert [d.deployment.pool for d in with_deployments_of(home, configs["home"]).deployments.values()] == ["near"]


def test_what_failed_to_start_before_is_no_hindrance() -> None:
    failed = _running(_apps(chain("q", FAR)), status="DEPLOY_FAILED")
    larger = surge_config(failed, _apps(chain("q", NEAR)))
    assert larger is not None
    assert "start-far" not in _replicas(larger)


def test_what_stays_is_told_as_it_was_but_for_its_size() -> None:
    """Ray Serve would replace replicas if their reserved memory differed by a byte."""
    before, desired = _apps(chain("q", NEAR)), _apps(chain("q", MORE))
    for app in desired:
        app["deployments"][0]["ray_actor_options"]["memory"] = 5.0
    reused = reuse_unchanged(_running(before), desired)
    for old, new in zip(before, reused, strict=True):
        (old_deployment,), (deployment,) = old["deployments"], new["deployments"]
        assert deployment["ray_actor_options"] == old_deployment["ray_actor_options"]
    assert _replicas(reused)["start-near"] == 3


def test_a_router_moves_to_a_pool_that_has_nodes() -> None:
    before, after = _apps(chain("q", NEAR)), _apps(chain("q", NEAR), live_pools=())
    (moved,) = [app for app in reuse_unchanged(_running(before), after) if app["name"] == "site-home"]
    assert "resources" not in moved["deployments"][0]["ray_actor_options"]
    assert surge_config(_running(before), after) is not None


def test_a_router_stays_where_it_is_while_the_query_of_its_deployments_is_paused() -> None:
    desired = chain("q", StageSpec("start", "add", pool="near2"))
    near, *others = infrastructure().pools
    pools = (near, near.model_copy(update={"name": "near2"}), *others)
    desired = replace(desired, infrastructure=desired.infrastructure.model_copy(update={"pools": pools}))
    paused = replace(desired, deployments=(), routes=tuple(route.paused() for route in desired.routes))
    running = _running(_apps(desired, ("near", "near2")))
    stays = _apps(paused, ("near", "near2"), router_pools([app.config for app in running.values()]))
    (router,) = [app for app in reuse_unchanged(running, stays) if app["name"] == "site-home"]
    assert pool_of_placement(router["deployments"][0]["ray_actor_options"]) == "near2"
    assert surge_config(running, reuse_unchanged(running, stays)) is None
    (moved,) = [app for app in _apps(paused, ("near",), {"home": "near2"}) if app["name"] == "site-home"]
    assert pool_of_placement(moved["deployments"][0]["ray_actor_options"]) == "near", "its pool has no node"


def test_what_runs_where_no_node_is_left_is_told_from_what_does() -> None:
    apps = _apps(chain("q", NEAR, StageSpec("next", "add", after=("start",), pool="far")))
    assert apps_without_nodes(apps, {"near", "far"}) == set()
    lost = apps_without_nodes(apps, {"near"})
    assert "site-center" in lost, "its router runs in the pool of its site"
    assert {name.rpartition("-")[0] for name in lost} == {"next-far", "site"}
    labelled = [
        {**app, "deployments": [{**item, "ray_actor_options": placement_options("far", labelled=True)}]}
        for app in apps
        for item in app["deployments"]
    ]
    assert apps_without_nodes(labelled, {"near"}) == {app["name"] for app in apps}
    anywhere = _apps(chain("q", NEAR), live_pools=())
    assert "site-home" not in apps_without_nodes(anywhere, ())
