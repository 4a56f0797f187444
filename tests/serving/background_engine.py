"""Steps of tests of an engine in the background."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from budget import HANG_LIMIT_S
from circinus.serving.local.client import LocalEngineClient
from circinus.serving.local.run_dir import RunDirectory
from circinus.testing.engine_conformance import is_alive


def in_session(client: LocalEngineClient, *steps: Callable[[LocalEngineClient], Any]) -> list[Any]:
    """Return the results of coroutine functions of the client, in one event loop; the engine is left running."""

    async def session() -> list[Any]:
        try:
            return [await step(client) for step in steps]
        finally:
            await client.disconnect()

    return asyncio.run(session())


def engine_of(folder: Path) -> int:
    """Return the process id of the engine of a run folder."""
    process = RunDirectory(folder).process()
    assert process is not None
    return process


def kill_engine(folder: Path) -> int:
    """Kill the engine of a run folder, and return its process id when it has ended."""
    engine = engine_of(folder)
    os.kill(engine, signal.SIGKILL)
    block_until(lambda: not is_alive(engine))
    return engine


def block_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + HANG_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
