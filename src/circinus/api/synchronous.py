"""Coroutines run from synchronous code, also inside a running event loop such as a notebook's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def outside_loop(function: Callable[[], T], cancel: Callable[[], None] = lambda: None) -> T:
    """Call a function that starts an event loop, in another thread if this thread runs a loop already.

    Args:
        function: function to call.
        cancel: makes the function return early, when this thread is interrupted while it waits for the other.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(function)
        try:
            return future.result()
        except KeyboardInterrupt:
            cancel()
            raise


def run(
    coroutine: Callable[[], Coroutine[Any, Any, T]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    cancel: Callable[[], None] = lambda: None,
) -> T:
    """Run a coroutine function to its end in an event loop of its own, and return its result."""

    def in_own_loop() -> T:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(coroutine())

    return outside_loop(in_own_loop, cancel)
