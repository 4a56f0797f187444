"""Tests of status readers: every value once, at any polling interval."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from circinus.control.drift.status_deltas import LateShareReader, NewBatchReader
from circinus.serving import DeploymentStatus, ServedBatch
from circinus.serving.engine import QueryStatus
from circinus.specification import Allocation, Deployment, KnobValues, LatencySlo

DEPLOYMENT = Deployment("p", "o", KnobValues(), "pool", Allocation(1.0, 1, 0.5))
REMEMBERED = 5
SLOS = {"q": LatencySlo(limit_s=1.0)}


def _status(count: int, earlier: int = 100) -> DeploymentStatus:
    recent = tuple(ServedBatch(float(number), 1, "", earlier) for number in range(count))[-REMEMBERED:]
    return DeploymentStatus(DEPLOYMENT, 1, 1, 0, count, 0, batches=count, recent_batches=recent)


def _seconds(reader: NewBatchReader, status: DeploymentStatus) -> list[float]:
    return [batch.service_s for batch in reader.read([status]).get(DEPLOYMENT, ())]


@given(st.lists(st.integers(0, REMEMBERED), max_size=20), st.integers(0, 9))
def test_every_batch_is_read_once_and_in_order(steps: list[int], before: int) -> None:
    reader, count, seen = NewBatchReader(), before, []
    assert _seconds(reader, _status(before)) == []
    for step in steps:
        count += step
        seen += _seconds(reader, _status(count))
    assert seen == [float(number) for number in range(before, count)]


def test_where_more_came_than_are_remembered_the_last_are_read() -> None:
    reader = NewBatchReader()
    reader.read([_status(0)])
    assert _seconds(reader, _status(9)) == [4.0, 5.0, 6.0, 7.0, 8.0]


def test_after_the_engine_was_started_again_counting_begins_anew() -> None:
    reader = NewBatchReader()
    reader.read([_status(9)])
    assert _seconds(reader, _status(2)) == [0.0, 1.0]
    assert _seconds(reader, _status(3)) == [2.0]


def test_cold_replicas_say_nothing() -> None:
    reader = NewBatchReader()
    reader.read([_status(0)])
    assert _seconds(reader, _status(2, earlier=2)) == []
    assert _seconds(reader, _status(3, earlier=3)) == [2.0]


def _query(answered: int, failed: int, latency_s: list[float]) -> QueryStatus:
    return QueryStatus("q", answered + failed, answered, failed, tuple(latency_s))


def test_shares_are_over_blocks_that_are_long_and_full_enough() -> None:
    reader = LateShareReader(10.0, 4)
    assert reader.read(0.0, [_query(0, 0, [])], SLOS) == {}
    assert reader.read(5.0, [_query(3, 1, [0.5, 2.0, 0.5])], SLOS) == {}, "too short"
    assert reader.read(10.0, [_query(4, 1, [0.5, 2.0, 0.5, 0.5])], SLOS) == {"q": 2 / 5}
    assert reader.read(25.0, [_query(5, 1, [0.5, 2.0, 0.5, 0.5, 3.0])], SLOS) == {}, "too few"
    assert reader.read(26.0, [_query(5, 6, [0.5, 2.0, 0.5, 0.5, 3.0])], SLOS) == {"q": 1.0}


def test_the_answers_that_are_remembered_stand_for_all() -> None:
    reader = LateShareReader(1.0, 1)
    reader.read(0.0, [_query(0, 0, [])], SLOS)
    assert reader.read(1.0, [_query(100, 0, [0.5, 2.0])], SLOS) == {"q": 0.5}


def test_dropped_requests_are_late() -> None:
    reader = LateShareReader(1.0, 1)
    reader.read(0.0, [_query(0, 0, [])], SLOS)
    status = QueryStatus("q", 5, 2, 1, (0.5, math.inf, 0.5, math.inf), dropped=2)
    assert reader.read(1.0, [status], SLOS) == {"q": 3 / 5}


def test_a_query_without_a_limit_is_not_read() -> None:
    reader = LateShareReader(1.0, 1)
    reader.read(0.0, [_query(0, 0, [])], {})
    assert reader.read(9.0, [_query(9, 0, [2.0])], {}) == {}


def test_late_requests_are_counted_anew_with_the_engine() -> None:
    reader = LateShareReader(10.0, 1)
    reader.read(0.0, [_query(50, 3, [2.0] * 9)], SLOS)
    assert reader.read(10.0, [_query(2, 0, [0.5, 0.5])], SLOS) == {"q": 0.0}
