"""Status of a cluster whose routers sometimes do not respond, without Ray, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from fake_cluster import PaperCluster

from circinus.control.drift.status_deltas import NewBatchReader
from circinus.control.ladders.rung_loads import RateBounds, RateEstimator
from circinus.serving import DeploymentStatus
from circinus.serving.ray.cluster import AppSnapshot, Cluster
from circinus.serving.ray.engine import RayEngine
from circinus.serving.ray.settings import router_name
from circinus.testing.desired_states import StageSpec, chain
from virtual_time import run as in_virtual_time

pytest.importorskip("ray")

ROUTER = router_name("home")


def _statuses(cluster: PaperCluster, *events: Callable[[], object]) -> list[DeploymentStatus]:
    """Return the status of a deployment after each of these events."""

    async def run() -> list[DeploymentStatus]:
        engine, statuses = RayEngine(), []
        engine._cluster = cast(Cluster, cluster)
        await engine.apply(chain("q", StageSpec("start", "add")))
        for event in events:
            event()
            (status,) = (await engine.status()).deployments
            statuses.append(status)
        return statuses

    return in_virtual_time(run())


def _responds(cluster: PaperCluster, batches: int) -> Callable[[], None]:
    def event() -> None:
        cluster.silent.clear()
        cluster.batches = batches

    return event


def test_a_router_that_misses_a_look_lets_no_batch_be_read_twice() -> None:
    cluster = PaperCluster()
    misses = lambda: cluster.silent.add(ROUTER)  # noqa: E731
    statuses = _statuses(
        cluster, _responds(cluster, 500), misses, _responds(cluster, 500), misses, _responds(cluster, 503)
    )
    assert [status.batches for status in statuses] == [500, 500, 500, 500, 503]
    reader = NewBatchReader()
    assert [sum(map(len, reader.read([status]).values())) for status in statuses] == [0, 0, 0, 0, 3]


def test_a_router_that_begins_anew_counts_anew() -> None:
    cluster = PaperCluster()
    statuses = _statuses(cluster, _responds(cluster, 500), _responds(cluster, 2))
    assert [status.batches for status in statuses] == [500, 2]


def test_what_waits_at_a_router_that_is_too_busy_to_answer_is_told_and_at_one_that_is_gone_is_not() -> None:
    class Losing(PaperCluster):
        gone = False

        def snapshot(self) -> dict[str, AppSnapshot]:
            return {
                name: AppSnapshot("RUNNING", "", app, 1, 0, reachable=not (self.gone and name == ROUTER))
                for name, app in self.apps.items()
            }

    cluster = Losing(waiting=70)
    statuses = _statuses(
        cluster,
        _responds(cluster, 1),
        lambda: cluster.silent.add(ROUTER),
        lambda: setattr(cluster, "gone", True),
    )
    assert [status.queue_length for status in statuses] == [70, 70, 0]


def test_a_router_that_misses_a_look_does_not_seem_to_get_a_burst_afterwards() -> None:
    """Requests arrive at 10/s; a poll that a router misses takes longer."""

    async def run() -> list[RateBounds | None]:
        cluster, engine, meter, bounds = PaperCluster(), RayEngine(), RateEstimator(), []
        engine._cluster = cast(Cluster, cluster)
        await engine.apply(chain("q", StageSpec("start", "add")))
        loop = asyncio.get_running_loop()
        for poll in range(12):
            await asyncio.sleep(1.0)
            cluster.silent = {ROUTER} if poll == 8 else set()
            cluster.entered = round(10.0 * loop.time())
            status = await engine.status()
            bounds += [meter.read(loop.time(), query.received) for query in status.queries]
        return bounds

    rates = in_virtual_time(run())
    assert len(rates) == 11, "the missed poll has no counters"
    assert all(rate.min_per_s < 10.5 < rate.max_per_s for rate in rates[1:] if rate is not None)
