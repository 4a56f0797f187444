"""Probabilities of counts, against numbers of ways; bounds of quantiles keep their risk for any distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.statistics.counts import (
    binomial_probabilities,
    hypergeometric_critical_count,
    median_bounds,
    median_unbiased_ranks,
    percentile_bounds,
    percentile_sample_size,
)


@pytest.mark.parametrize("count", [0, 1, 7, 60])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_binomial_probabilities_count_the_ways(count: int, share: float) -> None:
    ways = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    assert binomial_probabilities(count, share) == pytest.approx(ways, rel=1e-9)


@pytest.mark.parametrize("marked", [0, 1, 5, 10, 50])
@pytest.mark.parametrize("risk", [0.05, 1e-6])
def test_the_critical_count_is_the_smallest_that_keeps_the_risk(marked: int, risk: float) -> None:
    population = 100
    for drawn in range(population + 1):
        found = hypergeometric_critical_count(drawn, population, marked, risk)
        ways = [math.comb(marked, k) * math.comb(population - marked, drawn - k) for k in range(drawn + 1)]
        assert sum(ways[found:]) <= risk * (1 + 1e-9) * math.comb(population, drawn)
        assert sum(ways[found - 1 :]) > risk * (1 - 1e-9) * math.comb(population, drawn)
    assert hypergeometric_critical_count(population, population, marked, risk) == marked + 1  # no sampling error


def test_many_items_can_be_counted() -> None:
    assert 1_000 < hypergeometric_critical_count(20_000, 100_000, 5_000, 0.05) < 1_100
    assert 13 < hypergeometric_critical_count(256, 10**9, 5 * 10**7, 0.05) < 25  # live traffic has no known end


def test_known_numbers() -> None:
    assert percentile_sample_size(95, 0.05) == 59  # Wilks' classic
    assert percentile_sample_size(99, 0.05) == 299
    assert percentile_sample_size(50, 0.05) == 5


@given(percentile=st.floats(1, 99.9), risk=st.floats(1e-6, 0.5))
def test_the_fewest_that_keep_the_risk(percentile: float, risk: float) -> None:
    items = percentile_sample_size(percentile, risk)
    assert (percentile / 100) ** items <= risk * (1 + 1e-9)
    assert (percentile / 100) ** (items - 1) > risk * (1 - 1e-9)


def test_drawing_without_replacement_needs_no_more() -> None:
    rng = np.random.default_rng(5)
    population = np.arange(120)
    largest = np.array([rng.permutation(population)[:59].max() for _ in range(2000)])
    misses = float((largest < np.quantile(population, 0.95)).mean())
    assert misses < 0.05


@pytest.mark.parametrize(("n", "risk"), [(6, 0.1), (15, 0.05), (24, 0.0125), (40, 0.3)])
def test_bounds_of_a_median_fail_as_rarely_as_promised(n: int, risk: float) -> None:
    rng = np.random.default_rng(0)
    misses, trials = 0, 4000
    for _ in range(trials):
        found = median_bounds(rng.lognormal(size=n), risk)  # its median is 1
        misses += not found.lower <= 1.0 <= found.upper
    assert misses / trials <= risk + 3 * np.sqrt(risk / trials)


def test_bounds_of_a_median_are_the_narrowest_order_statistics() -> None:
    values = np.arange(10.0)
    # P(B <= 1) = 11 / 1024 for ten coins: the second and the ninth, unless more than twice that is asked for.
    assert median_bounds(values, 2 * 11.1 / 1024).lower == 1.0
    assert median_bounds(values, 2 * 10.9 / 1024).lower == 0.0
    for n in (1, 2, 3):
        found = median_bounds(values[:n], 0.01)
        assert (found.lower, found.upper) == (0.0, n - 1.0)


@given(percentile=st.floats(1, 99.9), size=st.integers(1, 300))
def test_ranks_err_to_each_side_in_at_most_half_of_the_samples(percentile: float, size: int) -> None:
    share = percentile / 100
    below = [math.comb(size, k) * share**k * (1 - share) ** (size - k) for k in range(size + 1)]
    lower, upper = median_unbiased_ranks(percentile, size)
    assert 1 <= lower <= upper + 1
    assert upper == size or sum(below[:upper]) >= 0.5 - 1e-9  # fewer than `upper` values lie below the percentile
    assert lower == 1 or sum(below[lower:]) >= 0.5 - 1e-9  # at least `lower` values do


@given(
    count=st.integers(1, 400),
    percentile=st.floats(1, 99),
    risk=st.floats(1e-4, 0.4),
    repeats=st.integers(1, 3),
)
def test_bounds_of_a_percentile_are_the_closest_that_keep_the_risk(
    count: int, percentile: float, risk: float, repeats: int
) -> None:
    """Repeating every value does not move the bounds if the effective number stays."""
    lower, upper = percentile_bounds(np.repeat(np.arange(1.0, count + 1), repeats), percentile, risk, count)
    at_most = np.cumsum(binomial_probabilities(count, percentile / 100))
    if math.isfinite(lower):
        assert at_most[int(lower) - 1] <= risk
    if lower < count:
        assert at_most[max(int(lower), 0) if math.isfinite(lower) else 0] > risk
    if math.isfinite(upper):
        assert 1 - at_most[int(upper) - 1] <= risk
        assert upper == 1 or 1 - at_most[int(upper) - 2] > risk
    else:
        assert count < percentile_sample_size(percentile, risk)


def test_infinite_values_are_the_largest() -> None:
    values = np.concatenate([np.arange(100.0), np.full(900, np.inf)])
    assert percentile_bounds(values, 95.0, 0.05, 1000) == (np.inf, np.inf)
    assert percentile_bounds(values, 5.0, 0.05, 1000)[1] < 70
