"""Traffic in phases, and requests answered in time."""

from __future__ import annotations

import math

import pytest
from benchmarks.workloads.traffic import Phase, lost, phased_arrivals, recorded_requests, share_in_time, within

from circinus.operators import Item
from circinus.serving import Response, ResponseTimings
from circinus.serving.loadtest.open_loop import RequestOutcome

ANSWERED = Response(None, ResponseTimings(0.1, {}, {}, {}))


def test_every_phase_has_its_rate_and_its_time() -> None:
    phases = (Phase(100.0, 1.0), Phase(50.0, 5.0), Phase(100.0, 0.5))
    found = phased_arrivals({"a": 2.0, "b": 4.0}, phases, seed=3)
    assert list(found) == sorted(found)
    for query, rate in (("a", 2.0), ("b", 4.0)):
        begin_s = 0.0
        for phase in phases:
            expected = rate * phase.factor * phase.duration_s
            count = sum(
                begin_s <= arrival.time_s < begin_s + phase.duration_s for arrival in found if arrival.query == query
            )
            assert abs(count - expected) < 5 * math.sqrt(expected)
            begin_s += phase.duration_s
    assert phased_arrivals({"a": 2.0, "b": 4.0}, phases, seed=3) == found
    assert phased_arrivals({"a": 2.0, "b": 4.0}, phases, seed=4) != found


def test_equal_phases_are_not_the_same_draw() -> None:
    found = phased_arrivals({"a": 5.0}, (Phase(10.0, 1.0), Phase(10.0, 1.0)), seed=0)
    first = [arrival.time_s for arrival in found if arrival.time_s < 10.0]
    second = [arrival.time_s - 10.0 for arrival in found if arrival.time_s >= 10.0]
    assert first != pytest.approx(second)


def test_items_come_in_turns_for_each_query() -> None:
    items = [Item(str(number), "text", None) for number in range(4)]
    arrivals = phased_arrivals({"a": 3.0, "b": 3.0}, (Phase(20.0, 1.0),), seed=0)
    requests = recorded_requests(arrivals, items, seed=0)
    assert [request.query for request in requests] == [arrival.query for arrival in arrivals]
    for query in ("a", "b"):
        keys = [request.item_key for request in requests if request.query == query]
        for begin in range(0, len(keys) - 3, 4):
            assert sorted(keys[begin : begin + 4]) == ["0", "1", "2", "3"]


def test_what_is_late_or_lost_is_not_in_time() -> None:
    answers = [
        RequestOutcome("a", "0", 0.0, 0.5, ANSWERED),
        RequestOutcome("a", "0", 1.0, 1.5, ANSWERED),
        RequestOutcome("b", "0", 2.0, 1.5, ANSWERED),
        RequestOutcome("b", "0", 3.0, 0.1, None, "it failed"),
        RequestOutcome("b", "0", 4.0),
    ]
    limits_s = {"a": 1.0, "b": 2.0}
    assert share_in_time(answers, limits_s) == 2 / 5
    assert share_in_time(within(answers, 1.0, 3.0), limits_s) == 1 / 2
    assert lost(answers) == 2
    assert math.isnan(share_in_time([], limits_s))
