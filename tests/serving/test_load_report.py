"""Percentiles, standard errors and SLO attainment."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.loadtest.load_report import LatencySummary, slo_attainment
from circinus.specification import AccuracySlo, CostSlo, LatencySlo, Slos


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


def test_objectives_hold_as_they_are_written() -> None:
    slos = Slos(
        latency=LatencySlo(percentile=90, limit=0.5), accuracy=AccuracySlo(threshold=0.8), cost=CostSlo(limit=0.3)
    )
    fast = LatencySummary(0.1, 0.5, 0.6, 0.7, 90.0, 0.5)
    slow = LatencySummary(0.1, 0.6, 0.6, 0.7, 90.0, 0.6)
    lost = LatencySummary(0.1, None, None, None, 90.0, None)
    assert slo_attainment(slos, fast, 0.8, 0.3) == {"latency": True, "accuracy": True, "cost": True}
    assert slo_attainment(slos, slow, 0.79, 0.31) == {"latency": False, "accuracy": False, "cost": False}
    assert slo_attainment(slos, lost, None, 0.0) == {"latency": False, "accuracy": False, "cost": True}
    assert slo_attainment(Slos(), None, None, 9.0) == {}


def test_smaller_may_be_better() -> None:
    slos = Slos(accuracy=AccuracySlo(threshold=0.2, comparison="<="))
    assert slo_attainment(slos, None, 0.1, 0.0) == {"accuracy": True}
    assert slo_attainment(slos, None, 0.3, 0.0) == {"accuracy": False}
