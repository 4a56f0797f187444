"""Schedules in order of latest starts against a simulation that looks at the station whenever anything happens."""

from __future__ import annotations

import heapq
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.queueing.edf import EdfSchedule, serve_edf
from circinus.queueing.fcfs import Station, serve_fcfs

Request = tuple[float, float, float, bool]
"""(arrival, unbatched service, time from the arrival to the latest start, whether it is dropped if late)"""
requests = st.lists(
    st.tuples(
        st.one_of(st.floats(0.0, 20.0, width=32), st.integers(0, 40).map(lambda quarters: quarters / 4)),
        st.sampled_from([0.25, 0.5, 0.75, 1.0, 3.0]),
        st.sampled_from([0.0, 0.5, 1.0, 4.0, 4.0, 4.0, math.inf]),
        st.sampled_from([False, False, True]),
    ),
    max_size=40,
).map(sorted)
stations = st.builds(
    lambda servers, size, more, wait: Station("s", servers, tuple(1.0 + more * k for k in range(size)), wait),
    st.sampled_from([1, 1, 2, 4]),
    st.sampled_from([1, 1, 2, 4]),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([0.0, 0.0, 0.5, 2.0]),
)


def _by_events(
    station: Station, requests: list[Request]
) -> tuple[dict[int, tuple[float, float, int]], dict[int, float]]:
    """(start, end, fill) of every served request, and the time of every drop."""
    arrivals = [arrival for arrival, *_ in requests]
    latest = [arrival + slack for arrival, _, slack, _ in requests]
    served: dict[int, tuple[float, float, int]] = {}
    dropped: dict[int, float] = {}
    free = [0.0] * station.servers
    waiting: list[int] = []
    moments = sorted(set(arrivals) | {0.0})
    coming = list(range(len(arrivals)))
    while moments:
        now = heapq.heappop(moments)
        while coming and arrivals[coming[0]] <= now:
            waiting.append(coming.pop(0))
        while waiting and min(free) <= now:
            due = arrivals[waiting[0]] + station.batch_wait_s
            if len(waiting) < station.batch_size and now < due:
                heapq.heappush(moments, due)
                break
            late = [one for one in waiting if requests[one][3] and latest[one] < now]
            dropped |= dict.fromkeys(late, now)
            waiting = [one for one in waiting if one not in late]
            if late:
                continue
            batch = sorted(waiting, key=lambda one: latest[one])[: station.batch_size]
            waiting = [one for one in waiting if one not in batch]
            end = now + station.batch_time_ratios[len(batch) - 1] * sum(requests[one][1] for one in batch) / len(batch)
            free[free.index(min(free))] = end
            heapq.heappush(moments, end)
            served |= dict.fromkeys(batch, (now, end, len(batch)))
    return served, dropped


def _served(schedule: EdfSchedule, numbers: np.ndarray) -> dict[int, tuple[float, float, int]]:
    times = schedule.served
    columns = (times.start_s.tolist(), times.end_s.tolist(), times.fill.tolist())
    return dict(zip(numbers[schedule.started].tolist(), zip(*columns, strict=True), strict=True))


def _columns(requests: list[Request]) -> tuple[np.ndarray, ...]:
    arrival_s, service_s, slack_s, drops_late = np.array(requests).reshape(-1, 4).T
    return arrival_s, service_s, arrival_s + slack_s, drops_late > 0


@given(stations, requests, st.lists(st.floats(0.0, 40.0), max_size=4))
def test_the_earliest_latest_start_is_first_in_windows_too(
    station: Station, requests: list[Request], ends: list[float]
) -> None:
    expected, expected_drops = _by_events(station, requests)
    columns = _columns(requests)
    free_s = [0.0] * station.servers
    waiting = np.zeros(0, dtype=np.int64)
    come = 0
    served: dict[int, tuple[float, float, int]] = {}
    dropped: dict[int, float] = {}
    for until_s in [*sorted(ends), math.inf]:
        before, come = come, int(np.searchsorted(columns[0], until_s))
        now = np.concatenate((waiting, np.arange(before, come)))
        schedule = serve_edf(station, free_s, *(column[now] for column in columns), until_s)
        assert (schedule.served.start_s < until_s).all()
        assert (np.diff(schedule.served.start_s) >= 0).all()
        served |= _served(schedule, now)
        dropped |= dict(zip(now[schedule.dropped].tolist(), schedule.dropped_s.tolist(), strict=True))
        waiting = now[schedule.remaining(len(now))]
    assert not len(waiting)
    assert dropped.keys() == expected_drops.keys()
    assert served.keys() == expected.keys()
    np.testing.assert_allclose([dropped[one] for one in sorted(dropped)], [*map(expected_drops.get, sorted(dropped))])
    np.testing.assert_allclose([served[one] for one in sorted(served)], [expected[one] for one in sorted(served)])


@given(stations, requests)
def test_equal_limits_are_served_in_order_of_arrival(station: Station, requests: list[Request]) -> None:
    arrival_s, service_s, *_ = _columns(requests)
    free_s = [0.0] * station.servers
    schedule = serve_edf(
        station, free_s, arrival_s, service_s, arrival_s + 1.0, np.zeros(len(requests), dtype=np.bool_)
    )
    fcfs = serve_fcfs(station, [0.0] * station.servers, arrival_s, service_s)
    assert isinstance(schedule.started, slice)
    np.testing.assert_array_equal(schedule.served.start_s, fcfs.start_s)
