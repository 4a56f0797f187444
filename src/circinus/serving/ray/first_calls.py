"""Calls that are made before the first request needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable


class WarmupCalls:
    """Calls everybody once.

    The first call to a deployment of Ray Serve finds out where its replicas are and connects to one: some round trips
    to the cluster's head, which a request had better not wait for.
    """

    def __init__(self, call: Callable[[str], Awaitable[object]], patience_s: float) -> None:
        """Nobody was called yet.

        Args:
            call: calls one by name; may raise anything.
            patience_s: how long to wait for those that do not answer.
        """
        self._call = call
        self._patience_s = patience_s
        self._known: set[str] = set()

    async def make(self, names: Iterable[str]) -> None:
        """Call those that have never answered, all at once; who does not answer now is called again next time."""
        waiting = {asyncio.ensure_future(self._call(name)): name for name in set(names) - self._known}
        if not waiting:
            return
        await asyncio.wait(waiting, timeout=self._patience_s)
        for call in waiting:
            call.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        self._known |= {
            name for name, answer in zip(waiting.values(), ended, strict=True) if not isinstance(answer, BaseException)
        }
