from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.queueing.sorting_kernel import sorted_times_s, stable_order


@given(st.integers(1, 400), st.sampled_from([0, 1, 2, 16]), st.integers(0, 10**6))
def test_order_is_that_of_a_stable_sort(count: int, digits: int, seed: int) -> None:
    """Few digits give many equal values, and large exponents use the highest bits."""
    rng = np.random.default_rng(seed)
    values = rng.exponential(1.0, count).round(digits) * 10.0 ** rng.choice([0, seed % 300, -300], count)
    np.testing.assert_array_equal(stable_order(values), np.argsort(values, kind="stable"))


@given(st.integers(0, 400), st.sampled_from([0.1, 1.0, 30.0]), st.sampled_from([1, 3, 16]), st.integers(0, 10**6))
def test_times_are_sorted_at_any_rate(count: int, rate_per_s: float, digits: int, seed: int) -> None:
    """Also at rates that are not theirs, with equal times, and up to the end of the duration."""
    times_s = np.random.default_rng(seed).uniform(0.0, 10.0, count).round(digits)
    np.testing.assert_array_equal(sorted_times_s(times_s, 10.0, rate_per_s), np.sort(times_s))
