"""Percentiles and standard errors."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.loadtest.load_report import LatencySummary


def test_percentiles_are_latencies_that_occurred() -> None:
    summary = LatencySummary.of(np.arange(1.0, 101.0), 80.0)
    assert (summary.p50_s, summary.p90_s, summary.p95_s, summary.p99_s) == (50.0, 90.0, 95.0, 99.0)
    assert summary.at_percentile_s == 80.0


def test_unanswered_requests_take_for_ever() -> None:
    latency_s = np.array([0.1] * 95 + [math.inf] * 5)
    summary = LatencySummary.of(latency_s, 95.0)
    assert summary.at_percentile_s == 0.1
    assert summary.p99_s is None


@given(st.lists(st.floats(0, 10) | st.just(math.inf), min_size=1, max_size=60), st.floats(1, 99))
def test_percentile_is_the_least_latency_that_enough_requests_kept(latency_s: list[float], percentile: float) -> None:
    percentile_s = LatencySummary.of(np.array(latency_s), percentile).at_percentile_s
    value = math.inf if percentile_s is None else percentile_s
    share = percentile / 100 * (1 - 1e-12)
    assert np.mean(np.array(latency_s) <= value) >= share
    assert all(np.mean(np.array(latency_s) <= other) < share + 1e-9 for other in latency_s if other < value)
