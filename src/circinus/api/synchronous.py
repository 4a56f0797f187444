"""Coroutines run from synchronous code, also inside a running event loop such as a notebook's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run(
    coroutine: Callable[[], Coroutine[Any, Any, T]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a coroutine function to its end in an event loop of its own, and return its result.

    If this thread runs an event loop already, another thread runs the coroutine.
    """

    def run_here() -> T:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(coroutine())

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_here()
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(run_here).result()
