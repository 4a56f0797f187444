from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from circinus.queueing.sorting_kernel import stable_order


@given(st.integers(1, 400), st.sampled_from([0, 1, 2, 16]), st.integers(0, 10**6))
def test_order_is_that_of_a_stable_sort(count: int, digits: int, seed: int) -> None:
    """Few digits give many equal values, and large exponents use the highest bits."""
    rng = np.random.default_rng(seed)
    values = rng.exponential(1.0, count).round(digits) * 10.0 ** rng.choice([0, seed % 300, -300], count)
    np.testing.assert_array_equal(stable_order(values), np.argsort(values, kind="stable"))
