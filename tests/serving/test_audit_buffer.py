"""Sampling of answered requests, and limits of the buffer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.audit_buffer import AuditBuffer, is_sampled, merge_audits


def _answered(samples: AuditBuffer, count: int, share: float = 1.0, size: int = 10) -> None:
    for number in range(count):
        samples.record("q", share, str(number), "abc", b"v" * size, {"sink": b"o" * size})


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_the_share_that_is_asked_for_is_drawn(share: float) -> None:
    found = sum(is_sampled(0, "q", number, share) for number in range(20_000)) / 20_000
    assert found == pytest.approx(share, abs=4 * (share * (1 - share) / 20_000) ** 0.5)


@given(st.integers(0, 9), st.text(max_size=5), st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_more_are_drawn_where_more_are_asked_for(
    seed: int, query: str, number: int, share: float, other: float
) -> None:
    less, more = sorted((share, other))
    assert is_sampled(seed, query, number, more) or not is_sampled(seed, query, number, less)
    assert is_sampled(seed, query, number, share) == is_sampled(seed, query, number, share)


def test_draws_of_queries_and_seeds_differ() -> None:
    streams = {
        tuple(is_sampled(seed, query, number, 0.5) for number in range(64)) for seed in range(4) for query in ("a", "b")
    }
    assert len(streams) == 8


def test_the_oldest_are_dropped_and_counted() -> None:
    samples = AuditBuffer(max_samples=3)
    _answered(samples, 5)
    found = samples.drain()
    assert [sample.item_key for sample in found.samples] == ["2", "3", "4"]
    assert found.dropped == 2
    assert samples.drain().dropped == 0


def test_bytes_are_bounded_whatever_comes() -> None:
    samples = AuditBuffer(max_bytes=65)
    _answered(samples, 5)
    found = samples.drain()
    assert [sample.item_key for sample in found.samples] == ["2", "3", "4"]
    _answered(samples, 1, size=1000)
    assert samples.drain().samples == ()
    _answered(samples, 1)  # what was handed over and dropped takes no room any more
    assert len(samples.drain().samples) == 1


def test_numbers_go_on_whatever_the_share() -> None:
    samples = AuditBuffer()
    _answered(samples, 10, share=0.0)
    assert samples.drain().samples == ()
    _answered(samples, 10, share=0.5)
    assert [s.item_key for s in samples.drain().samples] == [
        str(number) for number in range(10) if is_sampled(0, "q", number + 10, 0.5)
    ]


def test_parts_come_together() -> None:
    one, other = AuditBuffer(max_samples=1), AuditBuffer()
    _answered(one, 2)
    _answered(other, 1)
    found = merge_audits([one.drain(), other.drain()])
    assert ([sample.item_key for sample in found.samples], found.dropped) == (["1", "0"], 1)
