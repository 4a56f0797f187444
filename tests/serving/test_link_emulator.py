"""Emulated links on a test clock."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.local.link_emulator import LinkEmulator
from circinus.specification import DirectedLink


class Clock(asyncio.AbstractEventLoop):
    """Clock that calls due callbacks in order as time advances, each one `late_s` late."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.late_s = late_s
        self._calls: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._order = count()

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        heapq.heappush(self._calls, (when + self.late_s, next(self._order), callback, args))

    def run_all(self, until_s: float = float("inf")) -> None:
        while self._calls and self._calls[0][0] <= until_s:
            self.now_s, _, callback, args = heapq.heappop(self._calls)
            callback(*args)
        if until_s < float("inf"):
            self.now_s = until_s


def link(source: str, target: str, bandwidth: float, one_way_s: float = 0.0) -> DirectedLink:
    return DirectedLink(source, target, bandwidth, one_way_s, 0.0)


def arrivals(clock: Clock, sends: list[tuple[float, tuple[DirectedLink, ...], float]]) -> list[float]:
    """Return the arrival time of each (time, path, bytes)."""
    links = LinkEmulator(clock)
    arrived_s = [float("nan")] * len(sends)

    def arrive(index: int) -> None:
        arrived_s[index] = clock.now_s

    for index, (when, path, size_bytes) in enumerate(sends):
        clock.call_at(
            when, lambda i=index, p=path, b=size_bytes: links.send(p, b, clock.now_s, lambda arrived_s: arrive(i))
        )
    clock.run_all()
    return arrived_s


def test_one_transfer_takes_its_size_over_the_bandwidth_and_a_delay() -> None:
    assert arrivals(Clock(), [(1.0, (link("a", "b", 100.0, 0.25),), 50.0)]) == [1.75]


def test_nothing_to_cross_takes_no_time() -> None:
    assert arrivals(Clock(), [(1.0, (), 1e9)]) == [1.0]


def test_transfers_share_a_link_in_order_of_arrival() -> None:
    shared = (link("a", "b", 100.0, 0.5),)
    assert arrivals(Clock(), [(0.0, shared, 100.0), (0.0, shared, 100.0), (5.0, shared, 100.0)]) == [1.5, 2.5, 6.5]


def test_two_flows_get_half_the_bandwidth_each() -> None:
    shared, period_s = (link("a", "b", 1000.0),), 1.0
    flow = [(period_s * i, shared, 500.0) for i in range(100)]
    alone = arrivals(Clock(), flow)
    assert [a - s for a, (s, _, _) in zip(alone, flow, strict=True)] == pytest.approx([0.5] * 100)
    together = arrivals(Clock(), [send for pair in zip(flow, flow, strict=True) for send in pair])
    assert max(together) == pytest.approx(100.0)  # 100,000 bytes keep the link busy all the time
    assert together[1::2] == pytest.approx([period_s * i + 1.0 for i in range(100)])


def test_directions_do_not_compete() -> None:
    there, back = (link("a", "b", 100.0),), (link("b", "a", 100.0),)
    assert arrivals(Clock(), [(0.0, there, 100.0), (0.0, back, 100.0)]) == [1.0, 1.0]


def test_path_crosses_its_links_one_after_the_other() -> None:
    path = (link("a", "b", 100.0, 0.1), link("b", "c", 50.0, 0.2))
    assert arrivals(Clock(), [(0.0, path, 100.0)]) == pytest.approx([1.0 + 0.1 + 2.0 + 0.2])


def test_second_link_serves_in_order_of_arrival_there() -> None:
    last = link("b", "c", 100.0)
    slow_first = (link("a", "b", 100.0, 10.0), last)
    assert arrivals(Clock(), [(0.0, slow_first, 100.0), (0.0, (last,), 100.0)]) == pytest.approx([12.0, 1.0])


def test_lateness_of_the_timer_does_not_add_up() -> None:
    path = tuple(link(str(i), str(i + 1), 100.0, 0.0) for i in range(10))
    (arrived_s,) = arrivals(Clock(late_s=0.001), [(0.0, path, 100.0)])
    assert arrived_s == pytest.approx(10.0 + 0.002)  # late when it was sent, and late at the end


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1000)), min_size=1, max_size=20),
    st.floats(1, 1000),
    st.floats(0, 1),
)
def test_link_is_a_queue_with_one_server(sends: list[tuple[float, float]], bandwidth: float, delay_s: float) -> None:
    """Compare with the Lindley recursion of departures from a first-come-first-served server."""
    sends = sorted(sends, key=lambda send: send[0])
    path = (link("a", "b", bandwidth, delay_s),)
    arrived_s = arrivals(Clock(), [(when, path, size) for when, size in sends])
    free_s = 0.0
    for (when, size), there_s in zip(sends, arrived_s, strict=True):
        free_s = max(free_s, when) + size / bandwidth
        assert there_s == pytest.approx(free_s + delay_s)
