"""Local engine in the background, through its client."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from background_engine import block_until, engine_of, in_session, kill_engine

from budget import HANG_LIMIT_S, daily_tests
from circinus.api.engine_handle import EngineHandle
from circinus.errors import ServingError
from circinus.serving.engine import EngineStatus
from circinus.serving.http_tokens import HttpTokens
from circinus.serving.local.client import LocalEngineClient, destroy, start_daemon
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.settings import SERVING
from circinus.testing.desired_states import StageSpec, chain
from circinus.testing.engine_conformance import EngineConformance, ask, is_alive, wait_until
from circinus.testing.engine_driver import has_files
from raised import raises_code

pytestmark = pytest.mark.slow

WHO = chain("q", StageSpec("who", "process_id", replicas=2))


@daily_tests(  # each argument, result and error of a call is in one of them
    "test_chain_passes_outputs_on",
    "test_large_values_pass_whole",
    "test_operator_error_names_operator_and_item",
    "test_killed_replica_is_replaced_and_reported",
    "test_state_that_cannot_be_leaves_the_old_one",
    "test_elements_that_are_late_drop_their_request_once",
    "test_a_part_without_a_replica_leaves_its_requests_to_the_others_until_it_has_one",
    "test_status_tells_how_long_the_last_batches_took",
    "test_audited_requests_are_handed_over_once",
    "test_replay_answers_the_recorded_elements",
    "test_close_leaves_no_process",
)
class TestLocalEngineClient(EngineConformance):
    @pytest.fixture
    def engine(self, tmp_path_factory: pytest.TempPathFactory) -> LocalEngineClient:
        return start_daemon(tmp_path_factory.mktemp("engine"))


@pytest.fixture(autouse=True)
def _on_a_machine_of_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = replace(
        SERVING,
        daemon_start_timeout_s=HANG_LIMIT_S,
        daemon_close_timeout_s=HANG_LIMIT_S,
        daemon_status_timeout_s=HANG_LIMIT_S,
        daemon_clear_timeout_s=HANG_LIMIT_S,
    )
    for module in ("client", "run_dir"):
        monkeypatch.setattr(f"circinus.serving.local.{module}.SERVING", patient)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run"
    yield path
    destroy(path)


async def deploy(client: LocalEngineClient) -> int:
    await client.apply(WHO)
    process: int = await ask(client, 0)
    return process


async def status(client: LocalEngineClient) -> EngineStatus:
    return await client.status()


def test_engine_outlives_its_client(folder: Path) -> None:
    program = (
        "import asyncio, pathlib, sys; from circinus.serving.local.client import start_daemon; "
        "from circinus.testing.desired_states import StageSpec, chain\n"
        "async def main():\n"
        "    client = start_daemon(pathlib.Path(sys.argv[1]))\n"
        "    await client.apply(chain('q', StageSpec('who', 'process_id')))\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, timeout=HANG_LIMIT_S)
    found, process = in_session(LocalEngineClient(folder), status, lambda client: ask(client, 0))
    assert found.healthy
    assert is_alive(process)


def test_second_start_joins_the_running_engine_and_destroy_ends_it(folder: Path) -> None:
    (process,) = in_session(start_daemon(folder), deploy)
    (again,) = in_session(start_daemon(folder), lambda client: client.apply(WHO))
    assert again is None
    (answer,) = in_session(LocalEngineClient(folder), lambda client: ask(client, 0))
    assert is_alive(process)
    assert is_alive(answer)
    (found,) = in_session(LocalEngineClient(folder), status)
    assert found.deployments[0].requests == 2
    engine = RunDirectory(folder).process()
    assert engine is not None
    assert is_alive(engine)
    assert destroy(folder), "ends everything and removes the folder"
    block_until(lambda: not is_alive(engine))
    assert not is_alive(process)
    assert not folder.exists()
    assert not destroy(folder)


def test_simultaneous_starts_share_one_engine(folder: Path) -> None:
    found: list[int | None] = []

    def start() -> None:
        start_daemon(folder)
        found.append(RunDirectory(folder).process())

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_LIMIT_S)
    assert len(found) == 3
    assert len(set(found)) == 1


def test_terminated_engine_ends_in_good_order(folder: Path) -> None:
    (process,) = in_session(start_daemon(folder), deploy)
    engine = engine_of(folder)
    os.kill(engine, signal.SIGTERM)
    block_until(lambda: not is_alive(engine) and not is_alive(process))
    assert not folder.exists()


def test_killed_engine_leaves_no_replica_and_is_reported_until_destroyed(folder: Path) -> None:
    (process,) = in_session(start_daemon(folder), deploy)
    engine = kill_engine(folder)
    block_until(lambda: not is_alive(process))
    with raises_code(ServingError, "engine.killed") as caught:
        in_session(LocalEngineClient(folder), status)
    assert f"process {engine}" in caught.value.message
    assert "deployments: 1, queries: q" in caught.value.message
    assert "circinus apply" in caught.value.hint
    assert destroy(folder)
    assert not folder.exists()
    with raises_code(ServingError, "engine.not_running"):
        in_session(LocalEngineClient(folder), status)


async def listen(client: LocalEngineClient) -> None:
    await client.listen_http(("127.0.0.1", 0))


def http_answer(base: str, path: str, token: str = "") -> tuple[int, Any]:
    """Return status and content of the answer to a POST of 20 to a URL of the engine."""
    connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=HANG_LIMIT_S)
    with closing(connection):
        connection.request("POST", path, b"20", {"authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, json.load(response)


def test_engine_takes_requests_over_http_at_one_address_until_it_is_closed(folder: Path) -> None:
    applied = chain("q", StageSpec("next", "add"), StageSpec("last", "add", after=("next",), pool="far"))
    (before,) = in_session(start_daemon(folder), status)
    assert before.http == ""
    _, _, _, found = in_session(LocalEngineClient(folder), listen, lambda client: client.apply(applied), listen, status)
    assert http_answer(found.http, "/home/q") == (200, 22)
    assert http_answer(found.http, "/home/nobody")[0] == 404
    kill_engine(folder)
    _, _, again = in_session(start_daemon(folder), listen, lambda client: client.apply(applied), status)
    assert again.http == found.http
    assert http_answer(again.http, "/home/q") == (200, 22)
    in_session(LocalEngineClient(folder), lambda client: client.listen_http(None))
    with pytest.raises(ConnectionRefusedError):
        http_answer(again.http, "/home/q")
    destroy(folder)
    assert not folder.exists()


def test_a_killed_engine_comes_back_with_its_tokens(folder: Path, tmp_path: Path) -> None:
    applied, token, file = chain("q", StageSpec("next", "add")), "t" * 32, tmp_path / "tokens"
    file.write_text(f"* {token}\n", encoding="ascii")
    file.chmod(0o600)
    handle = EngineHandle.of("local", folder, http_tokens=file)
    assert handle.start()
    (_, before) = in_session(LocalEngineClient(folder), lambda client: client.apply(applied), status)
    assert http_answer(before.http, "/home/q")[0] == 401
    assert http_answer(before.http, "/home/q", token) == (200, 21)
    kill_engine(folder)
    again = EngineHandle.of("local", folder)
    assert not again.start(), "if its apply fails, its end must not forget the tokens"
    (_, after) = in_session(LocalEngineClient(folder), lambda client: client.apply(applied), status)
    assert http_answer(after.http, "/home/q")[0] == 401
    assert http_answer(after.http, "/home/q", token) == (200, 21)
    saved = [path for path in folder.iterdir() if path.is_file() and token.encode() in path.read_bytes()]
    assert not saved, "a token is in a file"
    assert RunDirectory(folder).tokens.stat().st_mode & 0o777 == 0o600
    engine = engine_of(folder)
    assert token not in " ".join((*psutil.Process(engine).cmdline(), *psutil.Process(engine).environ().values()))
    file.write_text(f"* {token[::-1]}x\n", encoding="ascii")
    assert not handle.start()
    assert http_answer(after.http, "/home/q", token)[0] == 401, "a running engine has the new tokens at once"
    destroy(folder)
    assert not folder.exists()
    assert again.start(HttpTokens.parse(f"* {token}", "remembered by a controller"))
    (_, restored) = in_session(LocalEngineClient(folder), lambda client: client.apply(applied), status)
    assert [http_answer(restored.http, "/home/q", sent)[0] for sent in ("", token)] == [401, 200]


def test_an_engine_whose_last_thread_is_ending_is_replaced_not_joined(folder: Path) -> None:
    ending = RunDirectory(folder)
    ending.create()
    lock, listener = ending.try_lock(), ending.listen()
    assert lock is not None

    def end() -> None:
        with lock, listener:
            assert select.select([listener], [], [], HANG_LIMIT_S)[0], "somebody connects"

    thread = threading.Thread(target=end)
    thread.start()
    (found,) = in_session(start_daemon(folder), status)
    thread.join()
    assert found.routes == ()


def test_an_engine_does_not_start_without_the_tokens_of_the_killed_one(folder: Path) -> None:
    (_,) = in_session(start_daemon(folder), lambda client: client.require_tokens(HttpTokens.parse("* " + "t" * 32, "")))
    engine = RunDirectory(folder).process()
    assert engine is not None
    os.kill(engine, signal.SIGKILL)
    block_until(lambda: not is_alive(engine))
    for damage in ("* sha256:0", ""):
        RunDirectory(folder).tokens.write_text(damage, encoding="ascii")
        with raises_code(ServingError, "engine.not_started") as caught:
            start_daemon(folder)
        assert str(RunDirectory(folder).tokens) in caught.value.message
        assert "Traceback" not in caught.value.message


def test_address_in_use_is_refused_and_the_engine_keeps_its_own_and_files_of_others(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = other.getsockname()

        async def move(client: LocalEngineClient) -> None:
            with raises_code(ServingError, "engine.http_address"):
                await client.listen_http(address)

        _, before, _, after = in_session(start_daemon(folder), listen, status, move, status)
    assert after.http == before.http != ""
    (folder / "notes").write_text("mine")
    destroy(folder)
    assert [file.name for file in folder.iterdir()] == ["notes"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not end children with their parent")
def test_replicas_end_even_when_all_above_them_are_killed(folder: Path) -> None:
    (process,) = in_session(start_daemon(folder), deploy)
    fork_server = psutil.Process(process).parent()
    assert fork_server is not None
    for victim in (engine_of(folder), fork_server.pid):
        os.kill(victim, signal.SIGKILL)
    block_until(lambda: not is_alive(process))


def test_disconnecting_and_the_end_of_the_engine_end_the_requests_under_way(folder: Path, tmp_path: Path) -> None:
    barrier = tmp_path / "barrier"
    barrier.mkdir()

    async def leave_and_kill_meanwhile(client: LocalEngineClient) -> None:
        await client.apply(chain("q", StageSpec("meet", "Barrier", replicas=2)))
        task = asyncio.create_task(ask(client, {"folder": str(barrier), "parties": 1000}))
        await wait_until(lambda: has_files(barrier, 1))
        await client.disconnect()
        with raises_code(ServingError, "engine.disconnected"):
            await task
        assert (await client.status()).routes == ("q",), "disconnecting leaves the engine running"
        task = asyncio.create_task(ask(client, {"folder": str(barrier), "parties": 1000}))
        await wait_until(lambda: has_files(barrier, 2))
        engine = RunDirectory(folder).process()
        assert engine is not None
        os.kill(engine, signal.SIGKILL)
        with raises_code(ServingError, "engine.killed"):
            await task

    in_session(start_daemon(folder), leave_and_kill_meanwhile)


def test_silent_engine_is_not_taken_for_an_absent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient = replace(SERVING, daemon_close_timeout_s=0.02, daemon_status_timeout_s=0.02)
    monkeypatch.setattr("circinus.serving.local.client.SERVING", impatient)
    folder = RunDirectory(tmp_path / "run")
    folder.create()
    lock = folder.try_lock()
    assert lock is not None
    with lock, folder.listen():
        with raises_code(ServingError, "engine.silent"):
            destroy(folder.path)
        with raises_code(ServingError, "engine.silent"):
            in_session(LocalEngineClient(folder.path), status)


def test_destroy_of_a_folder_that_no_engine_had_does_nothing(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "log").write_text("precious")
    assert not destroy(mine)
    with raises_code(ServingError, "engine.not_started") as caught:
        start_daemon(mine)
    assert f"{mine}: the folder contains log" in caught.value.message
    assert (mine / "log").read_text() == "precious"
    assert not destroy(tmp_path / "none")


def test_folder_may_have_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20) / ("longer" * 20) / "run"
    try:
        (process,) = in_session(start_daemon(folder), deploy)
        assert is_alive(process)
    finally:
        destroy(folder)
    assert not folder.exists()


def test_start_that_fails_says_why(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with raises_code(ServingError, "engine.not_started") as caught:
        start_daemon(file)
    assert f"{file}: the path is a file" in caught.value.message
    with raises_code(ServingError, "engine.not_started") as caught:
        start_daemon(Path("/proc/self/run"))  # no folder can be created there
    assert "No such file" in caught.value.message


def test_lost_client_leaves_the_old_state(folder: Path, tmp_path: Path) -> None:
    """An apply is cancelled with its client, and the previous state stays deployed."""
    loading = tmp_path / "loading"
    (tmp_path / "slow_to_load.py").write_text(
        "import pathlib, time\nfrom circinus.operators import operator\n"
        f"@operator\nclass Slow:\n    def __init__(self):\n        pathlib.Path({str(loading)!r}).touch()\n"
        "        time.sleep(600)\n    def process(self, values):\n        return values\n"
    )

    async def loads() -> bool:
        return loading.exists()

    async def give_up(client: LocalEngineClient) -> None:
        state = chain("q", StageSpec("slow", "unused"))
        (wanted,) = state.deployments
        slow = {**vars(state), "module_paths": (tmp_path,)}
        slow["deployments"] = (type(wanted)(**{**vars(wanted), "uses": "slow_to_load:Slow"}),)
        task = asyncio.create_task(client.apply(type(state)(**slow)))
        await wait_until(loads)
        task.cancel()

    (process, _) = in_session(start_daemon(folder), deploy, give_up)
    found, answer = in_session(LocalEngineClient(folder), status, lambda client: ask(client, 0))
    assert found.healthy
    assert is_alive(process)
    assert is_alive(answer)
