"""Recursions against a plain simulation that knows nothing of them, event by event."""

from __future__ import annotations

import heapq
import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circinus.queueing import fcfs, fcfs_kernel, fcfs_loops
from circinus.queueing.fcfs import Station, serve_fcfs

times = st.lists(st.floats(0.0, 20.0, width=32), max_size=40)
services = st.lists(st.floats(0.0, 3.0, width=32), min_size=40, max_size=40)
stations = st.builds(
    lambda servers, size, more, wait: Station("s", servers, tuple(1.0 + more * k for k in range(size)), wait),
    st.integers(1, 5),
    st.integers(1, 4),
    st.floats(0.0, 1.0),
    st.sampled_from([0.0, 0.0, 0.5, 2.0]),
)


def _by_events(station: Station, arrivals: list[float], alone: list[float]) -> list[tuple[float, float, int]]:
    """(start, end, fill) of every request, found by looking at the station whenever anything happens."""
    found: list[tuple[float, float, int]] = []
    free = [0.0] * station.servers
    waiting: list[tuple[float, float]] = []
    moments = sorted(set(arrivals) | {0.0})
    heapq.heapify(moments)
    coming = list(zip(arrivals, alone, strict=True))
    while moments:
        now = heapq.heappop(moments)
        while coming and coming[0][0] <= now:
            waiting.append(coming.pop(0))
        while waiting and min(free) <= now:
            due = waiting[0][0] + station.batch_wait_s
            if len(waiting) < station.batch_size and now < due:
                heapq.heappush(moments, due)
                break
            batch, waiting = waiting[: station.batch_size], waiting[station.batch_size :]
            end = now + station.batch_time_ratios[len(batch) - 1] * sum(s for _, s in batch) / len(batch)
            free[free.index(min(free))] = end
            heapq.heappush(moments, end)
            found += [(now, end, len(batch))] * len(batch)
    return found


@given(stations, times, services)
def test_a_station_serves_as_if_watched_event_by_event(
    station: Station, arrivals: list[float], alone: list[float]
) -> None:
    arrivals = sorted(arrivals)
    alone = alone[: len(arrivals)]
    expected = _by_events(station, arrivals, alone)
    for loops in (fcfs_loops, fcfs_kernel):
        with mock.patch.object(fcfs, "_loops", lambda _, loops=loops: loops):
            served = serve_fcfs(station, [0.0] * station.servers, np.array(arrivals), np.array(alone))
        np.testing.assert_allclose(served.start_s, [start for start, _, _ in expected], atol=1e-9)
        np.testing.assert_allclose(served.end_s, [end for _, end, _ in expected], atol=1e-9)


@example(Station("s", 1, (1.0, 1.5, 2.0), 2.0), [0.0, 1.0, 5.0], [1.0] * 40, [1.5])  # a batch that does not begin yet
@given(stations, times, services, st.lists(st.floats(0.0, 40.0), max_size=5))
def test_windows_of_time_change_nothing(
    station: Station, arrivals: list[float], alone: list[float], ends: list[float]
) -> None:
    arrival_s, service_s = np.sort(np.array(arrivals)), np.array(alone[: len(arrivals)])
    at_once = serve_fcfs(station, [0.0] * station.servers, arrival_s, service_s)
    free_s = [0.0] * station.servers
    begun, starts = 0, []
    for until_s in [*sorted(ends), math.inf]:
        come = int(np.searchsorted(arrival_s, until_s))
        served = serve_fcfs(station, free_s, arrival_s[begun:come], service_s[begun:come], until_s)
        assert (served.start_s < until_s).all()
        starts.append(served.start_s)
        begun += len(served.start_s)
    np.testing.assert_allclose(np.concatenate(starts), at_once.start_s, atol=1e-9)


def test_a_batch_begins_when_it_is_full_or_the_oldest_has_waited_enough() -> None:
    station = Station("s", 1, (1.0, 1.0, 1.0), batch_wait_s=2.0)
    served = serve_fcfs(station, [0.0], np.array([0.0, 0.5, 1.0, 4.0]), np.ones(4))
    np.testing.assert_allclose(served.start_s, [1.0, 1.0, 1.0, 6.0])
    np.testing.assert_array_equal(served.fill, [3, 3, 3, 1])


@pytest.mark.parametrize("servers", [1, 3])
def test_nobody_is_nothing(servers: int) -> None:
    served = serve_fcfs(Station("s", servers), [0.0] * servers, np.zeros(0), np.zeros(0))
    assert len(served.start_s) == len(served.end_s) == len(served.fill) == 0
