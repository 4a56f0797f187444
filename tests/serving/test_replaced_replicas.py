"""Replicas of the local engine that hang, end or grow: they are replaced, and requests are answered or fail."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pytest

from budget import HANG_LIMIT_S
from circinus.errors import ServingError
from circinus.serving.engine import TIMED_OUT, DeploymentStatus, DesiredState
from circinus.serving.local.engine import LocalEngine
from circinus.serving.settings import SERVING
from circinus.testing.desired_states import StageSpec, chain
from circinus.testing.engine_conformance import ask, is_alive, wait_until
from raised import raises_code

pytestmark = pytest.mark.slow

OPERATORS = """
import os, pathlib, time
from circinus.operators import operator

kept = []

@operator
class Act:
    def __init__(self):
        while pathlib.Path(__file__).with_name("closed").exists():
            raise RuntimeError("closed")

    def process(self, values):
        return [act(value) for value in values]

def act(value):
    if value == "sleep":
        time.sleep(1e9)
    while value == "spin":
        pass
    if value == "future":
        time.monotonic = lambda: 1e18
    if value == "grow":
        kept.append(b"x" * 2**28)
    return os.getpid()
"""


@pytest.fixture(autouse=True)
def _soon() -> Iterator[None]:
    """Notice sooner what hangs, grows or is not told of; the fork server has the usual settings."""
    short = replace(SERVING, watch_period_s=0.1, replica_exit_timeout_s=1.0)
    with (
        patch("circinus.serving.local.engine.SERVING", short),
        patch("circinus.serving.local.replica_handle.SERVING", short),
    ):
        yield


def _driven(folder: Path, body: Callable[[LocalEngine], Coroutine[Any, Any, None]], **changes: Any) -> None:
    (folder / "operators_that_hang.py").write_text(OPERATORS)
    state = chain("q", StageSpec("first", "unused"))
    wanted = replace(state.deployments[0], uses="operators_that_hang:Act", **changes)
    state: DesiredState = replace(state, deployments=(wanted,), module_paths=(folder,))

    async def drive() -> None:
        engine = LocalEngine()
        try:
            await engine.apply(state)
            async with asyncio.timeout(HANG_LIMIT_S):
                await body(engine)
        finally:
            await engine.close()

    asyncio.run(drive())


def test_a_suspended_fork_server_is_replaced_when_a_replica_ends(tmp_path: Path) -> None:
    async def suspend(engine: LocalEngine) -> None:
        replica = await ask(engine, 0)
        server = psutil.Process(replica).parent()
        assert server is not None
        server.suspend()
        os.kill(replica, signal.SIGKILL)

        async def is_missed() -> bool:
            return not (await _status(engine)).replicas_ready

        await wait_until(is_missed)
        assert await ask(engine, 0) != replica
        assert not server.is_running()

    _driven(tmp_path, suspend)


async def _status(engine: LocalEngine) -> DeploymentStatus:
    return (await engine.status()).deployments[0]


@pytest.mark.parametrize("way", ["sleep", "spin", "stop"])
def test_a_replica_that_hangs_is_replaced_and_its_batch_fails_with_the_reason(tmp_path: Path, way: str) -> None:
    async def hang(engine: LocalEngine) -> None:
        process = await ask(engine, 0)  # the first batch of a replica has a longer limit
        if way == "stop":
            os.kill(process, signal.SIGSTOP)
        first = asyncio.create_task(ask(engine, way))
        later = [asyncio.create_task(ask(engine, 0)) for _ in range(11)]
        with raises_code(ServingError, TIMED_OUT):
            await first
        (other,) = set(await asyncio.gather(*later))
        assert other != process
        assert not is_alive(process)
        status = await _status(engine)
        assert (status.timeouts, status.restarts, status.replicas_ready) == (1, 1, 1)
        assert "longer than 1 s" in status.message

    _driven(tmp_path, hang, batch_limit_s=1.0)


def test_the_first_batch_of_each_replica_may_take_longer(tmp_path: Path) -> None:
    """It may compile, however quick that of another one was."""

    async def hang_at_first(engine: LocalEngine) -> None:
        await ask(engine, 0)  # the other replica is next
        waiting = asyncio.create_task(ask(engine, "sleep"))
        await asyncio.wait([waiting], timeout=1.0)
        assert not waiting.done()
        assert (await _status(engine)).timeouts == 0
        waiting.cancel()

    assert SERVING.first_batch_limit_s > 10.0
    _driven(tmp_path, hang_at_first, batch_limit_s=0.1, replicas=2)


def test_an_operator_that_changes_its_clock_goes_on(tmp_path: Path) -> None:
    async def change(engine: LocalEngine) -> None:
        process = await ask(engine, "future")
        assert [await ask(engine, 0) for _ in range(3)] == [process] * 3

    _driven(tmp_path, change)


def test_a_replica_whose_memory_grows_is_replaced_between_batches(tmp_path: Path) -> None:
    async def grow(engine: LocalEngine) -> None:
        for _ in range(SERVING.warm_up_batches + 1):
            process = await ask(engine, 0)
        assert await ask(engine, "grow") == process

        async def is_replaced() -> bool:
            status = await _status(engine)
            return status.restarts == 1 and status.replicas_ready == 1

        await wait_until(is_replaced)
        assert await ask(engine, 0) != process
        assert "memory" in (await _status(engine)).message

    _driven(tmp_path, grow, memory_bytes=2.0**20)


def test_requests_wait_for_the_replacement_of_the_only_replica(tmp_path: Path) -> None:
    async def lose(engine: LocalEngine) -> None:
        process = await ask(engine, 0)
        (tmp_path / "closed").touch()
        os.kill(process, signal.SIGKILL)

        async def could_not_start() -> bool:
            return "closed" in (await _status(engine)).message

        meanwhile = [asyncio.create_task(ask(engine, 0)) for _ in range(50)]
        await wait_until(could_not_start)
        (tmp_path / "closed").unlink()
        assert len(set(await asyncio.gather(*meanwhile)) - {process}) == 1

    _driven(tmp_path, lose)


def test_the_status_warns_of_memory_after_a_restart_too(tmp_path: Path) -> None:
    async def grow(engine: LocalEngine) -> None:
        os.kill(await ask(engine, 0), signal.SIGKILL)
        await ask(engine, "grow")  # its memory after the first batches is no reason for another replica

        async def is_warned() -> bool:
            message = (await _status(engine)).message
            return "SIGKILL" in message and "are planned" in message

        await wait_until(is_warned)

    _driven(tmp_path, grow, memory_bytes=2.0**20)
