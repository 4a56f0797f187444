"""Emulation of links, and the router that sends values over emulated links."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from circinus.serving.router.compiled_route import RouteTransfer
from circinus.serving.router.request_messages import RouterMessage
from circinus.serving.router.router_core import RouterCore
from circinus.specification import DirectedLink


class LinkEmulator:
    """Emulator of links, which delays transfers by bandwidth, queueing and propagation.

    Over each link of its path in turn, a transfer waits until earlier ones have left, takes its size over the bandwidth
    to leave, and one one-way delay to arrive. Calls may be late by the resolution of timers, but all times are
    computed from due times, so that lateness does not accumulate along a path or a queue.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._free_at: dict[str, float] = {}
        """Name of a directed link -> time at which all earlier transfers have left."""

    def send(
        self, path: Sequence[DirectedLink], size_bytes: float, ready_s: float, arrived: Callable[[float], None]
    ) -> None:
        """Call `arrived` when `size_bytes` have crossed `path`; immediately if the path is empty.

        Args:
            path: the links, in order.
            size_bytes: size of the transfer.
            ready_s: time at which the data was available; not in the future.
            arrived: called with the arrival time of the last byte.
        """
        if not path:
            arrived(ready_s)
            return
        link, remaining_path = path[0], path[1:]
        start_s = max(ready_s, self._free_at.get(link.name, ready_s))
        departure_s = start_s + size_bytes / link.bandwidth_bytes_per_s
        self._free_at[link.name] = departure_s
        arrival_s = departure_s + link.one_way_s
        self._loop.call_at(arrival_s, self.send, remaining_path, size_bytes, arrival_s, arrived)


class EmulatedRouter(RouterCore):
    """Router of all sites, which are on one machine. Notes take no bandwidth."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__("local", loop)
        self._links = LinkEmulator(loop)
        self._notes: dict[float, list[RouterMessage]] = {}
        """Time of arrival -> notes on their way."""

    def _transmit(self, transfer: RouteTransfer, message: RouterMessage, size_bytes: float, ready_s: float) -> None:
        if not message.is_note:
            self._links.send(transfer.path, size_bytes, ready_s, partial(self.receive, message))
            return
        arrival_s = ready_s + sum(link.one_way_s for link in transfer.path)
        if arrival_s not in self._notes:  # timers of the same time call back in any order
            self._loop.call_at(arrival_s, self._receive_notes, arrival_s)
        self._notes.setdefault(arrival_s, []).append(message)

    def _receive_notes(self, arrival_s: float) -> None:
        for message in self._notes.pop(arrival_s):
            self.receive(message, arrival_s)
