"""Dependence of consecutive values, against processes whose autocorrelations are given."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.statistics.autocorrelation import autocorrelation_time


@pytest.mark.parametrize(("coefficient", "expected"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_autoregressive_values_count_as_fewer(coefficient: float, expected: float) -> None:
    rng, values = np.random.default_rng(0), np.zeros(50_000)
    noise = rng.standard_normal(len(values))
    for index in range(1, len(values)):
        values[index] = coefficient * values[index - 1] + noise[index]
    assert autocorrelation_time(values) == pytest.approx(expected, rel=0.15)


def test_values_that_alternate_or_do_not_vary_are_not_dependent() -> None:
    assert (
        autocorrelation_time([1.0]) == autocorrelation_time([2.0] * 9) == autocorrelation_time([0.0, 1.0] * 50) == 1.0
    )
