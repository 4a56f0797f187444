"""Formation of batches."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.router.batch_queue import BatchQueue, QueuedItem

TIMES = st.integers(0, 12).map(lambda eighths: eighths / 8)


def _work(due_s: float, *, abandoned: bool = False, deaths: int = 0) -> QueuedItem:
    return QueuedItem(
        item_key=f"{due_s:g}",
        inputs=(),
        recording=None,
        due_s=due_s,
        done=lambda *_: None,
        failed=lambda _: None,
        is_cancelled=lambda: abandoned,
        replica_losses=deaths,
    )


def _queue(batch_size: int, batch_wait_s: float, *works: QueuedItem) -> BatchQueue:
    queue = BatchQueue(batch_size, batch_wait_s)
    for work in works:
        queue.put(work)
    return queue


@given(
    st.lists(st.tuples(TIMES, st.booleans()), max_size=8), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.25]), TIMES
)
def test_a_batch_begins_when_it_is_full_or_the_oldest_waited_long_enough(
    noticed: list[tuple[float, bool]], size: int, wait_s: float, free_s: float
) -> None:
    """The formula holds for any order in which arrivals are noticed, and with cancelled items."""
    works = [_work(due_s, abandoned=gave_up) for due_s, gave_up in noticed]
    queue = _queue(size, wait_s, *works)
    due_s = sorted(time for time, gave_up in noticed if not gave_up)
    if not due_s:
        assert queue.next_batch_at_s(free_s) is None
        return
    full_s = due_s[size - 1] if len(due_s) >= size else math.inf
    begin_s = max(free_s, min(due_s[0] + wait_s, full_s))
    assert queue.next_batch_at_s(free_s) == begin_s
    expected = [time for time in due_s[:size] if time <= begin_s]
    assert [work.due_s for work in queue.take(begin_s)] == expected
    assert [work.due_s for work in queue.clear() if not work.is_cancelled()] == due_s[len(expected) :]
    assert len(queue) == 0


def test_what_a_replica_ended_with_goes_alone_and_at_once() -> None:
    queue = _queue(3, 5.0, _work(2.0), _work(3.0))
    queue.put_back([_work(0.0, deaths=1), _work(1.0, deaths=1)])
    for due_s in (0.0, 1.0):
        assert queue.next_batch_at_s(0.0) == due_s
        assert [work.due_s for work in queue.take(9.0)] == [due_s]
    assert queue.next_batch_at_s(0.0) == 7.0
    assert [work.due_s for work in queue.take(7.0)] == [2.0, 3.0]


def test_nobody_waits_for_more_than_can_join() -> None:
    queue = _queue(3, 5.0, _work(1.0, deaths=1), _work(0.0), _work(0.5))
    assert queue.next_batch_at_s(0.0) == 0.5
    assert [work.due_s for work in queue.take(0.5)] == [0.0, 0.5]


@pytest.mark.parametrize("size", [1, 3])
def test_what_was_taken_can_be_put_back(size: int) -> None:
    queue = _queue(size, 0.0, *(_work(float(due_s)) for due_s in range(4)))
    queue.put_back(queue.take(9.0))
    assert [work.due_s for work in queue.clear()] == [0.0, 1.0, 2.0, 3.0]
