"""Driving an engine through one test of `circinus.serving.conformance`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from circinus.serving.engine import Engine, Request, Response

PATIENCE_S = 60.0
_P = ParamSpec("_P")
_Self = TypeVar("_Self")
_Test = Callable[Concatenate[_Self, Engine, _P], Coroutine[Any, Any, None]]


def run_async_test(test: _Test[_Self, _P]) -> Callable[..., None]:
    """Run a test in an event loop of its own, and close the engine after it."""

    @wraps(test)
    def run(self: _Self, engine: Engine, *args: _P.args, **kwargs: _P.kwargs) -> None:
        async def test_then_close() -> None:
            try:
                await asyncio.wait_for(test(self, engine, *args, **kwargs), 2 * PATIENCE_S)
            finally:
                await engine.close()

        asyncio.run(test_then_close())

    return run


async def ask(engine: Engine, value: Any, query: str = "q", key: str = "item") -> Any:
    """The output for one request."""
    return (await respond(engine, value, query, key)).output


async def respond(engine: Engine, value: Any, query: str = "q", key: str = "item") -> Response:
    """The response to one request."""
    return await engine.submit(Request(query, key, value, input_bytes=100.0))


async def wait_until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Wait until `condition` holds; fails when it does not within a minute."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline_s, f"{condition} did not come true within {PATIENCE_S:g} s"
        await asyncio.sleep(0.005)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that ended and was not yet collected by its parent does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    if not status.parent.parent.joinpath("self").exists():
        return True
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
