"""Empirical Bernstein bounds hold at every look, tighten, and are wider than betting."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from benchmarks.profiling.empirical_bernstein import empirical_bernstein_bounds
from hypothesis import given
from hypothesis import strategies as st

from circinus.statistics.betting import betting_bounds
from simulated_populations import ALLOWED, POPULATIONS, RISK, misses, random_orders


@pytest.mark.parametrize("name", POPULATIONS)
def test_each_side_fails_at_most_as_often_as_promised_however_often_one_looks(name: str) -> None:
    population = POPULATIONS[name]
    scores = population[random_orders(len(population))][:, :-1]
    below, above = misses(empirical_bernstein_bounds(scores, len(population), risk=RISK), population.mean())
    assert below <= ALLOWED
    assert above <= ALLOWED


@given(scores=st.lists(st.floats(0, 1), min_size=2, max_size=30), more=st.integers(1, 40))
def test_bounds_only_tighten_mirror_and_end_in_the_mean(scores: list[float], more: int) -> None:
    values = np.array(scores)[None]
    population = len(scores) + more
    looks = [empirical_bernstein_bounds(values[:, :n], population, risk=0.1)[0] for n in range(len(scores) + 1)]
    for before, now in pairwise(looks):
        assert now.lower <= now.value <= now.upper
        if now.lower <= before.upper and now.upper >= before.lower:
            assert now.lower >= before.lower - 1e-9
            assert now.upper <= before.upper + 1e-9
    (mirrored,) = empirical_bernstein_bounds(1 - values, population, risk=0.1)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((1 - looks[-1].upper, 1 - looks[-1].lower))
    (moved,) = empirical_bernstein_bounds(values * 4 - 2, population, risk=0.1, low=-2, high=2)
    assert (moved.lower, moved.upper) == pytest.approx((4 * looks[-1].lower - 2, 4 * looks[-1].upper - 2))
    (exact,) = empirical_bernstein_bounds(values, len(scores), risk=0.1)
    assert exact.lower == exact.upper == values.mean()


def test_the_first_items_of_very_many_bound_what_the_formula_says() -> None:
    """Worked by hand for three perfect scores at so great a risk that every bet is the greatest."""
    (found,) = empirical_bernstein_bounds(np.array([[1.0, 1.0, 1.0]]), 10**9, risk=0.9)
    log_risk, spread = np.log(1 / 0.9), np.log(2) - 0.5
    # The means before each item are taken as 1/2, 3/4, 5/6.
    seen = (0.25 + 1 / 16 + 1 / 36) * spread
    assert found.lower == pytest.approx(1 - (seen + log_risk) / 1.5, abs=1e-6)


def test_betting_is_tighter() -> None:
    for name, population in POPULATIONS.items():
        scores = population[random_orders(len(population), runs=20)][:, : len(population) // 2]
        bernstein, betting = (
            np.mean([b.upper - b.lower for b in bounds(scores, len(population), risk=0.05)])
            for bounds in (empirical_bernstein_bounds, betting_bounds)
        )
        assert betting < bernstein, name


def test_scores_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match="configuration 0, item 1"):
        empirical_bernstein_bounds(np.array([[0.5, -0.1]]), 10, risk=0.05)
