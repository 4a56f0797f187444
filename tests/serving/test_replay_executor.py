"""Replay executors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.replicas import replay_executor as replaying
from circinus.serving.replicas.replay_executor import ReplayExecutor, interpolated_batch_ratio
from circinus.serving.replicas.replica_protocol import Batch, BatchItem, ReplayRun, ReplayStage, ReplicaSpec


class Clock:
    """Clock that advances only in `sleep`."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(replaying, "time", found)
    return found


def responder(speed: float = 1.0, ratio: tuple[tuple[int, float], ...] = ()) -> ReplayExecutor:
    spec = ReplicaSpec("d", True, "m:f", "", {}, 1.0, speed, (Path(),), ratio)
    replica = ReplayExecutor(spec)
    runs = {"a": ReplayRun(0.02, 10.0, b"A"), "b": ReplayRun(0.04, 20.0, b"B")}
    replica.add_recordings(
        {1: ReplayStage(runs, {1: 1.0, 4: 2.5}), 2: ReplayStage({"a": ReplayRun(0.01, 5.0, None)}, {1: 1.0})}
    )
    return replica


def batch(begin_s: float, *items: tuple[str, int]) -> Batch:
    return Batch(begin_s, tuple(BatchItem(key, 0, recording) for key, recording in items))


def test_batch_takes_its_recorded_time_and_gives_the_recorded_outputs(clock: Clock) -> None:
    (end_s, results, _), outputs = responder().answer(batch(1000.0, ("a", 1), ("b", 1)), [])
    expected_s = 0.03 * 1.5  # of two items, between 1.0 for one and 2.5 for four
    assert end_s == pytest.approx(1000.0 + expected_s)
    assert clock.now_s == pytest.approx(end_s)
    assert [result.service_s for result in results] == pytest.approx([expected_s] * 2)
    assert [result.busy_s for result in results] == pytest.approx([expected_s / 2] * 2)
    assert [result.output_bytes for result in results] == [10.0, 20.0]
    assert outputs == [b"A", b"B"]


def test_time_that_passed_before_it_was_noticed_is_made_up_for(clock: Clock) -> None:
    for begin_s, awake_s in ((940.0, 1000.0), (999.99, 1000.01)):
        clock.now_s = 1000.0
        (end_s, _, _), _ = responder().answer(batch(begin_s, ("a", 1)), [])
        assert end_s == begin_s + 0.02
        assert clock.now_s == pytest.approx(awake_s)


def test_hardware_is_as_fast_as_it_is(clock: Clock) -> None:
    (_, results, _), _ = responder(speed=4.0).answer(batch(clock.now_s, ("a", 1)), [])
    assert results[0].service_s == pytest.approx(0.005)
    gaining = responder(speed=4.0, ratio=((1, 1.0), (2, 1.2), (4, 1.4)))
    (_, results, _), _ = gaining.answer(batch(clock.now_s, ("a", 1), ("b", 1)), [])
    assert results[0].service_s == pytest.approx(0.03 * 1.2 / 4)


def test_what_was_not_recorded_fails_alone(clock: Clock) -> None:
    (_, results, _), outputs = responder().answer(batch(clock.now_s, ("a", 2), ("unheard", 1)), [])
    assert [bool(result.error) for result in results] == [False, True]
    assert "unheard" in results[1].error
    assert results[0].service_s == pytest.approx(0.01)
    assert outputs == []  # only sinks have them


@given(st.dictionaries(st.integers(1, 64), st.floats(0.1, 100), min_size=1), st.integers(1, 100))
def test_ratio_stays_between_its_measured_neighbours(measured: dict[int, float], size: int) -> None:
    found = interpolated_batch_ratio(measured, size)
    below = [s for s in measured if s <= size] or [min(measured)]
    above = [s for s in measured if s >= size] or [max(measured)]
    ends = sorted((measured[max(below)], measured[min(above)]))
    assert ends[0] * (1 - 1e-12) <= found <= ends[1] * (1 + 1e-12)
    if size in measured:
        assert found == measured[size]
