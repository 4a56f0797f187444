"""Status of a cluster while routers and their nodes are lost, without Ray, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

from circinus.errors import ServingError
from circinus.serving.applications import build_applications
from circinus.serving.ray.cluster import AppSnapshot, Cluster, PoolNodes
from circinus.serving.ray.cluster_observer import ClusterSnapshot, observe_cluster
from circinus.serving.ray.engine import RayEngine
from circinus.serving.ray.serve_config import build_router_configs, serve_schema
from circinus.serving.ray.settings import RaySettings, router_name
from circinus.serving.ray.site_router import RouterStatus
from circinus.testing.desired_states import StageSpec, chain, infrastructure
from raised import raises_code
from virtual_time import run as in_virtual_time

NODE = PoolNodes(1, labelled=False)
BOTH = {"near": NODE, "far": NODE}


def _view() -> ClusterSnapshot:
    desired = chain("q", StageSpec("start", "add"), StageSpec("next", "add", after=("start",), pool="far"))
    applications = build_applications(desired)
    configs = build_router_configs(desired, applications)
    schema = serve_schema(applications, configs, infrastructure(), RaySettings(), recordings=None, live_pools=BOTH)
    return ClusterSnapshot({app["name"]: AppSnapshot("RUNNING", "", app, 1, 0) for app in schema["applications"]}, BOTH)


def _without_router(view: ClusterSnapshot, site: str) -> ClusterSnapshot:
    apps = dict(view.apps)
    apps[router_name(site)] = replace(apps[router_name(site)], reachable=False)
    return replace(view, apps=apps)


@dataclass
class Scene:
    """A cluster as a function of time, and routers with given response times."""

    view: Callable[[float], ClusterSnapshot]
    response_s: dict[str, float]
    fails: Callable[[str, float], bool] = lambda site, now_s: False
    calls: list[str] = field(default_factory=list)

    async def look(self) -> ClusterSnapshot:
        return self.view(asyncio.get_running_loop().time())

    async def observe(self, site: str) -> RouterStatus | None:
        self.calls.append(site)
        if self.fails(site, asyncio.get_running_loop().time()):
            return None
        await asyncio.sleep(self.response_s[site])
        return RouterStatus(None, {}, {}, ())

    def glance(self, timeout_s: float = 2.0) -> tuple[set[str], set[str], float]:
        """Return the pools and sites in the status, and the seconds it took."""

        async def run() -> tuple[set[str], set[str], float]:
            loop = asyncio.get_running_loop()
            start_s = loop.time()
            snapshot, seen = await observe_cluster(self.look, self.observe, timeout_s)
            return set(snapshot.pools), set(seen), loop.time() - start_s

        return in_virtual_time(run())


def test_where_all_answer_one_look_is_enough() -> None:
    scene = Scene(lambda now_s: _view(), {"home": 0.01, "center": 0.02})
    pools, sites, took_s = scene.glance()
    assert (pools, sites) == ({"near", "far"}, {"home", "center"})
    assert took_s < 0.03
    assert sorted(scene.calls) == ["center", "home"]


def test_a_lost_node_is_seen_soon_after_ray_sees_it_though_its_router_does_not_answer() -> None:
    intact = _view()
    scene = Scene(
        lambda now_s: intact if now_s < 1.1 else replace(intact, pools={"near": NODE}), {"home": 0.01, "center": 1e6}
    )
    pools, sites, took_s = scene.glance()
    assert (pools, sites) == ({"near"}, {"home"})
    assert 1.1 <= took_s <= 1.1 + 0.25 + 0.01


def test_routers_that_cannot_answer_are_not_asked() -> None:
    intact = _view()
    for view in (replace(intact, pools={"near": NODE}), _without_router(intact, "center")):
        scene = Scene(lambda now_s, view=view: view, {"home": 0.01, "center": 1e6})  # type: ignore[misc]
        assert scene.glance()[1:] == ({"home"}, 0.01)
        assert scene.calls == ["home"]


def test_one_that_fails_for_a_moment_is_asked_again_and_one_that_is_slow_is_waited_for() -> None:
    scene = Scene(
        lambda now_s: _view(), {"home": 0.9, "center": 0.01}, lambda site, now_s: site == "center" and now_s < 0.3
    )
    assert scene.glance()[1] == {"home", "center"}
    assert scene.calls.count("home") == 1


def test_one_that_never_answers_costs_no_more_than_the_patience() -> None:
    scene = Scene(lambda now_s: _view(), {"home": 0.01, "center": 1e6})
    pools, sites, took_s = scene.glance()
    assert (pools, sites) == ({"near", "far"}, {"home"})
    assert 2.0 <= took_s <= 2.25


def test_what_runs_where_no_node_is_left_is_lost() -> None:
    view = replace(_view(), pools={"near": NODE})
    assert {name.rpartition("-")[0] for name in view.lost_applications} == {"next-far", "site"}
    assert view.sites == ["home"]


def test_what_cannot_start_for_want_of_nodes_is_not_waited_for() -> None:
    view = _view()

    class Losing:
        """A cluster that loses the pool far while its replicas start."""

        def __init__(self) -> None:
            self.looks = 0

        def snapshot(self) -> dict[str, AppSnapshot]:
            self.looks += 1
            return {name: replace(app, status="DEPLOYING") for name, app in view.apps.items()}

        def pools(self) -> dict[str, PoolNodes]:
            return BOTH if self.looks < 3 else {"near": NODE}

    async def run() -> None:
        with raises_code(ServingError, "ray.pool_lost"):
            await RayEngine()._wait_until_running(set(view.apps), cast(Cluster, Losing()), 600.0)

    in_virtual_time(run())
