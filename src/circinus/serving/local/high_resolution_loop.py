"""Timers of an event loop that are finer than a millisecond."""

from __future__ import annotations

import asyncio
import select
import selectors

if hasattr(selectors, "EpollSelector"):

    class _FineSelector(selectors.EpollSelector):
        """epoll as Python uses it waits for whole milliseconds, rounded up: half a millisecond late for every transfer
        over an emulated link. `select` on the epoll descriptor itself waits for microseconds.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > 0:
                select.select([self], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    _selector: type[selectors.BaseSelector] = _FineSelector
else:
    _selector = selectors.DefaultSelector


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop with fine timers, for `asyncio.Runner(loop_factory=...)`."""
    return asyncio.SelectorEventLoop(_selector())
