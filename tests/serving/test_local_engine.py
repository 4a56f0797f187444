"""Local engine inside the calling process."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import psutil
import pytest

from budget import HANG_LIMIT_S
from circinus.errors import ServingError
from circinus.operators.fork_server_client import ForkServerClient
from circinus.serving.engine import DesiredState, Response
from circinus.serving.http_answers import HttpAnswer
from circinus.serving.local.engine import LocalEngine
from circinus.serving.local.http_server import HttpServer
from circinus.serving.local.replica_executor import ReplicaExecutor
from circinus.serving.local.replica_handle import ReplicaHandle
from circinus.serving.replicas.replica_protocol import ReplicaSpec
from circinus.serving.settings import SERVING
from circinus.specification import Link
from circinus.testing.desired_states import StageSpec, chain, route, state
from circinus.testing.engine_conformance import EngineConformance, ask, is_alive, respond, wait_until
from raised import raises_code

pytestmark = pytest.mark.slow

OPERATORS = """
import os, subprocess, sys, time
from circinus.operators import operator

@operator
def variable(name):
    return os.environ.get(name)

@operator
def imported(module):
    return module in sys.modules

@operator
def work(seconds):
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass

@operator
def start_another(value):
    return [os.getpid(), subprocess.Popen(["sleep", "600"]).pid]

@operator
def one_too_few(value):
    return value

@operator
class OneTooFew:
    def process(self, values):
        return values[1:]

@operator
class Unpicklable:
    def process(self, values):
        return [lambda: value for value in values]

@operator
def say(text):
    print(text)
    return text
"""


class TestLocalEngine(EngineConformance):
    @pytest.fixture
    def engine(self) -> LocalEngine:
        return LocalEngine()


@pytest.fixture
def uses(tmp_path: Path) -> Callable[..., DesiredState]:
    """Return a builder of states with one operator of the module above."""
    (tmp_path / "operators_of_this_test.py").write_text(OPERATORS)

    def build(name: str, **changes: Any) -> DesiredState:
        state = chain("q", StageSpec("first", "unused"))
        wanted = replace(state.deployments[0], uses=f"operators_of_this_test:{name}", **changes)
        return replace(state, deployments=(wanted,), module_paths=(tmp_path,))

    return build


def run(*bodies: Callable[[LocalEngine], Coroutine[Any, Any, Any]]) -> Any:
    """Run `bodies` with one engine, close it, and return the result of the last one."""

    async def drive() -> Any:
        engine = LocalEngine()
        try:
            result = None
            for body in bodies:
                result = await body(engine)
            return result
        finally:
            await engine.close()

    return asyncio.run(drive())


def answer_of(state: DesiredState, value: Any) -> Any:
    return run(lambda engine: engine.apply(state), lambda engine: ask(engine, value))


def test_numeric_libraries_are_held_to_the_allocation(uses: Callable[..., DesiredState]) -> None:
    assert answer_of(uses("variable", cpus=0.5), "OMP_NUM_THREADS") == "1"
    assert answer_of(uses("variable", cpus=1.5), "OPENBLAS_NUM_THREADS") == "2"


def test_numeric_libraries_are_not_there_before_the_operator(uses: Callable[..., DesiredState]) -> None:
    """Thread limits act only on what is imported after they are set."""
    assert answer_of(uses("imported"), "circinus.operators") is True
    assert answer_of(uses("imported"), "numpy") is False
    assert answer_of(uses("imported"), "pydantic") is False  # four fifths of the start-up of the first process


def test_slower_hardware_and_a_share_of_a_cpu_take_longer(uses: Callable[..., DesiredState]) -> None:
    state = uses("work", cpus=0.5, relative_speed=0.5)
    response = run(lambda engine: engine.apply(state), lambda engine: respond(engine, 0.02))
    assert response.timings.stage_s["first"] >= 0.02 / 0.5 / 0.5
    assert response.timings.latency_s >= response.timings.stage_s["first"]


def test_the_time_in_a_queue_is_the_sum_of_service_times(uses: Callable[..., DesiredState]) -> None:
    """Plans predict waits from service times: they include what the engine does between two batches."""

    async def ask_at_once(engine: LocalEngine) -> list[Response]:
        return await asyncio.gather(*(respond(engine, 0.0) for _ in range(100)))

    responses = run(lambda engine: engine.apply(uses("work")), ask_at_once)
    longest_s = max(response.timings.latency_s for response in responses)
    assert sum(response.timings.stage_s["first"] for response in responses) == pytest.approx(longest_s, rel=0.3)


def test_the_batches_of_the_replica_with_the_fewest_are_counted(uses: Callable[..., DesiredState]) -> None:
    state = uses("work")

    async def fewest(engine: LocalEngine) -> int | None:
        (deployment,) = (await engine.status()).deployments
        return deployment.min_batches_served

    async def counted() -> list[int | None]:
        engine = LocalEngine()
        try:
            await engine.apply(state)
            counts = [await fewest(engine)]
            for _ in range(3):
                await respond(engine, 0.0)
            counts.append(await fewest(engine))
            another = replace(state.deployments[0], replicas=state.deployments[0].replicas + 1)
            await engine.apply(replace(state, deployments=(another,)))
            return [*counts, await fewest(engine)]
        finally:
            await engine.close()

    assert asyncio.run(counted()) == [0, 3, 0]


def test_what_an_operator_started_ends_with_its_replica(uses: Callable[..., DesiredState]) -> None:
    replica, child = answer_of(uses("start_another"), 0)
    assert not is_alive(replica)
    assert not is_alive(child)


@pytest.mark.parametrize(
    ("name", "message"),
    [("OneTooFew", "found 0 outputs for a batch of 1"), ("Unpicklable", "its output cannot be pickled")],
)
def test_operator_that_breaks_its_contract_fails_its_request(
    uses: Callable[..., DesiredState], name: str, message: str
) -> None:
    with raises_code(ServingError, "query.request_failed") as caught:
        answer_of(uses(name), 0)
    assert caught.value.location == "query q"
    assert message in caught.value.message


def test_edited_source_is_refused(uses: Callable[..., DesiredState]) -> None:
    with raises_code(ServingError, "replica.not_loaded") as caught:
        run(lambda engine: engine.apply(uses("variable", operator_version="another")))
    assert "its source was edited" in str(caught.value)


def test_what_operators_print_stays_out_of_the_output(
    uses: Callable[..., DesiredState], capfd: pytest.CaptureFixture[str]
) -> None:
    answer_of(uses("say"), "hello from a replica")
    captured = capfd.readouterr()
    assert "hello" not in captured.out
    assert "hello" in captured.err


def test_replicas_survive_the_process_they_were_forked_from() -> None:
    """Replicas are replaced, and no request is lost."""

    async def kill_fork_server(engine: LocalEngine) -> None:
        process = await ask(engine, 0)
        fork_server = psutil.Process(process).parent()
        assert fork_server is not None
        os.kill(fork_server.pid, signal.SIGKILL)
        answers = await asyncio.gather(*(ask(engine, 0) for _ in range(20)))

        async def ended() -> bool:
            return not is_alive(process)

        async def restored() -> bool:
            return (await engine.status()).healthy

        await wait_until(ended)
        await wait_until(restored)
        assert len(answers) == 20
        assert await ask(engine, 0) != process

    run(lambda engine: engine.apply(chain("q", StageSpec("who", "process_id", replicas=3))), kill_fork_server)


def test_a_fork_server_that_starts_slowly_leaves_turns_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    start, released = ForkServerClient._start, threading.Event()

    def start_when_released(client: ForkServerClient) -> Any:
        assert released.wait(HANG_LIMIT_S)
        return start(client)

    monkeypatch.setattr(ForkServerClient, "_start", start_when_released)

    async def apply(engine: LocalEngine) -> None:
        applying = asyncio.create_task(engine.apply(chain("q", StageSpec("first", "add"))))

        async def is_starting() -> bool:
            return bool((await engine.status()).starting)

        await wait_until(is_starting)
        released.set()
        await applying
        assert await ask(engine, 1) == 2

    run(apply)


def test_a_change_that_fails_changes_no_wait() -> None:
    """A waiting batch does not begin either."""
    patient = StageSpec("who", "process_id", batch_size=2, batch_wait_s=6000.0)

    async def fail(engine: LocalEngine) -> None:
        first = asyncio.create_task(ask(engine, 0))

        async def waits() -> bool:
            return [deployment.queue_length for deployment in (await engine.status()).deployments] == [1]

        await wait_until(waits)
        hasty = replace(patient, batch_wait_s=0.0)
        with raises_code(ServingError, "replica.not_loaded") as caught:
            await engine.apply(chain("q", hasty, StageSpec("bad", "Unloadable", after=("who",))))
        assert "its model is missing" in str(caught.value)
        assert await waits()
        await engine.apply(chain("q", hasty))
        await first

    run(lambda engine: engine.apply(chain("q", patient)), fail)


def test_a_replica_is_free_from_when_it_was_ready() -> None:
    """Otherwise a replay would begin batches before the replica was ready."""
    state = chain("q", StageSpec("first", "add"))

    async def start() -> tuple[float, float, float, float]:
        loop = asyncio.get_running_loop()
        processes = ForkServerClient(ReplicaExecutor)
        spec = ReplicaSpec("first", False, state.deployments[0].uses, "", {}, 0.1, 1.0, ())
        try:
            requested_s = loop.time()
            replica = ReplicaHandle(spec, loop, processes, lambda _: None, lambda *_: None, lambda *_: None)
            await replica.ready
            return requested_s, replica.startup_s, replica.free_s, loop.time()
        finally:
            processes.close()

    requested_s, startup_s, free_s, now_s = asyncio.run(start())
    assert requested_s < free_s <= now_s
    assert 0 < startup_s <= free_s - requested_s


def test_route_without_a_way_is_refused() -> None:
    state = chain("q", StageSpec("first", "add", pool="far"))
    closed = {"source": "home", "target": "center", "bandwidth": 1e6, "reverse_allowed_traffic": "none"}
    for links, way in (((), "home to site center"), ((Link(**closed),), "center to site home")):
        apart = replace(state, infrastructure=state.infrastructure.model_copy(update={"links": links}))
        with raises_code(ServingError, "route.no_path") as caught:
            run(lambda engine, apart=apart: engine.apply(apart))
        assert caught.value.location == "query q"
        assert way in caught.value.message


def test_transfers_take_the_time_of_their_links() -> None:
    state = chain("q", StageSpec("first", "add", pool="far"))
    slow = Link(source="home", target="center", bandwidth_bytes_per_s=2000.0, round_trip_s=0.1)
    far = replace(state, infrastructure=state.infrastructure.model_copy(update={"links": (slow,)}))

    async def two(engine: LocalEngine) -> list[float]:
        responses = await asyncio.gather(respond(engine, 0), respond(engine, 0))
        return sorted(response.timings.latency_s for response in responses)

    first_s, second_s = run(lambda engine: engine.apply(far), two)
    sent_s = 100.0 / 2000.0
    assert first_s >= 0.1 + sent_s
    assert second_s >= 0.1 + 2 * sent_s


def test_closed_engine_starts_nothing() -> None:
    async def close_then_apply(engine: LocalEngine) -> None:
        await engine.close()
        with raises_code(ServingError, "engine.closed"):
            await engine.apply(chain("q", StageSpec("first", "add")))

    run(close_then_apply)


def test_close_ends_an_apply_under_way(tmp_path: Path) -> None:
    loading = tmp_path / "loading"

    async def close_meanwhile(engine: LocalEngine) -> None:
        (tmp_path / "never_loaded.py").write_text(
            "import pathlib, time\nfrom circinus.operators import operator\n"
            f"@operator\nclass Slow:\n    def __init__(self):\n        pathlib.Path({str(loading)!r}).touch()\n"
            "        time.sleep(600)\n    def process(self, values):\n        return values\n"
        )
        state = chain("q", StageSpec("first", "unused"))
        wanted = replace(state.deployments[0], uses="never_loaded:Slow")
        task = asyncio.create_task(engine.apply(replace(state, deployments=(wanted,), module_paths=(tmp_path,))))

        async def loads() -> bool:
            return loading.exists()

        await wait_until(loads)
        (starting,) = (await engine.status()).starting
        assert (starting.replicas_ready, starting.target_replicas) == (0, 1)
        await engine.close()
        with pytest.raises(ServingError):
            await task

    run(close_meanwhile)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[HttpServer]:
    """Return the list of all servers that engines open."""
    found = []
    listen = HttpServer.open

    async def opened(*address: Any) -> HttpServer:
        found.append(await listen(*address))
        return found[-1]

    monkeypatch.setattr(HttpServer, "open", opened)
    return found


def is_listening(server: HttpServer) -> bool:
    return server._server.is_serving()


def test_simultaneous_changes_of_the_address_leave_one_server(servers: list[HttpServer]) -> None:
    async def drive() -> None:
        engine = LocalEngine()
        await asyncio.gather(*(engine.listen_http(("127.0.0.1", 0)) for _ in range(3)))
        assert [is_listening(server) for server in servers] == [False, False, True]
        await engine.close()
        assert not is_listening(servers[-1])

    asyncio.run(drive())


def test_a_closed_engine_listens_nowhere(servers: list[HttpServer]) -> None:
    async def drive() -> None:
        engine = LocalEngine()
        listening = asyncio.ensure_future(engine.listen_http(("127.0.0.1", 0)))
        await asyncio.sleep(0)
        await engine.close()
        await asyncio.gather(listening, return_exceptions=True)
        with raises_code(ServingError, "engine.closed"):
            await engine.listen_http(("127.0.0.1", 0))
        assert not any(is_listening(server) for server in servers)

    asyncio.run(drive())


@pytest.mark.parametrize("finishes", [True, False])
def test_a_running_request_outlives_its_address_but_not_the_engine(
    monkeypatch: pytest.MonkeyPatch, finishes: bool
) -> None:
    async def drive() -> None:
        running, released = asyncio.Event(), asyncio.Event()

        async def answer(*_: object) -> HttpAnswer:
            running.set()
            await released.wait()
            return HttpAnswer(200, "text/plain", b"done")

        monkeypatch.setattr("circinus.serving.local.engine.HttpRequests.answer", answer)
        monkeypatch.setattr("circinus.serving.local.engine.SERVING", replace(SERVING, http_close_grace_s=0.1))
        engine = LocalEngine()
        await engine.listen_http(("127.0.0.1", 0))
        assert engine.http_address is not None
        idle, idle_writer = await asyncio.open_connection(*engine.http_address)
        reader, writer = await asyncio.open_connection(*engine.http_address)
        writer.write(b"POST /home/q HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await running.wait()
        await engine.listen_http(("127.0.0.1", 0))
        assert await idle.read() == b""
        if finishes:
            released.set()
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"connection: close" in head.lower()
            assert await reader.read() == b"done"
        else:
            await engine.close()
            assert await reader.read() == b""
        writer.close()
        idle_writer.close()
        await engine.close()

    asyncio.run(asyncio.wait_for(drive(), HANG_LIMIT_S))


def test_requests_over_http_read_that_the_engine_was_closed(uses: Callable[..., DesiredState]) -> None:
    async def close_meanwhile(engine: LocalEngine) -> None:
        await engine.apply(uses("work"))
        await engine.listen_http(("127.0.0.1", 0))
        assert engine.http_address is not None
        reader, writer = await asyncio.open_connection(*engine.http_address)
        writer.write(b"POST /home/q HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n600")

        async def is_received() -> bool:
            return bool((await engine.status()).queries)

        await wait_until(is_received)
        closing = asyncio.create_task(engine.close())
        assert (await reader.readline()).split()[1] == b"500"
        assert b"query.request_failed" in await reader.read()
        writer.close()
        await closing

    run(close_meanwhile)


def test_deployments_with_other_targets_have_replicas_of_their_own_and_pass_them_on() -> None:
    async def drive() -> None:
        engine = LocalEngine()
        low = StageSpec("who", "process_id")
        high, higher = replace(low, utilization_target=0.7), replace(low, utilization_target=0.9)
        await engine.apply(state([route("a", low), route("b", high)], [low, high]))
        processes = {await ask(engine, 0, query) for query in "ab"}
        assert len(processes) == 2
        await engine.apply(state([route("a", higher), route("b", high)], [higher, high]))
        assert {await ask(engine, 0, query) for query in "ab"} == processes
        await engine.apply(chain("a", higher))
        assert await ask(engine, 0, "a") in processes
        assert [deployment.deployment for deployment in (await engine.status()).deployments] == [higher.deployment]
        await engine.close()

    asyncio.run(asyncio.wait_for(drive(), HANG_LIMIT_S))


def test_addresses_of_ipv6_are_printed_as_in_urls() -> None:
    async def drive() -> None:
        engine = LocalEngine()
        engine._http = Mock(host="::1", port=9000)
        assert (await engine.status()).http == "http://[::1]:9000"

    asyncio.run(drive())
