from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.simulation.report import percentile_interval


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=3000), st.sampled_from([50.0, 95.0, 99.0]))
def test_bounds_hold_the_value(latencies: list[float], percentile: float) -> None:
    found = percentile_interval(np.array(latencies), percentile)
    assert found.lower <= found.value <= found.upper
    surer = percentile_interval(np.array(latencies), percentile, 0.999)
    assert surer.lower <= found.lower <= found.upper <= surer.upper
    assert sum(one <= found.value for one in latencies) >= len(latencies) * percentile / 100 - 1e-9


@pytest.mark.parametrize("percentile", [50.0, 95.0, 99.0])
@pytest.mark.parametrize("count", [200, 20_000])
def test_the_true_percentile_is_within_the_bounds_about_as_often_as_is_said(percentile: float, count: int) -> None:
    rng = np.random.default_rng(1)
    truth = -math.log(1 - percentile / 100)
    found = [percentile_interval(rng.exponential(1.0, count), percentile) for _ in range(100)]
    assert np.mean([one.lower <= truth <= one.upper for one in found]) >= 0.9


@pytest.mark.parametrize("utilization", [0.02, 0.3, 0.6])
def test_bounds_hold_for_requests_that_wait_for_each_other_and_have_few_distinct_items(utilization: float) -> None:
    rng = np.random.default_rng(1)
    service_s = utilization * rng.permutation(np.repeat([0.6, 1.0, 2.6], [60_000, 110_000, 30_000]))
    ahead_s = np.cumsum(service_s - rng.exponential(1.0, len(service_s)))
    waits_s = np.roll(ahead_s - np.minimum.accumulate(np.minimum(ahead_s, 0.0)), 1)
    latency_s = waits_s + service_s
    for percentile in (50.0, 95.0):
        truth = float(np.quantile(latency_s, percentile / 100, method="inverted_cdf"))
        found = [percentile_interval(run, percentile) for run in latency_s.reshape(-1, 1000)]
        assert np.mean([one.lower <= truth <= one.upper for one in found]) >= 0.9


def test_few_requests_know_no_upper_bound_of_a_far_percentile() -> None:
    assert percentile_interval(np.arange(20.0), 99.0).upper == math.inf


@pytest.mark.parametrize("count", [400, 20_000])
def test_dropped_requests_are_infinitely_late(count: int) -> None:
    latency_s = np.random.default_rng(1).exponential(1.0, count)
    few, some, many = (
        np.where(np.random.default_rng(2).random(count) < p, math.inf, latency_s) for p in (0.02, 0.05, 0.2)
    )
    assert math.isfinite(percentile_interval(few, 90.0).upper)
    assert math.isfinite(percentile_interval(some, 95.0).lower)
    assert percentile_interval(some, 95.0).upper == math.inf
    assert percentile_interval(many, 65.0).lower < math.inf
    assert percentile_interval(many, 95.0).lower == math.inf
