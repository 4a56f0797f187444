"""Replicas that answer from recordings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.replicas.messages import Batch, RecordedRun, RecordedStage, ReplicaSpec, WorkItem
from circinus.serving.replicas.replaying import ReplayingResponder, batch_ratio


def responder(speed: float = 1.0) -> ReplayingResponder:
    spec = ReplicaSpec("d", True, "m:f", "", {}, 1.0, speed, (Path(),), ())
    replica = ReplayingResponder(spec)
    runs = {"a": RecordedRun(0.02, 10.0, b"A"), "b": RecordedRun(0.04, 20.0, b"B")}
    replica.learn(
        {1: RecordedStage(runs, {1: 1.0, 4: 2.5}), 2: RecordedStage({"a": RecordedRun(0.01, 5.0, None)}, {1: 1.0})}
    )
    return replica


def batch(*items: tuple[str, int]) -> Batch:
    return Batch(time.monotonic(), tuple(WorkItem(key, 0, recording) for key, recording in items))


def test_batch_takes_its_recorded_time_and_gives_the_recorded_outputs() -> None:
    begin_s = time.monotonic()
    given = batch(("a", 1), ("b", 1))
    (end_s, results, _), outputs = responder().answer(given, [])
    expected_s = 0.03 * 1.5  # of two items, between 1.0 for one and 2.5 for four
    assert time.monotonic() - begin_s >= expected_s
    assert end_s == pytest.approx(given.begin_s + expected_s)
    assert [result.service_s for result in results] == pytest.approx([expected_s] * 2)
    assert [result.busy_s for result in results] == pytest.approx([expected_s / 2] * 2)
    assert [result.output_bytes for result in results] == [10.0, 20.0]
    assert outputs == [b"A", b"B"]


def test_time_that_passed_before_it_was_noticed_is_made_up_for() -> None:
    late = Batch(time.monotonic() - 60.0, batch(("a", 1)).items)
    begin_s = time.monotonic()
    (end_s, _, _), _ = responder().answer(late, [])
    assert end_s == late.begin_s + 0.02
    assert time.monotonic() - begin_s < 30.0


def test_hardware_is_as_fast_as_it_is() -> None:
    (_, results, _), _ = responder(speed=4.0).answer(batch(("a", 1)), [])
    assert results[0].service_s == pytest.approx(0.005)


def test_what_was_not_recorded_fails_alone() -> None:
    (_, results, _), outputs = responder().answer(batch(("a", 2), ("unheard", 1)), [])
    assert [bool(result.error) for result in results] == [False, True]
    assert "unheard" in results[1].error
    assert results[0].service_s == pytest.approx(0.01)
    assert outputs == []  # only sinks have them


@given(st.dictionaries(st.integers(1, 64), st.floats(0.1, 100), min_size=1), st.integers(1, 100))
def test_ratio_stays_between_its_measured_neighbours(measured: dict[int, float], size: int) -> None:
    found = batch_ratio(measured, size)
    below = [s for s in measured if s <= size] or [min(measured)]
    above = [s for s in measured if s >= size] or [max(measured)]
    ends = sorted((measured[max(below)], measured[min(above)]))
    assert ends[0] * (1 - 1e-12) <= found <= ends[1] * (1 + 1e-12)
    if size in measured:
        assert found == measured[size]
