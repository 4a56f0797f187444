"""Requests of a process while another one changes the sources of queries, without Ray, in virtual time."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest
from fake_cluster import PaperCluster

from circinus.errors import ServingError
from circinus.serving import DesiredState, Request
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.engine import RayEngine
from circinus.serving.ray.settings import router_name
from circinus.testing.desired_states import StageSpec, route, state
from raised import raises_code
from virtual_time import run as in_virtual_time

pytest.importorskip("ray")

HOME, CENTER = router_name("home"), router_name("center")
NEAR, FAR = StageSpec("near", "add"), StageSpec("far", "add", pool="far")


def _engine(cluster: PaperCluster) -> RayEngine:
    engine = RayEngine()
    engine._cluster = cast(Cluster, cluster)
    return engine


def _entering(**sources: str) -> DesiredState:
    """Return a state with queries that enter at these sites and are served there."""
    stages = {query: NEAR if site == "home" else FAR for query, site in sources.items()}
    routes = [replace(route(query, stages[query]), source=site) for query, site in sources.items()]
    return state(routes, list(dict.fromkeys(stages.values())))


def _submit(engine: RayEngine) -> Coroutine[Any, Any, Any]:
    return engine.submit(Request("q", "item", 1, 10.0))


@pytest.mark.parametrize(
    ("others", "code"), [({}, "ray.application_not_running"), ({"other": "home"}, "route.missing")]
)
def test_a_query_that_another_process_moved_is_found_again(others: dict[str, str], code: str) -> None:
    async def run() -> None:
        cluster = PaperCluster()
        changing, asking = _engine(cluster), _engine(cluster)
        await changing.apply(_entering(q="home", **others))
        assert (await _submit(asking)).output == HOME
        await changing.apply(_entering(q="center", **others))
        asking._client.retain(())  # Ray Serve refuses calls of deleted applications
        with raises_code(ServingError, code):
            await _submit(asking)
        assert (await _submit(asking)).output == CENTER

    in_virtual_time(run())


def test_a_query_stays_with_a_router_that_does_not_respond_for_a_while() -> None:
    async def run() -> None:
        cluster = PaperCluster()
        engine = _engine(cluster)
        await engine.apply(_entering(q="home"))
        cluster.silent.add(HOME)
        for _ in range(3):
            with raises_code(ServingError, "router.unreachable"):
                await _submit(engine)
        cluster.silent.clear()
        assert (await _submit(engine)).output == HOME

    in_virtual_time(run())
