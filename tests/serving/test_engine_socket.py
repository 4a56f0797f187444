"""Control socket of a background engine against other users, malformed frames and engines that do not respond."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest
from background_engine import block_until, engine_of, in_session

from budget import HANG_LIMIT_S
from circinus.errors import OverloadedError, ServingError
from circinus.operators.framing import encode
from circinus.serving.local.client import LocalEngineClient, destroy, start_daemon
from circinus.serving.local.daemon import ClientSession
from circinus.serving.local.rpc_protocol import REQUESTS_TO_ENGINE, RpcMethod, RpcRequest
from circinus.serving.local.run_dir import RunDirectory
from circinus.serving.settings import SERVING
from circinus.testing.desired_states import StageSpec, chain
from circinus.testing.engine_conformance import ask, is_alive
from cli_runner import run_circinus
from raised import raises_code

pytestmark = pytest.mark.slow

WHO = chain("q", StageSpec("who", "process_id"))
OTHER_USER = 65534
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "run"
    yield path
    destroy(path)


def let_others_enter(folder: Path) -> None:
    """Let other users enter a temporary folder and those that it is in."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 0o001:
            path.chmod(0o755)


FAKE_ENGINE = """
import os, pickle, socket, struct, sys
folder, proof, user = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
os.mkdir(folder, 0o755)
open(os.path.join(folder, "circinus-engine.lock"), "w").write(str(os.getpid()))
class Bomb:
    def __reduce__(self):
        return os.mkdir, (proof,)
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.path.join(folder, "socket"))
os.chmod(os.path.join(folder, "socket"), 0o777)
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    if connection.recv(65536):
        reply = pickle.dumps((1, "", Bomb()))
        connection.sendall(struct.pack("<II", len(reply), 0) + reply)
"""


@only_root
def test_engine_that_another_user_placed_is_not_talked_to(tmp_path: Path) -> None:
    workspace, proof = tmp_path / "workspace", tmp_path / "proof"
    run_folder = workspace / ".circinus" / "engine"
    run_folder.parent.mkdir(parents=True)
    for path in (run_folder.parent, *(parent for parent in run_folder.parents if parent.is_relative_to(tmp_path))):
        os.chown(path, OTHER_USER, OTHER_USER)
    let_others_enter(tmp_path)
    arguments = [sys.executable, "-c", FAKE_ENGINE, str(run_folder), str(proof), str(OTHER_USER)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as fake:
        try:
            assert fake.stdout is not None
            assert fake.stdout.readline() == "ready\n"
            for verb in ("status", "destroy"):
                run = run_circinus(verb, "--json", cwd=workspace)
                assert run.returncode == 1
                assert '"run_folder.foreign"' in run.stdout
            # The engine's user is checked, too, as the folder may have been this user's.
            for path in (run_folder, *run_folder.iterdir()):
                os.chown(path, 0, 0)
            (run_folder / "socket").chmod(0o600)
            with raises_code(ServingError, "run_folder.foreign"):
                in_session(LocalEngineClient(run_folder), LocalEngineClient.status)
            with raises_code(ServingError, "run_folder.foreign"):
                destroy(run_folder)
        finally:
            fake.kill()
    assert not proof.exists()


@only_root
def test_client_of_another_user_is_disconnected(folder: Path) -> None:
    start_daemon(folder)
    address = RunDirectory(folder).address
    program = (
        "import os, socket, sys\nclient = socket.socket(socket.AF_UNIX)\nos.setuid(int(sys.argv[1]))\n"
        "os.chdir('/')\nclient.connect(sys.argv[2])\n"
        "try:\n    client.sendall(bytes.fromhex(sys.argv[3]))\n    sys.exit(len(client.recv(1)))\n"
        "except ConnectionError:\n    pass\n"
    )
    request = b"".join(encode(RpcRequest(1, RpcMethod.CLOSE, None), codec=REQUESTS_TO_ENGINE)).hex()
    let_others_enter(folder)
    address.chmod(0o777)
    run = subprocess.run([sys.executable, "-c", program, str(OTHER_USER), str(address), request], check=False)
    address.chmod(0o600)
    assert run.returncode == 0
    in_session(LocalEngineClient(folder), lambda client: client.apply(WHO))


@contextmanager
def impatience() -> Iterator[None]:
    """Set times after which silence is noticed soon; the engine has its own settings."""
    short = replace(SERVING, daemon_status_timeout_s=0.1, daemon_close_timeout_s=0.1, replica_exit_timeout_s=0.5)
    with (
        patch("circinus.serving.local.client.SERVING", short),
        patch("circinus.serving.local.engine_process.SERVING", short),
    ):
        yield


def start_suspended(folder: Path) -> tuple[psutil.Process, int]:
    """Start an engine with a replica and suspend it; return its process, and that of the replica."""
    client = start_daemon(folder)
    _, replica = in_session(client, lambda client: client.apply(WHO), lambda client: ask(client, 0))
    engine = psutil.Process(engine_of(folder))
    suspend(engine)
    return engine, replica


def suspend(engine: psutil.Process) -> None:
    engine.suspend()
    block_until(lambda: engine.status() == psutil.STATUS_STOPPED)


def test_calls_to_a_suspended_engine_end_and_destroy_kills_it(folder: Path) -> None:
    engine, replica = start_suspended(folder)

    async def resume_meanwhile(client: LocalEngineClient) -> int:
        call = asyncio.create_task(ask(client, 0))
        await asyncio.sleep(0.1)
        engine.resume()
        process: int = await call
        return process

    assert in_session(LocalEngineClient(folder), resume_meanwhile) == [replica], "the call under way is answered"
    suspend(engine)
    killed: list[int] = []
    calls: list[Callable[[LocalEngineClient], Any]] = [
        *(lambda client: client.status(), lambda client: client.apply(WHO), lambda client: ask(client, 0)),
        *(lambda client: client.listen_http(None), lambda client: client.drain_audits(), lambda client: client.close()),
    ]
    with impatience():
        for call in calls:
            with raises_code(ServingError, "engine.silent") as caught:
                in_session(LocalEngineClient(folder), call)
            assert str(engine.pid) in caught.value.hint
        with ExitStack() as stack:  # with no room for further clients, connecting must not wait either
            while True:
                try:
                    connection = RunDirectory(folder).connect()
                except BlockingIOError:
                    break
                assert connection is not None
                stack.enter_context(connection)
            with raises_code(ServingError, "engine.silent"):
                in_session(LocalEngineClient(folder), lambda client: client.status())
        assert destroy(folder, killed.append)
    assert killed == [engine.pid]
    block_until(lambda: not is_alive(engine.pid) and not is_alive(replica))
    assert not folder.exists()


def test_destroy_kills_a_suspended_engine_with_its_suspended_replicas(folder: Path) -> None:
    engine, replica = start_suspended(folder)
    for child in engine.children(recursive=True):
        child.suspend()
    killed: list[int] = []
    with impatience():
        assert destroy(folder, killed.append)
    assert killed == [engine.pid]
    block_until(lambda: not is_alive(engine.pid) and not is_alive(replica))
    assert not folder.exists()


def test_process_that_is_no_engine_is_not_killed(folder: Path) -> None:
    run = RunDirectory(folder)
    run.create()
    lock = run.try_lock()
    assert lock is not None
    with lock, subprocess.Popen(["sleep", str(HANG_LIMIT_S)]) as other, run.listen():
        lock.write(str(other.pid))
        lock.flush()
        with impatience(), raises_code(ServingError, "engine.silent"):
            destroy(folder)
        assert other.poll() is None
        other.kill()


def raw_socket(folder: Path) -> socket.socket:
    while True:
        with suppress(BlockingIOError):
            connection = RunDirectory(folder).connect()
            assert connection is not None
            connection.settimeout(HANG_LIMIT_S)
            return connection


def frame(header: bytes, lengths: list[int] | None = None) -> bytes:
    lengths = lengths or []
    return struct.pack(f"<II{len(lengths)}Q", len(header), len(lengths), *lengths) + header


MALFORMED = {
    "header beyond the limit": struct.pack("<II", 2**32 - 1, 0),
    "count beyond the limit": struct.pack("<II", 0, 2**32 - 1),
    "payload of 4 GiB": frame(b"", [2**32])[:16],
    "payloads whose sum is beyond the limit": frame(b"", [2**30] * 3),
    "payload of 2**64 - 1 bytes": frame(b"", [2**64 - 1]),
    "pickle": frame(pickle.dumps((1, "status", None))),
    "no JSON": frame(b"{"),
    "nesting": frame(b"[" * 100_000),
    "empty header": frame(b""),
    "other JSON": frame(b"7"),
    "too few fields": frame(b'[1,"status"]'),
    "unknown method": frame(b'[1,"run",null]'),
    "id that is no number": frame(b'["1","status",null]'),
    "argument where there is none": frame(b'[1,"status",{"a":1}]'),
    "argument of another type": frame(b'[1,"submit",["q"]]') + b"",
    "request without a value": frame(b'[1,"submit",{"query":"q","item_key":"k","value":null,"input_bytes":1.0}]'),
    "number of 5,000 digits": frame(b"[" + b"9" * 5_000 + b',"status",null]'),
}


def test_malformed_frames_close_their_connection_and_nothing_else(folder: Path) -> None:
    start_daemon(folder)
    healthy = LocalEngineClient(folder)

    async def attack(client: LocalEngineClient) -> None:
        await client.apply(WHO)
        before = await ask(client, 0)
        for name, data in MALFORMED.items():
            with raw_socket(folder) as connection:
                connection.sendall(data)
                assert await asyncio.to_thread(connection.recv, 1) == b"", name
        generator = random.Random(28)
        for _ in range(20):
            with raw_socket(folder) as connection:
                connection.sendall(generator.randbytes(generator.randrange(1, 3000)))
        assert await ask(client, 0) == before
        assert (await client.status()).healthy

    in_session(healthy, attack)
    log = RunDirectory(folder).log.read_text()
    assert log.count("a connection was closed") >= len(MALFORMED)
    assert "Traceback" not in log


def test_memory_and_descriptors_of_the_engine_are_bounded(folder: Path) -> None:
    start_daemon(folder)
    in_session(LocalEngineClient(folder), lambda client: client.apply(WHO))
    engine = psutil.Process(engine_of(folder))
    ids = count(1)
    before_bytes, descriptors = engine.memory_info().rss, engine.num_fds()
    with ExitStack() as stack:
        for _ in range(100):  # each declares 2 GiB, and sends none of it
            half = stack.enter_context(raw_socket(folder))
            half.sendall(frame(b'[1,"submit",null]', [2 * 2**30 - 1]) + b"x" * 1000)
        mute = stack.enter_context(raw_socket(folder))  # reads no reply
        mute.setblocking(False)
        unsent, blocked = b"", 0
        refused = b'"submit",{"query":"%s","item_key":"k","value":null,"input_bytes":1.0}]' % (b"q" * 100_000)
        while blocked < 50:
            unsent = unsent or frame(b"[%d," % next(ids) + refused, [1]) + b"x"  # the reply has the name of the query
            try:
                unsent = unsent[mute.send(unsent) :]
                blocked = 0
            except BlockingIOError:
                blocked += 1
                time.sleep(0.01)
        for _ in range(300):  # with those above, more than the engine takes
            stack.enter_context(raw_socket(folder))
        with raises_code(ServingError, "engine.too_many_clients"):
            in_session(LocalEngineClient(folder), lambda client: client.status())
        assert engine.memory_info().rss - before_bytes < 100 * 2**20
        assert engine.num_fds() - descriptors < 300
    block_until(lambda: engine.num_fds() <= descriptors + 1)
    (answer,) = in_session(LocalEngineClient(folder), lambda client: ask(client, 0))
    assert is_alive(answer)


def test_an_engine_without_descriptors_says_so_once_a_second(folder: Path) -> None:
    start_daemon(folder)
    in_session(LocalEngineClient(folder), lambda client: client.listen_http(("127.0.0.1", 0)))
    address = RunDirectory(folder).http_address()
    assert address is not None
    engine = psutil.Process(engine_of(folder))
    limits = resource.prlimit(engine.pid, resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.prlimit(engine.pid, resource.RLIMIT_NOFILE, (engine.num_fds() + 1, limits[1]))
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(5)]
        block_until(lambda: "Too many open files" in RunDirectory(folder).log.read_text())
        time.sleep(0.5)  # the servers of asyncio fail a hundred times a second
        resource.prlimit(engine.pid, resource.RLIMIT_NOFILE, limits)
        clients[-1].sendall(b"GET /home/q HTTP/1.1\r\nhost: localhost\r\n\r\n")
        clients[-1].settimeout(HANG_LIMIT_S)
        assert clients[-1].recv(12) == b"HTTP/1.1 405"  # it serves again
    log = RunDirectory(folder).log.read_text()
    assert "Traceback" not in log
    assert log.count("Too many open files") < 20


def test_an_engine_ends_when_its_run_folder_is_removed(folder: Path) -> None:
    start_daemon(folder)
    replica, *_ = in_session(
        LocalEngineClient(folder), lambda client: client.apply(WHO), lambda client: ask(client, 0)
    )[1:]
    engine = psutil.Process(engine_of(folder))
    shutil.rmtree(folder)
    start_daemon(folder)  # of the same path, and not harmed
    block_until(lambda: not is_alive(engine.pid))
    assert not is_alive(replica)
    moved = folder.rename(folder.with_name("moved"))
    time.sleep(1.0)  # longer than it looks away
    (answer,) = in_session(LocalEngineClient(moved), lambda client: client.status())
    assert answer.healthy
    assert destroy(moved)


def test_an_engine_with_too_many_clients_is_ended(folder: Path) -> None:
    start_daemon(folder)
    engine, killed = psutil.Process(engine_of(folder)), list[int]()
    with ExitStack() as clients:
        for _ in range(256):
            clients.enter_context(raw_socket(folder))
        assert destroy(folder, killed.append)
    assert killed == []  # it could end its requests
    assert not is_alive(engine.pid)
    assert not folder.exists()


def test_an_error_of_the_engine_reaches_its_caller_whole(tmp_path: Path) -> None:
    sent = OverloadedError("full", retry_after_s=2.5, location="query q", hint="Wait.")

    async def refuse(*_: object) -> Any:
        raise sent

    async def drive() -> None:
        here, there = socket.socketpair()
        session = ClientSession(asyncio.get_running_loop(), there, refuse, lambda _: None)
        client = LocalEngineClient(tmp_path / "run")
        with patch.object(RunDirectory, "connect", lambda _: here), raises_code(OverloadedError, sent.code) as caught:
            await client.status()
        assert vars(caught.value) == vars(sent)
        await client.disconnect()
        await session.finish()

    asyncio.run(drive())
