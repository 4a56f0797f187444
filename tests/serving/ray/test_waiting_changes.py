"""Replicas that a change of a cluster waits for."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from fake_cluster import PaperCluster

from circinus.errors import ServingError
from circinus.serving.engine import DesiredState
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.engine import RayEngine
from circinus.serving.state_serialization import state_fingerprint
from circinus.testing.desired_states import StageSpec, chain, route, state
from raised import raises_code
from virtual_time import run as in_virtual_time

pytest.importorskip("ray")

STAYS, MOVES, MOVED = StageSpec("stays", "add"), StageSpec("moves", "add"), StageSpec("moves", "add", pool="far")
BEFORE = state([route("a", STAYS), route("b", MOVES)], [STAYS, MOVES])
AFTER = state([route("a", STAYS), route("b", MOVED)], [STAYS, MOVED])
GROWN = chain("a", StageSpec("stays", "add", replicas=2))


def _engine(cluster: PaperCluster) -> RayEngine:
    engine = RayEngine()
    engine._cluster = cast(Cluster, cluster)
    return engine


def _changed(after: DesiredState, status: str) -> str:
    """Return the fingerprint in force after a change during which the unchanged application has this status."""

    async def run() -> str:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        (name,) = (name for name in cluster.apps if "stays" in name)
        cluster.ailing[name] = status
        await _engine(cluster).apply(after)
        return (await _engine(cluster).status()).state

    return in_virtual_time(run())


def test_what_ray_serve_mends_by_itself_does_not_stop_a_change_of_something_else() -> None:
    assert _changed(AFTER, "UNHEALTHY") == state_fingerprint(AFTER)


def test_what_grows_and_does_not_get_healthy_stops_it() -> None:
    with raises_code(ServingError, "ray.application_failed") as caught:
        _changed(GROWN, "UNHEALTHY")
    assert "stays" in caught.value.location


def test_whoever_goes_on_with_a_change_that_somebody_began_waits_for_its_replicas() -> None:
    async def run() -> None:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        cluster.ready, cluster.status = 0, "DEPLOYING"
        killed = asyncio.create_task(_engine(cluster).apply(AFTER))
        await asyncio.sleep(1.0)
        partial = dict(cluster.apps)
        killed.cancel()
        await asyncio.wait({killed})
        cluster.apps = partial  # as if the killed change had not been rolled back
        cluster.steps.clear()
        retry = asyncio.create_task(_engine(cluster).apply(AFTER))
        await asyncio.sleep(5.0)
        assert "switch" not in cluster.steps
        cluster.ready, cluster.status = 1, "RUNNING"
        await retry
        assert "switch" in cluster.steps

    in_virtual_time(run())


def test_replicas_that_still_end_are_not_waited_for() -> None:
    async def run() -> None:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        cluster.ready, cluster.status = 2, "DEPLOYING"
        cluster.steps.clear()
        await asyncio.wait_for(_engine(cluster).apply(state([route("a", STAYS)], [STAYS, MOVES])), 5.0)
        assert "switch" in cluster.steps

    in_virtual_time(run())
