"""Deployment of the local engine on virtual time, with fake replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.operators.fork_server_client import ForkServerClient
from circinus.serving.applications import Application
from circinus.serving.engine import DesiredDeployment
from circinus.serving.local import deployment_runtime as module
from circinus.serving.local.deployment_runtime import DeploymentRuntime
from circinus.serving.replicas.replica_protocol import ReplicaSpec
from circinus.serving.router.batch_queue import QueuedItem
from circinus.specification import Allocation, Deployment, KnobValues
from virtual_time import VirtualTimeLoop, run

_Batch = tuple[float, tuple[float, ...]]
"""Start of a batch, and arrival times of its items."""


@dataclass
class FakeReplicas:
    """Factory of replicas that are ready after `startup_s`, and done `service_s` after a batch began."""

    service_s: float
    startup_s: float = 0.0

    def __post_init__(self) -> None:
        self.batches: list[_Batch] = []

    def __call__(self, spec: object, loop: Any, processes: object, on_idle: Callable[..., None], *_: object) -> Any:
        replica = FakeReplica(self, loop, on_idle)
        loop.call_later(self.startup_s, replica.become_ready)
        return replica


class FakeReplica:
    reachable = is_ready = True

    def __init__(self, made_by: FakeReplicas, loop: asyncio.AbstractEventLoop, on_idle: Callable[..., None]) -> None:
        self._made_by, self._loop, self._on_idle = made_by, loop, on_idle
        self.ready = loop.create_future()
        self.batches_done = 0
        self.free_s = 0.0
        self.startup_s = made_by.startup_s

    def become_ready(self) -> None:
        self.free_s = self._loop.time()
        self.ready.set_result(None)
        self._on_idle(self)

    def process(self, batch: list[QueuedItem], begin_s: float) -> None:
        self._made_by.batches.append((begin_s, tuple(work.arrived_s for work in batch)))
        end_s = begin_s + self._made_by.service_s
        self._loop.call_at(end_s, self._done, end_s)

    def _done(self, end_s: float) -> None:
        self.free_s = end_s
        self.batches_done += 1
        self._on_idle(self)


def _running(*, batch_size: int, batch_wait_s: float, replays: bool) -> DeploymentRuntime:
    allocation = Allocation(cpus=1.0, batch_size=batch_size, utilization_target=0.5)
    spec = ReplicaSpec("d", replays, "m:f", "", {}, 1.0, 1.0, (Path(),))
    deployment = Deployment("p", "o", KnobValues(), "pool", allocation)
    processes = mock.create_autospec(ForkServerClient)
    target = DesiredDeployment(deployment, "m:f", 1, 1.0, 0.0, 1.0, batch_wait_s=batch_wait_s)
    return DeploymentRuntime("d#0", Application("d", target, spec), asyncio.get_running_loop(), processes)


def _work(due_s: float) -> QueuedItem:
    return QueuedItem("item", (), None, due_s, lambda *_: None, lambda _: None, lambda: False)


def _served(
    arrivals_s: list[float],
    replicas: FakeReplicas,
    body: Callable[[DeploymentRuntime, VirtualTimeLoop], None] = lambda deployment, loop: None,
    *,
    count: int = 1,
    **settings: Any,
) -> list[_Batch]:
    """Return the batches of a deployment of `count` replicas whose items arrive at these times."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        deployment = _running(**settings)
        await deployment.scale_up(count)
        for due_s in arrivals_s:
            loop.call_at(due_s, deployment.dispatcher.enqueue, _work(due_s))
        body(deployment, loop)
        await asyncio.sleep(1000.0)

    with mock.patch.object(module, "ReplicaHandle", replicas):
        run(serve())
    return sorted(replicas.batches)


def _expected(arrivals_s: list[float], size: int, wait_s: float, count: int, service_s: float) -> list[_Batch]:
    free_s, waiting, batches = [0.0] * count, list(arrivals_s), []
    while waiting:
        replica = free_s.index(min(free_s))
        full_s = waiting[size - 1] if len(waiting) >= size else float("inf")
        begin_s = max(free_s[replica], min(waiting[0] + wait_s, full_s))
        batch = tuple(due_s for due_s in waiting[:size] if due_s <= begin_s)
        batches.append((begin_s, batch))
        free_s[replica] = begin_s + service_s
        waiting = waiting[len(batch) :]
    return sorted(batches)


@given(
    arrivals=st.lists(st.integers(1, 30), max_size=15, unique=True),
    size=st.integers(1, 4),
    wait_s=st.sampled_from([0.0, 0.5, 1.5, 4.5]),
    count=st.integers(1, 3),
    service=st.integers(0, 6),
    replays=st.booleans(),
)
def test_batches_begin_when_they_are_full_or_the_oldest_waited_long_enough(
    arrivals: list[int], size: int, wait_s: float, count: int, service: int, replays: bool
) -> None:
    arrivals_s = sorted(map(float, arrivals))
    service_s = service + 2.0**-10  # only arrivals are at whole seconds, so that no order is a matter of luck
    found = _served(
        arrivals_s, FakeReplicas(service_s), count=count, batch_size=size, batch_wait_s=wait_s, replays=replays
    )
    assert found == _expected(arrivals_s, size, wait_s, count, service_s)


@pytest.mark.parametrize(
    ("size", "first"),
    [(4, (2.0, (0.5, 1.0, 1.75))), (3, (1.75, (0.5, 1.0, 1.75)))],
    ids=["waited long enough", "full"],
)
def test_a_replay_begins_a_batch_when_it_was_due_not_when_that_was_noticed(size: int, first: _Batch) -> None:
    def busy_machine(deployment: DeploymentRuntime, loop: VirtualTimeLoop) -> None:
        loop.call_at(1.5, loop.oversleep, 5.0)

    arrivals_s = [0.5, 1.0, 1.75, 3.0]
    found = _served(arrivals_s, FakeReplicas(0.25), busy_machine, batch_size=size, batch_wait_s=1.5, replays=True)
    assert found == [first, (4.5, (3.0,))]
    late = _served(arrivals_s, FakeReplicas(0.25), busy_machine, batch_size=size, batch_wait_s=1.5, replays=False)
    assert late[0][0] == 6.5


@pytest.mark.parametrize("replays", [True, False])
def test_what_arrives_at_the_same_time_goes_together(replays: bool) -> None:
    """The outputs of a batch arrive together if the next operator is at the same site."""
    found = _served([1.0, 1.0, 1.0, 2.0], FakeReplicas(0.25), batch_size=4, batch_wait_s=0.0, replays=replays)
    assert found == [(1.0, (1.0, 1.0, 1.0)), (2.0, (2.0,))]


@pytest.mark.parametrize(("replays", "first_due_s"), [(False, 2.0), (True, 1.0)])
def test_a_batch_of_one_begins_at_once_but_in_a_replay_what_was_due_first_is_first(
    replays: bool, first_due_s: float
) -> None:
    async def two_that_come_out_of_order() -> list[float]:
        replicas = FakeReplicas(10.0)
        with mock.patch.object(module, "ReplicaHandle", replicas):
            deployment = _running(batch_size=1, batch_wait_s=0.0, replays=replays)
            await deployment.scale_up(1)
            await asyncio.sleep(3.0)
            deployment.dispatcher.enqueue(_work(2.0))
            assert len(replicas.batches) == (not replays)
            deployment.dispatcher.enqueue(_work(1.0))
            await asyncio.sleep(1.0)
        return [due_s for _, dues_s in replicas.batches for due_s in dues_s]

    assert run(two_that_come_out_of_order()) == [first_due_s]


def test_another_wait_holds_for_what_waits_already() -> None:
    def wait_no_more(deployment: DeploymentRuntime, loop: VirtualTimeLoop) -> None:
        loop.call_at(3.0, deployment.dispatcher.set_batch_wait, 1.5)

    replicas = FakeReplicas(0.25)
    found = _served([1.0, 2.0, 4.0], replicas, wait_no_more, batch_size=3, batch_wait_s=100.0, replays=False)
    assert found == [(3.0, (1.0, 2.0)), (5.5, (4.0,))]


@pytest.mark.parametrize("replays", [True, False])
def test_a_further_replica_takes_nothing_before_it_is_ready(replays: bool) -> None:
    replicas = FakeReplicas(2.5)

    def one_more(deployment: DeploymentRuntime, loop: VirtualTimeLoop) -> None:
        replicas.startup_s = 3.25
        loop.call_at(0.5, lambda: loop.create_task(deployment.scale_up(2)))

    found = _served([0.125, 0.25, 0.375, 0.5], replicas, one_more, batch_size=1, batch_wait_s=0.0, replays=replays)
    assert [begin_s for begin_s, _ in found] == [0.125, 2.625, 3.75, 5.125]


def test_status_tells_the_mean_start_up() -> None:
    replicas = FakeReplicas(1.0, startup_s=2.0)

    async def two() -> list[float | None]:
        deployment = _running(batch_size=1, batch_wait_s=0.0, replays=False)
        found = [deployment.status().startup_s]
        await deployment.scale_up(1)
        found.append(deployment.status().startup_s)
        replicas.startup_s = 3.0
        await deployment.scale_up(2)
        return [*found, deployment.status().startup_s]

    with mock.patch.object(module, "ReplicaHandle", replicas):
        assert run(two()) == [None, 2.0, 2.5]
