"""Percentiles, standard errors and SLO attainment."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.serving.loadtest.load_report import LatencySummary, clustered_log_ratio, clustered_mean, slo_attainment
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


def test_standard_error_of_different_items_is_the_ordinary_one() -> None:
    scores = [0.0, 1.0, 0.5, 0.25, 1.0]
    mean, error = clustered_mean(scores, list("abcde"))
    assert mean == pytest.approx(np.mean(scores))
    assert error == pytest.approx(np.std(scores, ddof=1) / math.sqrt(5))


def test_repeating_items_does_not_make_the_mean_surer() -> None:
    scores = [0.0, 1.0, 0.5]
    once = clustered_mean(scores, list("abc"))
    many = clustered_mean(scores * 100, list("abc") * 100)
    assert many == pytest.approx(once)


def test_standard_error_covers_the_mean_of_all_items() -> None:
    """Items drawn at random, each sent a few times: two standard errors cover the mean in about 95 % of the runs."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        items = rng.uniform(size=30)  # of a population with mean 0.5
        repeats = np.repeat(np.arange(30), rng.integers(1, 6, size=30))
        mean, error = clustered_mean(items[repeats].tolist(), [str(i) for i in repeats])
        assert error is not None
        covered += abs(mean - 0.5) < 2 * error
    assert 0.89 < covered / 400 < 0.99


def test_one_item_has_no_standard_error() -> None:
    assert clustered_mean([1.0, 1.0], ["a", "a"]) == (1.0, None)


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


def test_log_ratio_is_that_of_the_totals_and_repeats_do_not_make_it_surer() -> None:
    observed_s, predicted_s, items = [1.0, 2.0, 6.0], [1.0, 1.0, 2.0], list("abc")
    log_ratio, error = clustered_log_ratio(observed_s, predicted_s, items)
    assert log_ratio == pytest.approx(math.log(9 / 4))
    assert clustered_log_ratio(observed_s * 9, predicted_s * 9, items * 9) == pytest.approx((log_ratio, error))
    assert clustered_log_ratio([2.0, 4.0], [1.0, 2.0], ["a", "b"]) == pytest.approx((math.log(2), 0.0))
    assert clustered_log_ratio([2.0, 4.0], [1.0, 2.0], ["a", "a"])[1] is None


def test_standard_error_covers_the_log_ratio_of_all_items() -> None:
    """Items drawn at random, each sent a few times, with different ratios of observed to predicted times."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        predicted_s = rng.uniform(0.5, 1.5, size=30)
        observed_s = predicted_s * rng.uniform(1.0, 2.0, size=30)  # 1.5 times the total in the population
        repeats = np.repeat(np.arange(30), rng.integers(1, 6, size=30))
        sent = [str(i) for i in repeats]
        log_ratio, error = clustered_log_ratio(observed_s[repeats].tolist(), predicted_s[repeats].tolist(), sent)
        assert error is not None
        covered += abs(log_ratio - math.log(1.5)) < 2 * error
    assert 0.89 < covered / 400 < 0.99
