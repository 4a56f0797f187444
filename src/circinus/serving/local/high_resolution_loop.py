"""Event loop whose timers are finer than a millisecond."""

from __future__ import annotations

import asyncio
import select
import selectors

_COARSE_S = 0.002
"""Time before the end of a wait that milliseconds are too coarse for."""

if hasattr(selectors, "EpollSelector"):

    class _FineSelector(selectors.EpollSelector):
        """Selector with microsecond timeouts.

        Python's epoll selector rounds timeouts up to milliseconds, which delays each transfer over an emulated link by
        0.5 ms on average. `select` on the epoll descriptor waits for microseconds, at the price of another system call,
        so it waits for the last milliseconds only: the loop selects again if nothing happened before.
        """

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is not None and timeout > _COARSE_S:
                return super().select(timeout - _COARSE_S)
            if timeout is not None and timeout > 0:
                select.select([self], [], [], timeout)
                timeout = 0
            return super().select(timeout)

    _selector: type[selectors.BaseSelector] = _FineSelector
else:
    _selector = selectors.DefaultSelector


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop with fine timers, for `asyncio.Runner(loop_factory=...)`."""
    return asyncio.SelectorEventLoop(_selector())
