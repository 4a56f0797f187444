"""Thresholds are met with the probability that Student's distribution gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.planning.sampler.feasibility import feasibility_probability


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(-1, 1))
def test_the_chance_to_keep_a_threshold_is_that_of_students_distribution(
    mean: float, deviation: float, threshold: float
) -> None:
    up = feasibility_probability(np.array([mean]), np.array([deviation]), threshold, at_least=True)[0]
    down = feasibility_probability(np.array([mean]), np.array([deviation]), threshold, at_least=False)[0]
    # Numerical integral of the density with five degrees of freedom and a variance of 1.
    x = np.linspace(-60.0, (mean - threshold) / deviation, 200_001)
    density = 8 / (3 * np.pi * np.sqrt(5)) * np.sqrt(5 / 3) * (1 + x**2 / 3) ** -3
    expected = float(((density[1:] + density[:-1]) / 2 * np.diff(x)).sum())
    assert up == pytest.approx(expected, abs=1e-5)
    assert up + down == pytest.approx(1.0)
