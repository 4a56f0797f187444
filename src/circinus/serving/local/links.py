"""Emulated links: every direction of a link is one queue in order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from circinus.spec import DirectedLink


class Timer(Protocol):
    """Time and calls in the future: an event loop, or a test's clock."""

    def time(self) -> float:
        """Seconds."""
        ...

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Any:
        """Call `callback(*args)` at `when`."""
        ...


class LinkEmulator:
    """Delays transfers as the links of their path would.

    Over each link in turn a transfer waits until those before it have left, takes its size over the bandwidth to leave,
    and one one-way delay to arrive. Calls may come late by the resolution of the timer; the times that are computed
    with are the due ones, so lateness does not add up along a path or a queue.
    """

    def __init__(self, timer: Timer) -> None:
        self._timer = timer
        self._free_at: dict[str, float] = {}
        """Name of a directed link -> when everything sent over it so far has left."""

    def send(
        self, path: Sequence[DirectedLink], size_bytes: float, due_s: float, arrived: Callable[[float], None]
    ) -> None:
        """Call `arrived` when `size_bytes` have crossed `path`; at once when it is empty.

        Args:
            path: the links, in order.
            size_bytes: what is sent.
            due_s: when it was there to be sent; not in the future.
            arrived: told when the last byte was due to arrive.
        """
        if not path:
            arrived(due_s)
            return
        link, rest = path[0], path[1:]
        begin_s = max(due_s, self._free_at.get(link.name, due_s))
        left_s = begin_s + size_bytes / link.bandwidth_bytes_per_s
        self._free_at[link.name] = left_s
        next_s = left_s + link.one_way_s
        self._timer.call_at(next_s, self.send, rest, size_bytes, next_s, arrived)
