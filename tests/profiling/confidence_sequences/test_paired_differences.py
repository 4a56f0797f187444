"""Differences on the same items: the promise holds, and what two configurations share does not count."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_populations import ALLOWED, POPULATIONS, RISK, misses, random_orders

from circinus.profiling.confidence_sequences import betting_bounds, bounds_via_difference, difference_bounds
from circinus.profiling.interval import Interval


def _pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    one = POPULATIONS[name]
    rng = np.random.default_rng(8)
    return one, np.where(rng.random(len(one)) < 0.15, 1 - one, np.clip(one - 0.05, 0, 1))


@pytest.mark.parametrize("name", ["coin", "skewed", "correlated strata", "Bernoulli near 0"])
def test_each_side_fails_at_most_as_often_as_promised(name: str) -> None:
    one, other = _pair(name)
    orders = random_orders(len(one))[:, :-1]
    bounds = difference_bounds(one[orders], other[orders], len(one), risk=RISK)
    below, above = misses(bounds, (one - other).mean())
    assert below <= ALLOWED
    assert above <= ALLOWED


@pytest.mark.parametrize("name", ["skewed", "correlated strata"])
def test_the_way_through_a_partner_fails_at_most_as_often_as_both_parts(name: str) -> None:
    """The partner is known on three quarters of the items, the other on half: every risk is a half of the whole."""
    one, other = _pair(name)
    size, orders = len(one), random_orders(len(one))
    longer, shorter = orders[:, : size * 3 // 4], orders[:, : size // 2]
    partner = betting_bounds(other[longer], size, risk=RISK / 2)
    difference = difference_bounds(one[shorter], other[shorter], size, risk=RISK / 2)
    through = [bounds_via_difference(p, d) for p, d in zip(partner, difference, strict=True)]
    below, above = misses(through, one.mean())
    assert below <= ALLOWED
    assert above <= ALLOWED


def test_differences_of_like_configurations_are_known_sooner_than_their_means() -> None:
    rng = np.random.default_rng(0)
    one = (rng.random((1, 400)) < 0.5) * 0.9
    other = one + 0.02 + rng.normal(0, 0.005, one.shape)
    (alone,) = betting_bounds(one, 4000, risk=0.05)
    (paired,) = difference_bounds(one, other, 4000, risk=0.05)
    assert paired.upper - paired.lower < 0.25 * (alone.upper - alone.lower)
    assert paired.upper < 0


def test_one_partner_serves_all_and_swapping_changes_the_sign() -> None:
    rng = np.random.default_rng(1)
    several, partner = 3 + 4 * rng.random((3, 20)), 3 + 4 * rng.random((1, 20))
    one = difference_bounds(several, partner, 50, risk=0.05, low=3, high=7)
    other = difference_bounds(np.broadcast_to(partner, (3, 20)), several, 50, risk=0.05, low=3, high=7)
    for a, b in zip(one, other, strict=True):
        assert (a.value, a.lower, a.upper) == pytest.approx((-b.value, -b.upper, -b.lower), abs=1e-5)
    exact = difference_bounds(several, partner, 20, risk=0.05, low=3, high=7)
    assert exact[1].lower == exact[1].upper == pytest.approx(several[1].mean() - partner.mean())


def test_through_a_partner_bounds_add_and_stay_in_the_range() -> None:
    found = bounds_via_difference(Interval(0.5, 0.4, 0.6), Interval(0.1, 0.05, 0.2))
    assert (found.value, found.lower, found.upper) == pytest.approx((0.6, 0.45, 0.8))
    assert bounds_via_difference(Interval(0.9, 0.8, 1.0), Interval(0.3, 0.1, 0.5)) == Interval(1.0, 0.9, 1.0)
    assert bounds_via_difference(Interval(0.1, 0.0, 0.2), Interval(-0.5, -0.6, -0.4)) == Interval(0.0, 0.0, 0.0)


def test_scores_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match="configuration 0, item 1"):
        difference_bounds(np.array([[0.5, 0.5]]), np.array([[0.5, 1.1]]), 10, risk=0.05)
