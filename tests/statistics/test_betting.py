"""Betting bounds hold at every look, tighten, and end in the exact mean, with covariates and without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from budget import examples, half_share_of
from circinus.statistics.betting import betting_bounds
from circinus.statistics.covariates import Covariates
from simulated_populations import ALLOWED, POPULATIONS, RISK, RUNS, allowed, misses, random_orders, student_misses

unit_lists = st.lists(st.floats(0, 1), min_size=1, max_size=25)


@pytest.mark.parametrize("name", POPULATIONS)
def test_each_side_fails_at_most_as_often_as_promised_however_often_one_looks(name: str) -> None:
    population = POPULATIONS[name]
    scores = population[random_orders(len(population))][:, :-1]
    below, above = misses(betting_bounds(scores, len(population), risk=RISK), population.mean())
    assert below <= ALLOWED
    assert above <= ALLOWED


@pytest.mark.parametrize("name", ["coin", "bimodal", "correlated strata"])
def test_an_ordinary_interval_misses_more_often_than_it_promises(name: str) -> None:
    population = POPULATIONS[name]
    scores = population[random_orders(len(population))][:, :-1]
    assert student_misses(scores, population.mean()) > 2 * RISK + 3 * np.sqrt(2 * RISK * (1 - 2 * RISK) / RUNS)


@pytest.mark.parametrize("quality", ["true", "noisy", "misleading", "leaking a single item"])
def test_covariates_good_or_bad_leave_the_promise_as_it_is(quality: str) -> None:
    population = POPULATIONS["correlated strata"]
    rng = np.random.default_rng(2)
    covariates = {
        "true": population[:, None],
        "noisy": (np.arange(96)[:, None] % 4 == np.arange(4)).astype(float) + rng.normal(0, 0.3, (96, 4)),
        "misleading": np.where(rng.random((96, 3)) < 0.5, population[:, None], 1 - population[:, None]),
        "leaking a single item": np.eye(96)[:, :40],
    }[quality]
    runs = half_share_of(200)
    bounds = [
        betting_bounds(population[order][None, :-1], 96, risk=RISK, covariates=Covariates.of(covariates[order]))[0]
        for order in random_orders(96, runs=runs)
    ]
    below, above = misses(bounds, population.mean())
    assert below <= allowed(runs)
    assert above <= allowed(runs)


def test_strata_and_a_partner_make_bounds_tighter() -> None:
    rng = np.random.default_rng(0)
    strata = (rng.integers(0, 4, 800)[:, None] == np.arange(4)).astype(float)
    partner = np.clip(strata @ [0.1, 0.3, 0.6, 0.9] + rng.normal(0, 0.15, 800), 0, 1)
    scores = np.clip(partner + rng.normal(0.02, 0.05, 800), 0, 1)[None, :200]
    covariates = {
        "none": None,
        "strata": Covariates.of(strata),
        "both": Covariates.of(np.column_stack([strata, partner])),
    }
    found = {name: betting_bounds(scores, 800, risk=0.05, covariates=c)[0] for name, c in covariates.items()}
    width = {name: bounds.upper - bounds.lower for name, bounds in found.items()}
    assert width["strata"] < 0.8 * width["none"]
    assert width["both"] < 0.85 * width["strata"]


def test_what_is_left_has_no_order() -> None:
    rng = np.random.default_rng(1)
    scores, covariates = rng.random((2, 30)), rng.random((90, 3))
    shuffled = np.vstack([covariates[:30], rng.permutation(covariates[30:])])
    one, other = (betting_bounds(scores, 90, risk=0.05, covariates=Covariates.of(c)) for c in (covariates, shuffled))
    for a, b in zip(one, other, strict=True):
        assert (a.value, a.lower, a.upper) == pytest.approx((b.value, b.lower, b.upper), abs=1e-6)


@given(scores=unit_lists, more=st.integers(0, 40), risk=st.sampled_from([0.01, 0.2]), seed=st.integers(0, 9))
@settings(max_examples=examples(80))
def test_bounds_only_tighten_and_hold_the_possible(scores: list[float], more: int, risk: float, seed: int) -> None:
    values = np.array(scores)[None]
    drawn, population = len(scores), len(scores) + more
    rng = np.random.default_rng(seed)
    covariates = Covariates.of(np.round(rng.random((population, 2)), 1)) if seed % 2 else None
    before = betting_bounds(values[:, :0], population, risk=risk, covariates=covariates)[0]
    assert (before.lower, before.upper) == (0.0, 1.0)
    for n in range(1, drawn + 1):
        now = betting_bounds(values[:, :n], population, risk=risk, covariates=covariates)[0]
        if n < population and now.lower <= before.upper and now.upper >= before.lower:
            assert now.lower >= before.lower - 1e-6
            assert now.upper <= before.upper + 1e-6
        total = values[0, :n].sum()
        assert total / population - 1e-9 <= now.lower <= now.value <= now.upper
        assert now.upper <= (total + population - n) / population + 1e-9
        before = now


@given(scores=unit_lists)
def test_all_items_give_the_plain_mean(scores: list[float]) -> None:
    values = np.array(scores)[None]
    covariates = Covariates.of(np.linspace(0, 1, len(scores))[:, None])
    (found,) = betting_bounds(values, len(scores), risk=0.05, covariates=covariates)
    assert found.lower == found.value == found.upper == values.mean(axis=1)[0]


@given(scores=unit_lists, low=st.floats(-10, 10), width=st.floats(0.1, 100), with_covariates=st.booleans())
def test_any_range_is_the_unit_range_moved(
    scores: list[float], low: float, width: float, with_covariates: bool
) -> None:
    covariates = Covariates.of(np.tile([0.0, 1.0], 25)[:, None]) if with_covariates else None
    values = np.array(scores)[None]
    (unit,) = betting_bounds(values, 50, risk=0.05, covariates=covariates)
    high = low + width
    moved_scores = np.clip(low + width * values, low, high)
    (moved,) = betting_bounds(moved_scores, 50, risk=0.05, low=low, high=high, covariates=covariates)
    for found, expected in ((moved.lower, unit.lower), (moved.value, unit.value), (moved.upper, unit.upper)):
        assert found == pytest.approx(low + width * expected, abs=1e-5 * width)


@given(scores=unit_lists, with_covariates=st.booleans())
@example(scores=[0.0, 0.08], with_covariates=True)
def test_swapping_good_and_bad_mirrors_the_bounds(scores: list[float], with_covariates: bool) -> None:
    covariates = Covariates.of(np.tile([0.0, 0.5, 1.0], 24)[:, None]) if with_covariates else None
    values = np.array(scores)[None]
    one, other = (betting_bounds(x, 72, risk=0.05, covariates=covariates)[0] for x in (values, 1 - values))
    assert (one.lower, one.upper) == pytest.approx((1 - other.upper, 1 - other.lower), abs=1e-6)
    assert one.value == pytest.approx(1 - other.value, abs=1e-6)


def test_many_samples_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(0)
    scores, covariates = rng.random((7, 12)), Covariates.of(rng.random((40, 2)))
    together = betting_bounds(scores, 40, risk=0.05, covariates=covariates)
    for row, found in zip(scores, together, strict=True):
        (alone,) = betting_bounds(row[None], 40, risk=0.05, covariates=covariates)
        assert (found.lower, found.upper) == pytest.approx((alone.lower, alone.upper), abs=1e-6)


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"score 1\.5 of configuration 1, item 2"):
        betting_bounds(np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 1.5]]), 10, risk=0.05)
    with pytest.raises(ValueError, match=r"score nan of configuration 0, item 0"):
        betting_bounds(np.array([[np.nan]]), 10, risk=0.05)
    with pytest.raises(ValueError, match="at most the population's 2"):
        betting_bounds(np.zeros((1, 3)), 2, risk=0.05)
    with pytest.raises(ValueError, match=r"\(configurations, items\)"):
        betting_bounds(np.zeros(3), 5, risk=0.05)
    with pytest.raises(ValueError, match="empty"):
        betting_bounds(np.zeros((1, 3)), 5, risk=0.05, low=1.0, high=0.0)
    with pytest.raises(ValueError, match="covariates of 4 items, expected all 5"):
        betting_bounds(np.zeros((1, 3)), 5, risk=0.05, covariates=Covariates.of(np.zeros((4, 1))))
