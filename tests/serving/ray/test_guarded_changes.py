"""Changes of a cluster by a controller that may lose its lease midway."""

from __future__ import annotations

import asyncio
import itertools
from typing import cast

import pytest
from fake_cluster import PaperCluster

from circinus.errors import ServingError
from circinus.serving import FencedEngine
from circinus.serving.engine import DesiredState, Guard
from circinus.serving.lease import LeaseLostError
from circinus.serving.ray.cluster import Cluster
from circinus.serving.ray.engine import RayEngine
from circinus.serving.state_serialization import state_fingerprint
from circinus.testing.desired_states import StageSpec, chain, state
from raised import raises_code
from virtual_time import run as in_virtual_time

pytest.importorskip("ray")

BEFORE = chain("q", StageSpec("start", "add"))
AFTER = chain("q", StageSpec("start", "add", pool="far"))
NOTHING = state([], [])


def _engine(cluster: PaperCluster) -> RayEngine:
    engine = RayEngine()
    engine._cluster = cast(Cluster, cluster)
    return engine


def _guard(cluster: PaperCluster, last: int = 1_000) -> Guard:
    """Return the guard of a lease that is held `last` times."""
    left = iter(range(last))

    async def guard() -> None:
        cluster.steps.append("guard")
        if next(left, None) is None:
            raise LeaseLostError("the lease was lost to another controller", code="lease.lost")

    return guard


def _steps(after: DesiredState) -> list[str]:
    """Return the steps of a whole change."""

    async def run() -> list[str]:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        cluster.steps.clear()
        engine: object = _engine(cluster)
        assert isinstance(engine, FencedEngine)
        await engine.apply_fenced(after, _guard(cluster))
        return cluster.steps

    return in_virtual_time(run())


@pytest.mark.parametrize("after", [AFTER, NOTHING])
def test_the_guard_is_asked_right_before_every_deployment_and_every_switch(after: DesiredState) -> None:
    steps = _steps(after)
    assert {"deploy", "switch"} <= set(steps)
    assert steps[0] == "guard"
    assert all(before == "guard" for before, step in itertools.pairwise(steps) if step == "deploy")
    switched = [before for before, step in itertools.pairwise(steps) if step == "switch"]
    assert set(switched) <= {"guard", "switch"}, "routers are switched together, and not after anything else"


def test_whoever_loses_the_lease_during_a_change_goes_no_step_further_nor_back() -> None:
    async def run(last: int) -> None:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        cluster.steps.clear()
        with raises_code(LeaseLostError, "lease.lost"):
            await _engine(cluster).apply_fenced(AFTER, _guard(cluster, last))
        steps = cluster.steps
        first_refusal = [number for number, step in enumerate(steps) if step == "guard"][last]
        assert set(steps[first_refusal:]) == {"guard"}

    guards = _steps(AFTER).count("guard")
    assert guards
    for last in range(guards):
        in_virtual_time(run(last))


def test_a_change_that_is_given_up_is_undone_but_not_after_the_lease_was_lost() -> None:
    async def run(last: int) -> tuple[list[str], bool]:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        before = dict(cluster.apps)
        cluster.steps.clear()
        cluster.status = "DEPLOYING"
        changing = asyncio.create_task(_engine(cluster).apply_fenced(AFTER, _guard(cluster, last)))
        while "deploy" not in cluster.steps:
            await asyncio.sleep(0.01)
        assert len(cluster.apps) > len(before)
        cluster.steps.clear()
        cluster.status = "RUNNING"
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        return cluster.steps, cluster.apps == before

    steps, undone = in_virtual_time(run(1_000))
    assert undone
    assert steps == ["guard", "switch", "guard", "deploy"]
    steps, undone = in_virtual_time(run(1))
    assert not undone
    assert steps == ["guard"]


def test_a_change_that_is_given_up_while_requests_need_what_goes_leaves_that_to_the_next_one() -> None:
    async def run() -> None:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        (leaving,) = (name for name in cluster.apps if name.startswith("start"))
        cluster.under_way[leaving] = 1
        changing = asyncio.create_task(_engine(cluster).apply(AFTER))
        while "switch" not in cluster.steps[2:]:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.0)
        cluster.steps.clear()
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        assert cluster.steps == []
        assert leaving in cluster.apps
        assert (await _engine(cluster).status()).state == "", "neither is all of it in force"
        cluster.under_way.clear()
        await _engine(cluster).apply(AFTER)
        assert leaving not in cluster.apps
        assert (await _engine(cluster).status()).state == state_fingerprint(AFTER)

    in_virtual_time(run())


def test_a_change_that_fails_is_not_undone_after_the_lease_was_lost() -> None:
    async def run() -> None:
        cluster = PaperCluster()
        await _engine(cluster).apply(BEFORE)
        cluster.steps.clear()
        cluster.status = "DEPLOY_FAILED"
        with raises_code(ServingError, "ray.application_failed"):
            await _engine(cluster).apply_fenced(AFTER, _guard(cluster, 1))
        assert cluster.steps == ["guard", "deploy", "guard"]

    in_virtual_time(run())


def test_a_change_that_is_given_up_does_not_wait_for_what_it_brings_back() -> None:
    """Restoring a pool that lost a node would take long, while a newer plan waits."""

    async def run() -> tuple[float, list[str]]:
        cluster, loop = PaperCluster(), asyncio.get_running_loop()
        await _engine(cluster).apply(BEFORE)
        cluster.steps.clear()
        cluster.status = "DEPLOYING"
        changing = asyncio.create_task(_engine(cluster).apply(AFTER))
        await asyncio.sleep(1.0)
        begin_s = loop.time()
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        return loop.time() - begin_s, cluster.steps

    took_s, steps = in_virtual_time(run())
    assert took_s < 0.1
    assert steps == ["deploy", "switch", "deploy"]
