"""Coroutines run from synchronous code, also inside a running event loop such as a notebook's.

Every workspace imports this module, and asyncio is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


def outside_loop(function: Callable[[], T], cancel: Callable[[], None] = lambda: None) -> T:
    """Call a function that starts an event loop, in another thread if this thread runs a loop already.

    Args:
        function: function to call.
        cancel: makes the function return early, when this thread is interrupted while it waits for the other.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    with ThreadPoolExecutor(1) as executor:
        try:
            return executor.submit(function).result()
        except KeyboardInterrupt:
            cancel()
            raise


def run(
    coroutine: Callable[[], Coroutine[Any, Any, T]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    cancel: Callable[[], None] | None = None,
) -> T:
    """Run a coroutine function to its end in an event loop of its own, and return its result.

    Args:
        coroutine: coroutine function without arguments.
        loop_factory: maker of the event loop.
        cancel: makes the coroutine return early, after an interruption; by default its task is cancelled.
    """
    import asyncio

    cancels: list[Callable[[], object]] = []

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is not None:
            cancels.append(lambda: loop.call_soon_threadsafe(task.cancel))
        return await coroutine()

    def cancel_task() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            for cancel_now in cancels:
                cancel_now()

    def in_own_loop() -> T:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(cancellable())

    return outside_loop(in_own_loop, cancel or cancel_task)
