from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.http_requests import TokenBucket


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=200), st.floats(0.1, 50.0), st.floats(1.0, 20.0))
def test_never_more_than_the_bucket_and_what_flows_in_are_let_in(
    gaps_s: list[float], rate_per_s: float, at_once: float
) -> None:
    bucket, now_s = TokenBucket(rate_per_s, at_once), 0.0
    entered: list[float] = []
    for gap_s in gaps_s:
        now_s += gap_s
        if bucket.retry_after_s(now_s) == 0:
            entered.append(now_s)
    for first in range(len(entered)):
        for last in range(first, len(entered)):
            flown = (entered[last] - entered[first]) * rate_per_s
            assert last - first + 1 <= at_once + flown + 1e-6


@given(st.floats(0.1, 50.0), st.floats(1.0, 20.0))
def test_after_the_wait_that_was_told_a_request_is_let_in(rate_per_s: float, at_once: float) -> None:
    bucket = TokenBucket(rate_per_s, at_once)
    for _ in range(math.floor(at_once)):
        assert bucket.retry_after_s(0.0) == 0
    wait_s = bucket.retry_after_s(0.0)
    assert 0 < wait_s <= 1 / rate_per_s + 1e-9
    assert bucket.retry_after_s(wait_s * (1 + 1e-9) + 1e-9) == 0


def test_random_arrivals_below_the_rate_are_hardly_ever_refused() -> None:
    rng = np.random.default_rng(0)
    bucket = TokenBucket(12.0, 120.0)
    refused = sum(bucket.retry_after_s(float(now_s)) > 0 for now_s in np.cumsum(rng.exponential(1 / 10.0, 50_000)))
    assert refused == 0
    twice = TokenBucket(12.0, 120.0)
    refused = sum(twice.retry_after_s(float(now_s)) > 0 for now_s in np.cumsum(rng.exponential(1 / 24.0, 50_000)))
    assert refused / 50_000 == pytest.approx(0.5, abs=0.02)
