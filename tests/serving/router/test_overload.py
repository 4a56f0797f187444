"""Refusal of requests that could not be answered in time, in virtual time."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from dataclasses import replace

import pytest

from circinus.errors import OVERLOADED, OverloadedError, ServingError
from circinus.serving.engine import DROPPED_LATE
from circinus.serving.local.link_emulator import EmulatedRouter
from circinus.serving.replicas.replica_protocol import BatchResult, ItemResult
from circinus.serving.router.batch_queue import QueuedItem, end_batch
from circinus.serving.router.compiled_route import CompiledRoute
from circinus.serving.router.dispatcher import Dispatcher
from circinus.serving.router.overload import INPUT_TOO_LARGE
from circinus.serving.router.router_core import DEADLINE_PASSED
from circinus.serving.settings import SERVING
from circinus.specification import LatePolicy, Network
from circinus.testing.desired_states import StageSpec, chain
from raised import raises_code
from virtual_time import run

SERVICE_S = 1.0


class _Replicas:
    """Replicas that process each batch for `SERVICE_S`."""

    def __init__(self, count: int, batch_size: int, batch_wait_s: float = 0.0) -> None:
        self.desired_replicas = count
        self.first_s = SERVICE_S
        """Time of the next batch, if it differs."""
        self._idle = count
        self._loop = asyncio.get_running_loop()
        self.dispatcher = Dispatcher(self, self._loop, batch_size, batch_wait_s)

    def idle_since_s(self) -> float | None:
        return 0.0 if self._idle else None

    def process(self, batch: list[QueuedItem], start_s: float) -> None:
        self._idle -= 1
        occupied_s, self.first_s = self.first_s, SERVICE_S
        self._loop.call_later(occupied_s, self._done, batch, occupied_s)

    def _done(self, batch: list[QueuedItem], occupied_s: float) -> None:
        self._idle += 1
        now_s = self._loop.time()
        result = BatchResult(now_s, [ItemResult("", SERVICE_S, SERVICE_S, 1.0, has_payload=True)] * len(batch))
        self.dispatcher.history.record(batch, result, occupied_s)
        self.dispatcher.dispatch()
        end_batch(batch, result, [b"1"] * len(batch), now_s)


class _Scene:
    """Router of one query on one deployment."""

    def __init__(
        self,
        *,
        replicas: int = 1,
        batch_size: int = 1,
        batch_wait_s: float = 0.0,
        latest_start_s: float | None = None,
    ) -> None:
        state = chain("q", StageSpec("first", "add", batch_size=batch_size))
        (route,) = state.routes
        late = LatePolicy.ANSWER if latest_start_s is None else LatePolicy.DROP
        route = replace(route, late=late, stages=(replace(route.stages[0], latest_start_s=latest_start_s),))
        names = {route.stages[0].deployment: "first"}
        self.router = EmulatedRouter(asyncio.get_running_loop())
        self.router.routes = {"q": [CompiledRoute.compile(route, Network(state.infrastructure), names, {})]}
        self.replicas = _Replicas(replicas, batch_size, batch_wait_s)
        self.router.dispatchers["first"] = self.replicas.dispatcher
        self.ends: Counter[str] = Counter()
        self.longest_queue = 0
        self.shortest_retry_s = math.inf

    async def ask(self, left_s: float = math.inf, value: bytes = b"1") -> None:
        try:
            await self.router.submit("q", "item", value, 1.0, left_s)
        except ServingError as error:
            self.ends[error.code] += 1
            if isinstance(error, OverloadedError):
                self.shortest_retry_s = min(self.shortest_retry_s, error.retry_after_s)
        else:
            self.ends["answered"] += 1
        self.longest_queue = max(self.longest_queue, len(self.replicas.dispatcher))

    async def ask_at_once(self, count: int, left_s: float = math.inf) -> None:
        for _ in range(2):
            await self.ask()  # batches take as long as the last ones
        await asyncio.gather(*(self.ask(left_s) for _ in range(count)))


@pytest.mark.parametrize(("replicas", "batch_size"), [(1, 1), (2, 1), (1, 4), (3, 2)])
def test_as_many_wait_as_can_be_answered_before_the_deadline(replicas: int, batch_size: int) -> None:
    async def refuse() -> None:
        scene = _Scene(replicas=replicas, batch_size=batch_size)
        await scene.ask_at_once(500, left_s=20.0)
        in_time_s = (1.0 - SERVING.deadline_margin) * 20.0
        at_once = replicas if batch_size == 1 else 0  # of a larger size, all that arrive at once are queued first
        waiting = math.floor((in_time_s - SERVICE_S) / SERVICE_S * replicas * batch_size) + 1
        assert scene.ends == {"answered": 2 + at_once + waiting, OVERLOADED: 500 - at_once - waiting}
        assert scene.shortest_retry_s > 0
        (counts,) = scene.router.counters.status()
        assert (counts.received, counts.dropped, counts.failed) == (502, scene.ends[OVERLOADED], 0)

    run(refuse())


@pytest.mark.parametrize("load", [1.5, 3.0, 5.0])
@pytest.mark.parametrize(("left_s", "latest_start_s"), [(30.0, None), (math.inf, 30.0)], ids=["deadline", "drop"])
def test_overload_wastes_no_capacity(load: float, left_s: float, latest_start_s: float | None) -> None:
    async def overload() -> None:
        scene, seconds = _Scene(latest_start_s=latest_start_s), 300.0
        loop = asyncio.get_running_loop()
        tasks = []
        for number in range(round(load * seconds / SERVICE_S)):
            arrival_s = number * SERVICE_S / load
            loop.call_at(arrival_s, lambda: tasks.append(loop.create_task(scene.ask(left_s))))
        await asyncio.sleep(seconds)
        assert scene.ends["answered"] >= 0.95 * seconds / SERVICE_S
        assert set(scene.ends) <= {"answered", OVERLOADED, DROPPED_LATE}
        assert scene.longest_queue <= (1.0 + SERVING.drop_margin) * 30.0 / SERVICE_S + load + 2
        await asyncio.sleep(30.0)  # the limit
        assert len(scene.replicas.dispatcher) == 0

    run(overload())


def test_slow_service_without_a_queue_is_no_overload() -> None:
    async def ask() -> None:
        scene = _Scene(latest_start_s=0.5)
        for _ in range(2):
            await scene.ask()
        await asyncio.sleep(1.0)
        await scene.ask(left_s=0.5)
        assert scene.ends == {"answered": 2, DEADLINE_PASSED: 1}

    run(ask())


def test_a_slow_first_batch_is_no_overload() -> None:
    """It may compile."""

    async def ask() -> None:
        scene, loop = _Scene(), asyncio.get_running_loop()
        scene.replicas.first_s = 100.0
        tasks: list[asyncio.Task[None]] = []
        for number in range(120):  # below the capacity
            loop.call_at(1.5 * number, lambda: tasks.append(loop.create_task(scene.ask(left_s=200.0))))
        await asyncio.sleep(500.0)
        assert scene.ends == {"answered": 120}

    run(ask())


def test_items_that_wait_for_their_batch_to_fill_are_no_queue() -> None:
    async def ask() -> None:
        scene = _Scene(batch_size=4, batch_wait_s=0.5)
        for _ in range(2):
            await scene.ask()
        waiting = [asyncio.create_task(scene.ask())]
        await asyncio.sleep(0.25)
        await scene.ask(left_s=0.125)
        await asyncio.gather(*waiting)
        assert scene.ends == {"answered": 3, DEADLINE_PASSED: 1}

    run(ask())


def test_waiting_inputs_are_bounded_and_freed_at_the_deadline() -> None:
    async def fill() -> None:
        scene, value_bytes = _Scene(), 2**20
        most = SERVING.max_waiting_bytes // value_bytes
        tasks = [asyncio.create_task(scene.ask(0.5, bytes(value_bytes))) for _ in range(most + 20)]
        await asyncio.sleep(0.25)
        accepted = most - 1  # requests take a little more than their inputs
        assert scene.ends == {OVERLOADED: len(tasks) - accepted}
        assert scene.router.admission.queues.used_bytes == (accepted - 1) * value_bytes
        await asyncio.sleep(0.5 + SERVING.sweep_period_s)
        assert scene.ends[DEADLINE_PASSED] == accepted
        assert scene.router.admission.queues.used_bytes == 0
        await scene.ask(value=bytes(value_bytes))
        assert scene.ends["answered"] == 1

    run(fill())


def test_an_input_that_never_fits_is_not_sent_again() -> None:
    async def ask() -> None:
        scene = _Scene()
        await asyncio.gather(scene.ask(), scene.ask(value=bytes(SERVING.max_waiting_bytes + 1)))
        assert scene.ends == {"answered": 1, INPUT_TOO_LARGE: 1}
        await scene.ask(value=bytes(SERVING.max_waiting_bytes - SERVING.request_bytes))
        assert scene.ends["answered"] == 2

    run(ask())


def _wide(*stages: StageSpec) -> tuple[EmulatedRouter, dict[str, _Replicas]]:
    """Return the router of a query with some stages, and the replicas by operator."""
    state = chain("q", *stages)
    names = {stage.deployment: stage.operator for stage in state.routes[0].stages}
    router = EmulatedRouter(asyncio.get_running_loop())
    router.routes = {"q": [CompiledRoute.compile(state.routes[0], Network(state.infrastructure), names, {})]}
    replicas = {name: _Replicas(1, 1) for name in names.values()}
    router.dispatchers.update({name: own.dispatcher for name, own in replicas.items()})
    return router, replicas


def test_an_input_that_operators_share_counts_once() -> None:
    async def fill() -> None:
        router, replicas = _wide(*(StageSpec(name, "add") for name in "abc"))
        for own in replicas.values():
            own.idle_since_s = lambda: None  # type: ignore[method-assign]
        inputs = [bytes(100 * 2**20) for _ in range(2)]
        tasks = [asyncio.create_task(router.submit("q", "item", value, 1.0)) for value in inputs]
        await asyncio.sleep(0.25)
        assert not any(task.done() for task in tasks)
        assert router.admission.queues.used_bytes == sum(map(len, inputs))
        for own in replicas.values():
            own.dispatcher.fail_waiting("enough")
        await asyncio.wait(tasks)
        assert [task.exception() is None for task in tasks] == [False, False]
        assert router.admission.queues.used_bytes == 0

    run(fill())


@pytest.mark.parametrize("branch", [None, "rare"])
def test_a_queue_that_few_requests_reach_refuses_none(branch: str | None) -> None:
    after = "first" if branch is None else {"first": branch}
    stages = (
        StageSpec("first", "add", branches=("usual", "rare")),
        StageSpec("second", "add", after=(after,)),
        StageSpec("third", "add", after=("second",)),
        StageSpec("last", "add", after=({"any": ({"first": "usual"}, "third")},)),
    )

    async def ask() -> None:
        router, replicas = _wide(*stages)
        (route,) = router.routes["q"]
        for name in ("second", "third"):
            dispatcher = replicas[name].dispatcher
            dispatcher.history.median_batch_s = SERVICE_S
            for _ in range(30):
                dispatcher.enqueue(QueuedItem("", (), None, 0.0, lambda *_: None, lambda *_: None, lambda: False))
        if branch is None:
            with raises_code(OverloadedError, OVERLOADED):
                router.require_admission(route, 1, 20.0)
        else:
            router.require_admission(route, 1, 20.0)

    run(ask())


def test_waiting_requests_take_the_route_of_a_new_plan() -> None:
    async def switch() -> None:
        scene = _Scene()
        (route,) = scene.router.routes["q"]
        lost, other = scene.replicas, _Replicas(1, 1)
        lost.idle_since_s = lambda: None  # type: ignore[method-assign]
        scene.router.dispatchers["other"] = other.dispatcher
        waiting = asyncio.create_task(scene.ask(60.0))
        await asyncio.sleep(0.25)
        scene.router.set_presence("first", False)
        await asyncio.sleep(10.0)
        assert not scene.ends
        stages = {name: replace(stage, application="other") for name, stage in route.stages.items()}
        scene.router.routes = {"q": [replace(route, stages=stages)]}
        await waiting
        assert scene.ends == {"answered": 1}
        await asyncio.sleep(SERVING.sweep_period_s)
        assert len(lost.dispatcher) == 0

    run(switch())
