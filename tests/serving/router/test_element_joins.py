"""Joins of elements: any interleaving of messages gives the runs and answers of `ItemFlow`."""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.errors import ServingError
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.operators.protocol import NO_BRANCH
from circinus.profiling.item_runs import branch_name
from circinus.serving.counters import BatchHistory
from circinus.serving.engine import Response
from circinus.serving.ray.site_router import SiteRouterCore
from circinus.serving.replicas.replica_protocol import ItemResult
from circinus.serving.router.batch_queue import QueuedItem
from circinus.serving.router.compiled_route import CompiledRoute, RouteTransfer
from circinus.serving.router.request_messages import RouterMessage
from circinus.serving.router.router_core import DEADLINE_PASSED, RouterCore
from circinus.serving.routes import Route, RouteStage
from circinus.specification import Allocation, Configuration, Deployment, KnobValues, Network, Pipeline
from circinus.specification.dataflow import FlowNode, ItemFlow, RunPath
from circinus.testing.desired_states import StageSpec, infrastructure, route
from circinus.testing.random_fan_outs import random_fan_out
from circinus.testing.random_instances import random_pipeline
from virtual_time import run as in_virtual_time

DEADLINE_S = 100.0
SWEEP_S = 20.0
"""Longer than the time between two sweeps."""
Choice = Callable[[int], int]
"""Number of events that may be next -> index of the next one."""
Outputs = Sequence[tuple[int, Any]]
"""(index of the branch, value) of each output of a run."""
Run = tuple[str, RunPath]
"""Operator and path."""


def random_outputs(item: str, node: FlowNode, path: RunPath) -> Outputs:
    """Return the outputs of a run, equal in any order of the runs."""
    rng = np.random.default_rng([*item.encode(), *node.name.encode(), *path])
    count = int(rng.integers(0, 4)) if node.emits_many else 1
    branches = rng.integers(len(node.branches), size=count).tolist() if node.branches else [NO_BRANCH] * count
    return [(branch, f"{item} {node.name}{path}{index}") for index, branch in enumerate(branches)]


def expected(item: str, nodes: Mapping[str, FlowNode], sinks: Sequence[str]) -> tuple[dict[Run, Any], dict[str, Any]]:
    """Return the inputs of all runs, and the outputs of the sinks."""
    inputs: dict[Run, Any] = {}
    flow = ItemFlow[Any](tuple(nodes.values()))
    for node in nodes.values():
        for path, values in flow.due(node.name, item):
            inputs[node.name, path] = values
            outputs = random_outputs(item, node, path)
            flow.add(node.name, path, [(branch_name(node, branch), value) for branch, value in outputs])
    return inputs, {sink: flow.answer(sink) for sink in sinks}


class Interleaving:
    """Routers with a route. Messages between sites arrive, and runs end, in the order that a test chooses."""

    def __init__(self, compiled: CompiledRoute, nodes: Mapping[str, FlowNode], *, has_site_routers: bool) -> None:
        self.events: list[Callable[[], None]] = []
        """Messages on their way, and runs in service."""
        self.inputs: dict[str, dict[Run, Any]] = {}
        """Item -> inputs of its runs so far."""
        self.failing: tuple[str, Run] | None = None
        """Item and run that fails."""
        self.routers: dict[str, RouterCore] = {}
        loop = asyncio.get_running_loop()
        for site in ("home", "center"):
            site_router = SiteRouterCore(site, site, mock.Mock(), self, loop) if has_site_routers else None
            self.routers[site] = site_router or self.routers.get("home") or _WholeRouter(self.events, loop)
            self.routers[site].dispatchers = {name: _Replicas(self, node) for name, node in nodes.items()}  # type: ignore[misc]
        self.entry = self.routers["home"]
        self.entry.routes = {"q": [compiled]}

    async def deliver(self, site: str, message: RouterMessage, age_s: float, padding: bytes) -> None:
        copied = pickle.loads(pickle.dumps(message))
        self.events.append(lambda: self.routers[site].accept(copied, age_s))  # type: ignore[attr-defined]

    async def report(self, site: str, request_id: str, reason: str, code: str) -> None:
        self.events.append(lambda: self.routers[site].fail(request_id, reason, code))

    def begin(self, item: str) -> asyncio.Task[Response]:
        """Submit a request."""

        async def submit() -> Response:
            return (await self.entry.submit("q", item, pickle_value(item), 1.0, DEADLINE_S)).unpickle()

        self.inputs[item] = {}
        return asyncio.create_task(submit())

    async def proceed(self, choose: Choice, until: Callable[[], bool] = lambda: False) -> None:
        """Let events happen until a condition holds or none is left."""
        await _settle()
        while self.events and not until():
            self.events.pop(choose(len(self.events)))()
            await _settle()

    @property
    def requests_with_joins(self) -> set[str]:
        """Ids of the requests that values are kept for."""
        return {request_id for router in self.routers.values() for request_id, *_ in router._joins}


class _WholeRouter(RouterCore):
    """Router of all sites."""

    def __init__(self, events: list[Callable[[], None]], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__("test", loop)
        self._events = events

    def _transmit(self, transfer: RouteTransfer, message: RouterMessage, size_bytes: float, ready_s: float) -> None:
        self._events.append(lambda: self.receive(message, self._loop.time()))


class _Replicas:
    """`Dispatcher` of one operator, whose runs take one second each, and which has no queue."""

    history = BatchHistory()

    def __init__(self, routers: Interleaving, node: FlowNode) -> None:
        self._routers, self._node = routers, node

    def __len__(self) -> int:
        return 0

    def expected_wait_s(self, latest_start_s: float) -> float:
        return 0.0

    def remove_cancelled(self) -> None:
        pass

    def enqueue(self, item: QueuedItem) -> None:
        runs, run = self._routers.inputs[item.item_key], (self._node.name, item.path)
        assert run not in runs, f"{run} runs twice"
        runs[run] = [unpickle_value(value) for value in item.inputs]
        self._routers.events.append(partial(self._end, item))

    def _end(self, item: QueuedItem) -> None:
        if (item.item_key, (self._node.name, item.path)) == self._routers.failing:
            item.failed("it is broken")
            return
        outputs = random_outputs(item.item_key, self._node, item.path)
        payloads = [pickle_value(value) for _, value in outputs]
        emitted = tuple((branch, float(len(value))) for (branch, _), value in zip(outputs, payloads, strict=True))
        is_plain = not self._node.emits_many and not self._node.branches
        size_bytes = float(sum(map(len, payloads)))
        result = ItemResult("", 1.0, 1.0, size_bytes, has_payload=True, emitted=None if is_plain else emitted)
        item.done(result, payloads, 0.0)


async def _settle() -> None:
    """Wait for the tasks of messages to other sites."""
    for _ in range(4):
        await asyncio.sleep(0)


def fan_out(seed: int) -> Pipeline:
    rng = np.random.default_rng(seed)
    return random_fan_out(rng, random_pipeline(rng, knobs=[1] * int(rng.integers(2, 7))))


def compiled_route(pipeline: Pipeline, seed: int) -> CompiledRoute:
    """Return the route of the pipeline, whose operators are at two sites."""
    rng = np.random.default_rng(seed)
    stages = []
    for operator in pipeline.topological_order():
        pool, allocation = str(rng.choice(["near", "far"])), Allocation(1.0, 1, 0.5)
        deployment = Deployment(pipeline.name, operator.name, KnobValues(()), pool, allocation)
        prefix = Configuration.of({operator.name: KnobValues(())})
        stages.append(RouteStage(operator.name, operator.parents, deployment, prefix, flow=operator.flow))
    return _compiled(Route("q", pipeline.name, "home", tuple(stages), pipeline.sinks()))


def _compiled(whole: Route) -> CompiledRoute:
    names = {stage.deployment: stage.operator for stage in whole.stages}
    return CompiledRoute.compile(whole, Network(infrastructure()), names, {})


@pytest.mark.parametrize("has_site_routers", [False, True])
@given(st.integers(0, 2**32 - 1), st.data())
def test_any_interleaving_gives_the_runs_and_answers_of_the_dataflow(
    has_site_routers: bool, seed: int, data: st.DataObject
) -> None:
    pipeline = fan_out(seed)
    nodes = {operator.name: operator.flow for operator in pipeline.topological_order()}

    def choose(count: int) -> int:
        return data.draw(st.integers(0, count - 1)) if count > 1 else 0

    async def check() -> None:
        routers = Interleaving(compiled_route(pipeline, seed), nodes, has_site_routers=has_site_routers)
        requests = {item: routers.begin(item) for item in (f"{seed} a", f"{seed} b")}
        await routers.proceed(choose, lambda: all(request.done() for request in requests.values()))
        for item, request in requests.items():
            inputs, answer = expected(item, nodes, pipeline.sinks())
            response = request.result()
            assert response.output == (answer if len(answer) > 1 else next(iter(answer.values())))
            counts, timed = Counter(operator for operator, _ in inputs), response.timings.stage_s
            if any(len(edges) > 1 for node in nodes.values() for edges in node.inputs):
                # An input that has come does not wait for its alternatives, whose runs may not have ended.
                assert routers.inputs[item].items() <= inputs.items()
                assert all(total_s <= counts[operator] for operator, total_s in timed.items())
            else:
                assert routers.inputs[item] == inputs
                assert timed == counts
        await check_nothing_is_kept(routers, choose)

    in_virtual_time(check())


async def check_nothing_is_kept(routers: Interleaving, choose: Choice) -> None:
    """Check that values of ended requests are swept, also those that come later."""
    await routers.proceed(choose)
    await asyncio.sleep(DEADLINE_S + SWEEP_S)
    assert not routers.requests_with_joins
    assert not routers.entry._requests


SPLIT = StageSpec("split", "same", emits_many=True)
CHEAP = StageSpec("cheap", "by_size", after=("split",), branches=("small", "large"))
SLOW = StageSpec("slow", "same", after=("cheap",), pool="far")
DEAR = StageSpec("dear", "pair", after=({"cheap": "large"}, "slow"))
EITHER = StageSpec("either", "same", after=({"any": ({"cheap": "small"}, "dear")},), gather=True)
CASCADE = (SPLIT, CHEAP, SLOW, DEAR, EITHER)


def cascade(*, has_site_routers: bool) -> Interleaving:
    """Return routers of a cascade, in which elements of the branch `small` need not wait for `slow`."""
    nodes = {step.operator: step.flow for step in CASCADE}
    return Interleaving(_compiled(route("q", *CASCADE)), nodes, has_site_routers=has_site_routers)


def _answer(item: str) -> Any:
    return expected(item, {step.operator: step.flow for step in CASCADE}, ["either"])[1]["either"]


def _takes_small(item: str) -> bool:
    """Return whether an item has three elements that all take the branch `small`."""
    elements = len(random_outputs(item, SPLIT.flow, ()))
    return elements == 3 and all(random_outputs(item, CHEAP.flow, (index,))[0][0] == 0 for index in range(elements))


SMALL, LATER, *_ = (str(number) for number in range(1000) if _takes_small(str(number)))


@pytest.mark.parametrize("has_site_routers", [False, True])
def test_messages_that_an_answer_did_not_need_are_swept(has_site_routers: bool) -> None:
    async def check() -> None:
        routers = cascade(has_site_routers=has_site_routers)
        request = routers.begin(SMALL)
        await routers.proceed(_runs_first(routers), request.done)
        assert request.result().output == _answer(SMALL)
        assert "slow" not in request.result().timings.stage_s
        assert len(routers.requests_with_joins) == 1
        await asyncio.sleep(SWEEP_S)
        again = routers.begin(LATER)
        await routers.proceed(lambda count: 0, again.done)
        assert again.result().output == _answer(LATER)
        assert len(routers.requests_with_joins) <= 1  # those of the second request
        await check_nothing_is_kept(routers, lambda count: 0)

    in_virtual_time(check())


def _runs_first(routers: Interleaving) -> Choice:
    """Choose ends of runs before messages to other sites, oldest first."""
    return lambda count: next((i for i in range(count) if isinstance(routers.events[i], partial)), 0)


@pytest.mark.parametrize("has_site_routers", [False, True])
@pytest.mark.parametrize("events", [0, 3, 6, 9])
def test_a_deadline_that_passes_in_a_fan_out_fails_the_request_once(events: int, has_site_routers: bool) -> None:
    async def check() -> None:
        routers = cascade(has_site_routers=has_site_routers)
        request = routers.begin(SMALL)
        remaining = iter(range(events))
        await routers.proceed(lambda count: count - 1, lambda: next(remaining, None) is None)  # as below
        assert not request.done()
        await asyncio.sleep(DEADLINE_S + 1.0)
        with pytest.raises(ServingError) as raised:
            request.result()
        assert raised.value.code == DEADLINE_PASSED
        again = routers.begin(LATER)
        await routers.proceed(lambda count: count - 1, again.done)
        assert again.result().output == _answer(LATER)
        (counts,) = routers.entry.counters.status()
        assert (counts.received, counts.answered, counts.failed, counts.in_flight) == (2, 1, 1, 0)
        await check_nothing_is_kept(routers, lambda count: 0)

    in_virtual_time(check())


@pytest.mark.parametrize("has_site_routers", [False, True])
def test_an_element_that_fails_fails_its_request_only(has_site_routers: bool) -> None:
    async def check() -> None:
        routers = cascade(has_site_routers=has_site_routers)
        failing, other = routers.begin(SMALL), routers.begin(LATER)
        routers.failing = (SMALL, ("slow", (1,)))
        await routers.proceed(lambda count: count - 1)  # the answer needs the oldest message
        with pytest.raises(ServingError, match=f"slow failed on item '{SMALL}': it is broken"):
            failing.result()
        assert other.result().output == _answer(LATER)
        await check_nothing_is_kept(routers, lambda count: 0)

    in_virtual_time(check())
