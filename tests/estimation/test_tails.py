"""The allowance for few items, against the risk it is to keep."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.estimation.percentiles import UNBOUNDED, SmallSampleInflation, tolerance_factor
from circinus.estimation.stage_latency import ElementTimes, StationTime, elementwise_max_s

P95 = SmallSampleInflation(95.0, 0.05)

SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda rng, size: np.maximum(1 + 0.2 * rng.standard_normal(size), 1e-3),
    "gamma": lambda rng, size: rng.gamma(8.0, 1 / 8, size),
    "log-normal": lambda rng, size: np.exp(0.5 * rng.standard_normal(size)),
    "exponential": lambda rng, size: rng.exponential(1.0, size),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("items", [8, 16, 32, 59])
def test_the_stretched_maximum_reaches_the_percentile(shape: str, items: int) -> None:
    rng = np.random.default_rng(items)
    samples = SHAPES[shape](rng, (2000, items))
    truth = np.quantile(SHAPES[shape](rng, (1, 1_000_000)), 0.95)
    bounds = np.array([P95.inflate(sample).max() for sample in samples])
    assert np.mean(bounds < truth) <= 0.065  # 0.05, and three standard errors of 2,000 draws
    if items == 8:
        assert np.mean(samples.max(axis=1) < truth) > 0.6, "without the allowance the bound would fail mostly"


def test_from_enough_items_on_there_is_no_allowance() -> None:
    times_s = np.random.default_rng(0).exponential(1.0, 59)
    assert P95.of(times_s) == 1.0
    assert P95.of(times_s[:58]) >= 1.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("items", [8, 16, 60])
def test_the_stretched_mean_reaches_the_true_mean(shape: str, items: int) -> None:
    rng = np.random.default_rng(items)
    samples = SHAPES[shape](rng, (4000, items))
    truth = float(SHAPES[shape](rng, (1, 1_000_000)).mean())
    bounds = np.array([sample.mean() * P95.of_mean(sample) for sample in samples])
    missed = float(np.mean(bounds < truth))
    # Student's bound holds for normal samples; of skewed ones the mean is below the truth more often, the more so the
    # fewer there are.
    assert missed <= {"normal": 0.06, "gamma": 0.08, "log-normal": 0.13, "exponential": 0.15}[shape]
    assert missed > 0.03, "a bound that is never missed promises less than could be promised"


def test_a_mean_of_one_item_has_no_bound_and_one_of_equal_items_needs_none() -> None:
    assert P95.of_mean(np.ones(1)) == UNBOUNDED
    assert P95.of_mean(np.full(8, 0.3)) == 1.0
    assert P95.of_mean(np.zeros(8)) == 1.0
    assert SmallSampleInflation(95.0, 1 - 1e-9).of_mean(np.array([1.0, 2.0])) == 1.0


def test_known_tolerance_factors() -> None:
    """Odeh & Owen's tables of one-sided normal tolerance limits, which the approximation meets within two per cent."""
    for items, exact in ((5, 4.203), (8, 3.187), (16, 2.524), (32, 2.197)):
        assert tolerance_factor(items, 0.95, 0.05) == pytest.approx(exact, rel=0.02)
    assert math.isinf(tolerance_factor(1, 0.95, 0.05))


@given(st.integers(1, 80), st.floats(0.01, 100.0), st.integers(0, 2**32 - 1))
def test_the_factor_has_no_unit_and_is_at_least_one(items: int, scale: float, seed: int) -> None:
    times_s = np.random.default_rng(seed).gamma(4.0, 0.1, items)
    factor = P95.of(times_s)
    assert factor >= 1.0
    assert P95.of(times_s * scale) == pytest.approx(factor)


def test_no_time_at_all_is_no_error() -> None:
    assert P95.of(np.zeros(8)) == 1.0
    assert P95.of(np.zeros(2)) == UNBOUNDED
    assert np.isfinite(P95.inflate(np.zeros(2))).all()


def test_two_very_different_kinds_of_items_are_no_error() -> None:
    careful = SmallSampleInflation(95.0, 1e-4)
    assert 1 < careful.of(np.array([1e-9] * 4 + [10.0] * 4)) <= UNBOUNDED


def test_an_overloaded_operator_is_one_for_items_that_do_not_reach_it() -> None:
    elements = ElementTimes(np.array([True, False]), np.array([0.1, 0.0]))
    waits, own_s = StationTime(np.array([0.5, 0.5]), 1.0, 0.5, 1), np.array([0.2, 0.0])
    assert elementwise_max_s([waits], own_s, elements).tolist() == [0.7, 0.0]
    overloaded = StationTime(np.full(2, UNBOUNDED), 0.0, UNBOUNDED, 1)
    assert (elementwise_max_s([waits, overloaded], own_s, elements) >= UNBOUNDED).all()
