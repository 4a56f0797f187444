"""Odds against simulated truths: of what is called so likely, about so much comes true."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from circinus.estimation import SloProbabilities
from circinus.estimation.slo_probability import (
    accuracy_slo_probability,
    bounded_latency_probability,
    comparable_miss,
    latency_slo_probability,
)
from circinus.specification import AccuracySlo, LatencySlo

RANGE = (0.0, 1.0)
BANDS = ((0.1, 0.2), (0.3, 0.5), (0.5, 0.7), (0.8, 0.9), (0.95, 1.0))


def _population(rng: np.random.Generator, family: str, count: int) -> np.ndarray:
    if family == "beta":
        a, b = rng.uniform(0.5, 8), rng.uniform(0.5, 8)
        return rng.beta(a, b, count)
    if family == "binary":
        return (rng.random(count) < rng.uniform(0.2, 0.8)).astype(float)
    return np.clip(rng.normal(rng.uniform(0.3, 0.8), rng.uniform(0.05, 0.3), count), 0, 1)


def _assert_calibrated(called: np.ndarray, true: np.ndarray, slack: float = 0.09) -> None:
    for low, high in BANDS:
        among = (called >= low) & (called <= high)
        assert among.sum() > 100
        assert low - slack <= true[among].mean() <= high + slack


@pytest.mark.parametrize("family", ["beta", "binary", "normal"])
@pytest.mark.parametrize("items", [8, 24, 100])
def test_of_accuracies_called_likely_as_many_are_kept(family: str, items: int) -> None:
    rng = np.random.default_rng([items, len(family)])
    called, true = [], []
    for _ in range(4000):
        scores = _population(rng, family, int(rng.integers(items + 1, 400)))
        slo = AccuracySlo(
            threshold=float(np.clip(scores.mean() + rng.uniform(-2, 2) * scores.std() / math.sqrt(items), 0.01, 0.99)),
            comparison=">=" if rng.random() < 0.5 else "<=",
        )
        called.append(accuracy_slo_probability(scores[:items], len(scores), slo, RANGE))
        true.append(slo.is_met_by(float(scores.mean())))
    _assert_calibrated(np.array(called), np.array(true))


@pytest.mark.parametrize(("items", "percentile"), [(10, 90.0), (30, 95.0), (80, 95.0), (80, 50.0), (250, 95.0)])
def test_of_latencies_called_likely_as_many_are_kept(items: int, percentile: float) -> None:
    """Log-normal times, of which the percentile is known."""
    rng, deviations = np.random.default_rng(items), NormalDist().inv_cdf(percentile / 100)
    called, true = [], []
    for _ in range(3000):
        mean, sigma = rng.uniform(-3, -1), rng.uniform(0.1, 0.8)
        truth = math.exp(mean + deviations * sigma)
        factor = float(np.exp(rng.uniform(-2.5, 2.5) * sigma * (1.5 if percentile > 50 else 1.25) / math.sqrt(items)))
        slo = LatencySlo(percentile=percentile, limit=truth * factor)
        seen = rng.lognormal(mean, sigma, items)
        called.append(latency_slo_probability(seen[np.arange(320) * items // 320], items, slo, 0.05))
        true.append(truth <= slo.limit_s)
    _assert_calibrated(np.array(called), np.array(true), slack=0.12)


def test_a_mean_of_all_items_is_certain() -> None:
    scores = np.array([0.2, 0.4, 0.9])
    assert accuracy_slo_probability(scores, 3, AccuracySlo(threshold=0.5), RANGE) == 1.0
    assert accuracy_slo_probability(scores, 3, AccuracySlo(threshold=0.51), RANGE) == 0.0
    assert 0.0 < accuracy_slo_probability(scores, 4, AccuracySlo(threshold=0.51), RANGE) < 1.0


def test_few_equal_scores_are_no_certainty() -> None:
    slo = AccuracySlo(threshold=0.95)
    odds = [accuracy_slo_probability(np.ones(n), None, slo, RANGE) for n in (2, 8, 32, 128)]
    assert odds == sorted(odds)
    assert 0.5 < odds[0] < 0.75
    assert odds[1] < 0.97


def test_the_odds_of_a_latency_are_those_of_order_statistics() -> None:
    """Of 59 items all within the limit: the 95th percentile is within it unless all 59 lie below the percentile."""
    latency_s = np.linspace(0.1, 0.2, 59)
    got = latency_slo_probability(latency_s, 59, LatencySlo(percentile=95.0, limit=0.2), 0.05)
    assert got == pytest.approx(1 - 0.95**59 / 2)


def test_a_far_percentile_of_few_items_is_no_more_likely_than_the_promise() -> None:
    """80 items show nothing of a 99.99th percentile, however lax its limit, but much of a 95th."""
    latency_s = np.linspace(0.1, 0.2, 80)
    far, near = (latency_slo_probability(latency_s, 80, LatencySlo(percentile=p, limit=9), 0.05) for p in (99.99, 95.0))
    assert far == pytest.approx(0.95)
    assert near == pytest.approx(1 - 0.95**80 / 2)
    for limit_s, of_items in ((9.0, 80), (0.199, None)):
        slo = LatencySlo(percentile=95.0, limit=limit_s)
        assert bounded_latency_probability(latency_s, 80, slo, 0.05, is_guaranteed=True)[1] == of_items
        assert bounded_latency_probability(latency_s, 80, slo, 0.05, is_guaranteed=False)[1] is None


def test_near_certainties_are_told_apart_and_other_probabilities_by_two_digits() -> None:
    assert comparable_miss(0.99999996) < comparable_miss(0.99972) < comparable_miss(0.8339) == comparable_miss(0.8341)


def test_all_together_is_the_product() -> None:
    assert SloProbabilities.of(0.9, 0.8, 1.0).joint == pytest.approx(0.72)
    assert SloProbabilities.of(0.9, 0.8, 0.0).joint == 0.0
