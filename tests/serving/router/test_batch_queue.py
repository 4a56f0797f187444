"""Formation of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.router.batch_queue import BatchQueue, QueuedItem

TIMES = st.integers(0, 12).map(lambda eighths: eighths / 8)


def _work(
    arrived_s: float, latest_s: float = math.inf, *, abandoned: bool = False, deaths: int = 0, drops: bool = False
) -> QueuedItem:
    return QueuedItem(
        item_key=f"{arrived_s:g}",
        inputs=(),
        recording=None,
        arrived_s=arrived_s,
        done=lambda *_: None,
        failed=lambda _: None,
        is_cancelled=lambda: abandoned,
        replica_losses=deaths,
        latest_start_s=latest_s,
        dropped=(lambda: None) if drops else None,
    )


def _queue(batch_size: int, batch_wait_s: float, *works: QueuedItem) -> BatchQueue:
    queue = BatchQueue(batch_size, batch_wait_s)
    for work in works:
        queue.put(work)
    return queue


@dataclass
class _Model:
    """The rule of the queue, item by item."""

    size: int
    wait_s: float
    free_s: float
    waiting: list[QueuedItem]
    dropped: list[QueuedItem] = field(default_factory=list)

    def next_batch(self) -> tuple[float, list[QueuedItem]] | None:
        """Return start and items of the next batch, and remove them and dropped ones."""
        while self.waiting:
            arrived_s = sorted(work.arrived_s for work in self.waiting)
            full_s = arrived_s[self.size - 1] if len(arrived_s) >= self.size else math.inf
            start_s = max(self.free_s, min(arrived_s[0] + self.wait_s, full_s))
            here = [work for work in self.waiting if work.arrived_s <= start_s]
            late = [work for work in here if work.dropped is not None and work.latest_start_s < start_s]
            order = sorted(here, key=lambda work: (work.latest_start_s, work.arrived_s))
            self.dropped += late
            gone = late or order[: self.size]
            self.waiting = [work for work in self.waiting if work not in gone]
            if not late:
                return start_s, gone
        return None


LATEST = st.one_of(TIMES, st.just(math.inf))


@given(
    st.lists(st.tuples(TIMES, LATEST, st.booleans(), st.booleans()), max_size=9),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5, 1.25]),
    TIMES,
    st.sampled_from([0.0, 0.25]),
)
def test_batches_take_the_earliest_latest_starts_and_drop_what_is_late(
    noticed: list[tuple[float, float, bool, bool]], size: int, wait_s: float, free_s: float, service_s: float
) -> None:
    """For any order in which arrivals are noticed, and with cancelled items."""
    works = [_work(at_s, latest_s, abandoned=gone, drops=drops) for at_s, latest_s, gone, drops in noticed]
    queue, dropped = _queue(size, wait_s), []
    for work in works:
        if work.dropped is not None:
            work.dropped = lambda work=work: dropped.append(work)  # type: ignore[misc]
        queue.put(work)
    model = _Model(size, wait_s, free_s, [work for work in works if not work.is_cancelled()])
    while (expected := model.next_batch()) is not None:
        batch: list[QueuedItem] = []
        while not batch:
            start_s = queue.next_batch_at_s(model.free_s)
            assert start_s is not None
            batch = queue.take(start_s)
        assert (start_s, batch) == expected
        model.free_s = start_s + service_s
    while (start_s := queue.next_batch_at_s(model.free_s)) is not None:
        assert queue.take(start_s) == []
    assert len(queue) == 0
    assert {id(work) for work in dropped} == {id(work) for work in model.dropped}


def test_what_a_replica_ended_with_goes_alone_and_at_once() -> None:
    queue = _queue(3, 5.0, _work(2.0), _work(3.0))
    queue.put_back([_work(0.0, deaths=1), _work(1.0, deaths=1)])
    for arrived_s in (0.0, 1.0):
        assert queue.next_batch_at_s(0.0) == arrived_s
        assert [work.arrived_s for work in queue.take(9.0)] == [arrived_s]
    assert queue.next_batch_at_s(0.0) == 7.0
    assert [work.arrived_s for work in queue.take(7.0)] == [2.0, 3.0]


@pytest.mark.parametrize("size", [1, 3])
def test_what_was_taken_can_be_put_back(size: int) -> None:
    queue = _queue(size, 0.0, *(_work(float(arrived_s)) for arrived_s in range(4)))
    queue.put_back(queue.take(9.0))
    assert [work.arrived_s for work in queue.clear()] == [0.0, 1.0, 2.0, 3.0]
