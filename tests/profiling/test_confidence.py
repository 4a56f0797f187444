"""Bounds of the mean score: they hold at every look, tighten, and end in the exact mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circinus.profiling.confidence import mean_bounds, means_bounds
from circinus.profiling.order import stratified_order

POPULATION = 60
RISK = 0.1
RUNS = 400
GENERATOR = np.random.default_rng(11)
POPULATIONS = {
    "nearly all right": (GENERATOR.random(POPULATION) < 0.95).astype(float),
    "nearly all wrong": (GENERATOR.random(POPULATION) < 0.06).astype(float),
    "coin": (GENERATOR.random(POPULATION) < 0.5).astype(float),
    "bimodal": np.where(GENERATOR.random(POPULATION) < 0.7, 0.98, 0.1),
    "skewed": GENERATOR.beta(8, 0.6, POPULATION),
    "narrow": np.clip(GENERATOR.normal(0.8, 0.02, POPULATION), 0, 1),
    "one outlier": np.append(np.ones(POPULATION - 1), 0.0),
}


def _ever_missed(orders: np.ndarray, population: np.ndarray) -> tuple[float, float]:
    """Share of the orders in which the lower (upper) bound was ever on the wrong side, looking again and again.

    Bounds only tighten, so the last look before the exact mean has all earlier failures in it.
    """
    mean = population.mean()
    bounds = means_bounds(population[orders[:, : POPULATION - 1]], POPULATION, risk=RISK)
    below = np.mean([b.lower > mean + 1e-6 for b in bounds])
    above = np.mean([b.upper < mean - 1e-6 for b in bounds])
    return float(below), float(above)


@pytest.mark.parametrize("name", POPULATIONS)
def test_each_side_fails_at_most_as_often_as_promised_however_often_one_looks(name: str) -> None:
    rng = np.random.default_rng(5)
    orders = np.array([rng.permutation(POPULATION) for _ in range(RUNS)])
    allowed = RISK + 3 * np.sqrt(RISK * (1 - RISK) / RUNS)
    below, above = _ever_missed(orders, POPULATIONS[name])
    assert below <= allowed
    assert above <= allowed


@pytest.mark.parametrize("spread", [0.0, 0.3, 0.8])
def test_the_promise_holds_in_an_order_balanced_over_strata(spread: float) -> None:
    rng = np.random.default_rng(6)
    noise = np.arange(POPULATION) % 4
    population = np.clip(0.9 - spread * noise / 3 + rng.normal(0, 0.1, POPULATION), 0, 1)
    strata = [{"noise": str(level)} for level in noise]
    orders = np.array([stratified_order(strata, rng) for _ in range(RUNS // 2)])
    below, above = _ever_missed(orders, population)
    assert max(below, above) <= RISK


@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=30),
    more=st.integers(0, 40),
    risk=st.sampled_from([0.01, 0.05, 0.2]),
)
@settings(max_examples=150, deadline=None)
def test_bounds_only_tighten_and_hold_the_possible(scores: list[float], more: int, risk: float) -> None:
    values = np.array(scores)
    population = len(values) + more
    before = mean_bounds(values[:0], population, risk=risk)
    assert (before.lower, before.upper) == (0.0, 1.0)
    for n in range(1, len(values) + 1):
        now = mean_bounds(values[:n], population, risk=risk)
        crossed = now.lower > before.upper or now.upper < before.lower
        if n < population and not crossed:
            assert now.lower >= before.lower - 1e-6
            assert now.upper <= before.upper + 1e-6
        assert now.lower >= values[:n].sum() / population - 1e-9
        assert now.upper <= (values[:n].sum() + population - n) / population + 1e-9
        before = now


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=50, deadline=None)
def test_all_items_give_the_exact_mean(scores: list[float]) -> None:
    found = mean_bounds(np.array(scores), len(scores), risk=0.05)
    assert found.lower == found.value == found.upper == np.mean(scores)


@given(
    scores=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    low=st.floats(-10, 10),
    width=st.floats(0.1, 100),
)
@settings(max_examples=100, deadline=None)
def test_any_range_is_the_unit_range_moved(scores: list[float], low: float, width: float) -> None:
    unit = mean_bounds(np.array(scores), 50, risk=0.05)
    high = low + width
    moved = mean_bounds(np.clip(low + width * np.array(scores), low, high), 50, risk=0.05, low=low, high=high)
    tolerance = 1e-5 * width
    assert moved.lower == pytest.approx(low + width * unit.lower, abs=tolerance)
    assert moved.upper == pytest.approx(low + width * unit.upper, abs=tolerance)


@given(scores=st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_swapping_good_and_bad_mirrors_the_bounds(scores: list[float]) -> None:
    one, other = (mean_bounds(x, 70, risk=0.05) for x in (np.array(scores), 1 - np.array(scores)))
    assert one.lower == pytest.approx(1 - other.upper, abs=1e-6)
    assert one.upper == pytest.approx(1 - other.lower, abs=1e-6)


def test_many_samples_at_once_are_each_alone() -> None:
    scores = np.random.default_rng(0).random((7, 12))
    together = means_bounds(scores, 40, risk=0.05)
    assert together == tuple(mean_bounds(row, 40, risk=0.05) for row in scores)


def test_the_width_is_of_the_known_size() -> None:
    """32 perfect items of very many: the boldest bet alone would exclude means below risk^(1/32) = 0.911."""
    found = mean_bounds(np.ones(32), 10**6, risk=0.05)
    assert 0.85 < found.lower < 0.05 ** (1 / 32)
    assert found.upper == 1.0


def test_a_narrow_population_is_recognised() -> None:
    rng = np.random.default_rng(0)
    narrow = np.clip(rng.normal(0.8, 0.02, 1000), 0, 1)[:100]
    coin = (rng.random(100) < 0.8).astype(float)
    width = [b.upper - b.lower for b in means_bounds(np.array([narrow, coin]), 1000, risk=0.05)]
    assert width[0] < 0.5 * width[1]


def test_scores_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        mean_bounds(np.array([0.5, 1.5]), 10, risk=0.05)
    with pytest.raises(ValueError, match="outside"):
        mean_bounds(np.array([np.nan]), 10, risk=0.05)
    with pytest.raises(ValueError, match="at most"):
        mean_bounds(np.zeros(3), 2, risk=0.05)
