from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.queueing.split_sequence import split_part

SHARES = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=4).map(lambda drawn: [x / sum(drawn) for x in drawn])


@given(st.text(), SHARES, st.integers(0, 10**7), st.integers(1, 12))
def test_any_500_requests_and_every_kth_request_are_divided_by_their_shares(
    query: str, shares: list[float], first: int, period: int
) -> None:
    parts = split_part(query, shares, first + period * np.arange(500))
    assert np.bincount(parts, minlength=len(shares)) / 500 == pytest.approx(shares, abs=0.02 if period == 1 else 0.05)
    assert parts[:20].tolist() == [split_part(query, shares, first + period * n) for n in range(20)]


def test_simultaneous_requests_of_several_queries_take_different_parts() -> None:
    parts = [split_part(f"camera {n}", [0.5, 0.5], np.arange(40)) for n in range(100)]
    assert np.abs(np.mean(parts, axis=0) - 0.5).max() < 0.2
