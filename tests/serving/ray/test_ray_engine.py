"""Engine on a Ray cluster of two nodes on this machine.

Most of the time is spent on starting processes: `make test` runs a few of the tests, `make test-ray` all. Tests below
that only need a running application leave it for the next test.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.error import HTTPError
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import pytest

from budget import HANG_LIMIT_S, daily_tests
from circinus.control.controller import Controller
from circinus.control.managed_plans import ManagedPlans
from circinus.control.replanning.replan import ReplanDependencies
from circinus.control.state_store import ControlStateStore, Event, EventKind
from circinus.errors import ServingError
from circinus.matching import plan_all_queries
from circinus.profiling import profile_pipeline
from circinus.serving import Mode, Request
from circinus.serving.lease import LeaseHeldError, LeaseLostError
from circinus.serving.ray import cluster as cluster_module
from circinus.serving.ray import engine as engine_module
from circinus.serving.ray import lease as lease_module
from circinus.serving.ray import serve_config as applications_module
from circinus.serving.ray.engine import RayEngine
from circinus.serving.ray.lease import ClusterLease
from circinus.serving.ray.load_test_lock import one_load_test
from circinus.serving.ray.ray_connection import answers_strangers
from circinus.serving.ray.router_client import RouterClient, call_in_thread
from circinus.serving.ray.settings import HEAD_SETTINGS, SERVE_ENVIRONMENT, RaySettings
from circinus.serving.settings import SERVING
from circinus.testing.desired_states import StageSpec, chain, route, split_route, state
from circinus.testing.engine_conformance import EngineConformance
from hardware_test_app import hardware, pool, pool_specification
from raised import raises_code
from ray_cluster_lock import exclusive_ray_cluster

pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@dataclass
class Nodes:
    """A cluster with a node for each pool of the conformance test; `far` can be lost."""

    cluster: Any
    far: Any
    port: int
    """HTTP port of Ray Serve."""

    @property
    def settings(self) -> RaySettings:
        return RaySettings(address=self.cluster.address, http=("127.0.0.1", self.port))

    @property
    def engine(self) -> RayEngine:
        return RayEngine(self.settings)

    def add_far(self) -> None:
        with mock.patch.dict(os.environ, _ENVIRONMENT):
            self.far = self.cluster.add_node(**_NODE, labels={"circinus/pool": "far"})


_NODE = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
_ENVIRONMENT = {
    **SERVE_ENVIRONMENT,
    # Ray Serve kills an HTTP proxy that starts slowly, as on a busy machine.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(HANG_LIMIT_S),
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": str(HANG_LIMIT_S),
}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Start the cluster, while no other test process has one."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    with exclusive_ray_cluster():
        with mock.patch.dict(os.environ, _ENVIRONMENT):
            cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    **_NODE,
                    "resources": {"pool:near": 1000},
                    "include_dashboard": False,
                    # A node that ended is detected as usual, but a slow one does not count as lost.
                    "_system_config": {**HEAD_SETTINGS, "health_check_timeout_ms": int(1e3 * HANG_LIMIT_S)},
                },
            )
        cluster_nodes = Nodes(cluster, None, _free_port())
        cluster_nodes.add_far()
        with mock.patch("ray.serve._private.api.HTTP_PROXY_TIMEOUT", HANG_LIMIT_S):
            cluster_module.Cluster(cluster_nodes.settings).start()  # outside the time limits of tests
        yield cluster_nodes
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(autouse=True)
def _on_a_machine_of_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise timeouts, so that slow processes do not count as gone; lost routers are waited for until their timeout."""
    patient = replace(
        SERVING,
        replica_health_timeout_s=HANG_LIMIT_S,
        router_health_timeout_s=HANG_LIMIT_S,
        answer_timeout_s=HANG_LIMIT_S,
        accept_timeout_s=HANG_LIMIT_S,
        lease_timeout_s=HANG_LIMIT_S,
        router_status_timeout_s=10.0,
    )
    for module in (applications_module, cluster_module, lease_module, engine_module):
        monkeypatch.setattr(module, "SERVING", patient)
    monkeypatch.setitem(call_in_thread.__kwdefaults__, "timeout_s", HANG_LIMIT_S)
    monkeypatch.setitem(RouterClient.call.__kwdefaults__, "timeout_s", 30.0)


@pytest.fixture
def engine(nodes: Nodes) -> RayEngine:
    asyncio.run(nodes.engine.close())  # left by a test below
    return nodes.engine


@daily_tests("test_killed_replica_is_replaced_and_reported")
class TestRayEngine(EngineConformance):
    pass


SERVED = chain("q", StageSpec("first", "add"))
"""State that tests leave running."""


def _run(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, HANG_LIMIT_S))


async def _until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait for a condition; the caller has a time limit."""
    while not await condition():
        await asyncio.sleep(0.05)


def _post(nodes: Nodes, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = HttpRequest(f"http://127.0.0.1:{nodes.port}{path}", body, named, method="POST")
    while True:
        try:
            with urlopen(request, timeout=HANG_LIMIT_S) as answer:
                return answer.status, json.loads(answer.read())
        except HTTPError as error:
            content = error.read()
            if not content.startswith(b"Path "):  # response of Ray Serve's proxy until an application is deployed
                return error.code, json.loads(content)
            time.sleep(0.05)


_CONNECTS = """
import asyncio, signal, sys
from circinus.serving.ray.engine import RayEngine
from circinus.serving.ray.settings import RaySettings

async def run():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    engine = RayEngine(RaySettings(address=sys.argv[1]))
    print((await engine.status()).routes, flush=True)
    await stop.wait()
    print("ended", flush=True)

asyncio.run(run())
"""


@pytest.mark.thorough
def test_a_process_that_connects_says_nothing_of_ray_and_ends_when_told(nodes: Nodes) -> None:
    async def run() -> None:
        await nodes.engine.apply(SERVED)
        command = (sys.executable, "-c", _CONNECTS, nodes.cluster.address)
        pipe = asyncio.subprocess.PIPE
        patient = {**os.environ, "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "30"}  # Ray warns where others compute
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=patient)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"('q',)\n"
        process.send_signal(signal.SIGTERM)
        said, complained = await process.communicate()
        assert (process.returncode, said, complained) == (0, b"ended\n", b"")

    _run(run())


@pytest.mark.thorough
def test_another_entry_than_ray_serve_listens_on_is_refused(nodes: Nodes) -> None:
    async def run() -> None:
        address, port = nodes.cluster.address, nodes.port
        await nodes.engine.apply(SERVED)
        other = RayEngine(RaySettings(address, http=("127.0.0.1", port + 1)))
        with raises_code(ServingError, "ray.other_http_address"):
            await other.apply(SERVED)
        await RayEngine(RaySettings(address)).apply(SERVED)

    _run(run())


_ENDS_SERVE = """
import sys, ray
from ray import serve
ray.init(address=sys.argv[1], log_to_driver=False)
serve.shutdown()
"""


@pytest.mark.thorough
def test_ray_serve_that_somebody_ended_is_started_again(nodes: Nodes) -> None:
    async def run() -> None:
        engine = nodes.engine
        await engine.apply(SERVED)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _ENDS_SERVE, nodes.cluster.address)
        assert await process.wait() == 0
        with raises_code(ServingError, "ray.serve_ended"):
            await engine.status()
        assert (await engine.status()).routes == ()
        await engine.apply(SERVED)
        assert (await engine.submit(Request("q", "item", 1, 10.0))).output == 2

    _run(run())


def test_a_cluster_that_answers_without_a_token_is_told(nodes: Nodes) -> None:
    assert answers_strangers(nodes.cluster.address)


LEASE_S = 10 * HANG_LIMIT_S


def test_one_controller_at_a_time_has_the_lease_of_the_cluster(nodes: Nodes) -> None:
    settings = RaySettings(address=nodes.cluster.address)
    first, second = ClusterLease(settings), ClusterLease(settings)
    number = first.acquire("one on here", 0.0, LEASE_S)
    assert second.holder() == "one on here"
    with raises_code(LeaseHeldError, "lease.held"):
        second.acquire("two on there", 0.0, LEASE_S)
    first.renew(number, 0.0, LEASE_S)
    first.release(number)
    later = second.acquire("two on there", 0.0, LEASE_S)
    assert later > number
    with raises_code(LeaseLostError, "lease.lost"):
        first.renew(number, 0.0, LEASE_S)
    first.release(number)  # no effect: the lease was lost
    with pytest.raises(LeaseHeldError):
        first.acquire("one on here", 0.0, LEASE_S)
    second.release(later)
    assert first.holder() == ""


_LOADS = """
import sys, time
from circinus.serving.ray.load_test_lock import one_load_test
from circinus.serving.ray.settings import RaySettings

with one_load_test(RaySettings(address=sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@pytest.mark.thorough
def test_a_load_test_that_is_killed_leaves_the_cluster_to_the_next(nodes: Nodes) -> None:
    settings = RaySettings(address=nodes.cluster.address)
    for _ in range(2):
        with one_load_test(settings):
            pass
    with subprocess.Popen((sys.executable, "-c", _LOADS, settings.address), stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with raises_code(ServingError, "load.already_running") as caught, one_load_test(settings):
            pass
        assert str(other.pid) in caught.value.message
        other.kill()
    end_s = time.monotonic() + HANG_LIMIT_S
    while True:
        try:
            with one_load_test(settings):
                return
        except ServingError:
            assert time.monotonic() < end_s
            time.sleep(0.1)


@pytest.mark.thorough
def test_requests_over_http_and_what_others_serve_stays(nodes: Nodes) -> None:
    from ray import serve

    class Mine:
        def __call__(self) -> str:
            return "mine"

    async def run() -> None:
        engine = nodes.engine
        try:
            first, second = StageSpec("first", "add"), StageSpec("second", "add", after=("first",), pool="far")
            await engine.apply(chain("q", first, second))
            bound = serve.deployment(Mine, name="router").bind()  # same name as the engine's routers
            handle = await asyncio.to_thread(serve.run, bound, name="others", route_prefix="/others")
            headers = {"content_type": "application/json"}
            assert await asyncio.to_thread(_post, nodes, "/home/q", b"40", **headers) == (200, 42)
            status, body = await asyncio.to_thread(_post, nodes, "/home/nobody", b"1", **headers)
            assert status == 404
            assert "queries with a route: q" in body["error"]
            await engine.apply(chain("q", first))
            assert await asyncio.to_thread(_post, nodes, "/home/q", b"40", **headers) == (200, 41)
            other = nodes.engine  # gets its state from the cluster
            assert (await other.submit(Request("q", "item", 1, 10.0))).output == 2
            with raises_code(ServingError, "query.request_failed") as caught:
                await other.submit(Request("q", "bad", None, 10.0))
            assert all(word in caught.value.message for word in ("operator first", "'bad'", "TypeError"))
        finally:
            await nodes.engine.close()
        assert (await nodes.engine.status()).routes == ()
        assert await handle.remote() == "mine"
        await asyncio.to_thread(serve.delete, "others")

    _run(run())


@pytest.mark.thorough
def test_a_lost_node_is_told_and_left(nodes: Nodes) -> None:
    here, there = (StageSpec("who", "process_id", pool=pool) for pool in ("near", "far"))
    split = split_route("split", (0.5, (here,)), (0.5, (there,)))
    both = state([route("here", here), route("there", there), split], [here, there])

    async def run() -> None:
        engine = nodes.engine
        try:
            await engine.apply(both)
            process = (await engine.submit(Request("here", "item", 1, 10.0))).output
            answer = await asyncio.to_thread(_post, nodes, "/home/here", b"1", content_type="application/json")
            assert answer == (200, process)
            assert (await engine.status()).nodes == {"near": 1, "far": 1}
            await asyncio.to_thread(nodes.cluster.remove_node, nodes.far, allow_graceful=False)

            async def left() -> bool:
                return (await engine.status()).nodes == {"near": 1}

            await _until(left)
            assert (await engine.submit(Request("here", "item", 1, 10.0))).output == process
            divided = await asyncio.gather(*(engine.submit(Request("split", "item", 1, 10.0)) for _ in range(10)))
            assert [(response.timings.part, response.output) for response in divided] == [(0, process)] * 10
            with raises_code(ServingError, "ray.missing_pool"):
                await engine.apply(both)
            await engine.apply(state([route("here", here)], [here]))
            assert (await engine.submit(Request("here", "item", 1, 10.0))).output == process
            for _ in range(3):
                nodes.add_far()
                with suppress(ServingError):  # a new node occasionally ends by itself
                    await engine.apply(both)
                    break
            assert (await engine.submit(Request("there", "item", 1, 10.0))).output != process
            assert (await engine.submit(Request("here", "item", 1, 10.0))).output == process
        finally:
            await nodes.engine.close()

    _run(run())


@pytest.mark.thorough
def test_a_controller_of_ray_serve_that_is_silent_holds_nobody_up_for_long(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    async def run() -> None:
        engine = nodes.engine
        await engine.apply(SERVED)
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", "serve")
        process = await controller.get_pid.remote()
        os.kill(process, signal.SIGSTOP)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(cluster_module, "SERVING", replace(SERVING, answer_timeout_s=1.0))
                for _ in range(10):
                    with raises_code(ServingError, "ray.serve_silent"):
                        await engine.status()
            assert (await engine.submit(Request("q", "item", 1, 10.0))).output == 2
        finally:
            os.kill(process, signal.SIGCONT)

        async def healthy() -> bool:
            return (await engine.status()).healthy

        await _until(healthy)

    _run(run())


@pytest.mark.thorough
def test_a_lost_pool_is_planned_around_and_its_query_answers_again(nodes: Nodes, tmp_path: Path) -> None:
    machine = hardware("machine", 1.0)
    specification = pool_specification(tmp_path, pool("far", machine, price=0.01), pool("near", machine, price=1.0))
    profiles = {"naps": profile_pipeline(specification, "naps", tmp_path / "store.sqlite")}
    matching, _ = plan_all_queries(specification, profiles)
    controlled = ManagedPlans(matching, specification, matching.deployments, Mode.REAL, None, {})
    assert {listed.deployment.pool for listed in matching.deployments} == {"far"}
    events: list[Event] = []

    async def answered(engine: RayEngine, pools: set[str]) -> None:
        async def condition() -> bool:
            with suppress(ServingError, TimeoutError):  # the plan is being deployed
                response = engine.submit(Request("q", "item", 1, 10.0))
                assert (await asyncio.wait_for(response, 5.0)).output in (2, 3)
                status = await engine.status()
                return status.healthy and {listed.deployment.pool for listed in status.deployments} == pools
            return False

        await _until(condition)

    async def run() -> None:
        engine, stop = nodes.engine, asyncio.Event()
        controller = Controller(
            nodes.engine,
            controlled,
            ControlStateStore(tmp_path / "control.sqlite"),
            holder="test",
            clock=asyncio.get_running_loop().time,
            wall_clock=time.time,
            on_event=events.append,
            planner=ReplanDependencies(lambda plans: profiles),
            engine_lease=ClusterLease(RaySettings(address=nodes.cluster.address)),
        )
        controlling = asyncio.create_task(controller.run(stop))
        try:
            await answered(engine, {"far"})
            await asyncio.to_thread(nodes.cluster.remove_node, nodes.far, allow_graceful=False)
            await answered(engine, {"near"})

            async def applied() -> bool:  # reported after the previous deployments are gone
                return [event.kind for event in events].count(EventKind.APPLIED) == 2

            await _until(applied)
        finally:
            stop.set()
            await controlling
            await engine.close()
            nodes.add_far()
        kinds = [event.kind for event in events if event.kind != EventKind.FAILED]  # a busy machine may cause failures
        assert kinds == [EventKind.STARTED, EventKind.APPLIED, EventKind.REPLAN, EventKind.APPLIED]
        assert "far has 0 of 1 nodes" in next(event.reason for event in events if event.kind == EventKind.REPLAN)

    _run(run())
