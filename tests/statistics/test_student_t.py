"""Student's distribution, against tables and against its density."""

from __future__ import annotations

import math

import numpy as np
import pytest

from circinus.statistics.student_t import student_t_cdf, student_t_quantile


@pytest.mark.parametrize(
    ("risk", "freedom", "expected"),
    [
        (0.05, 1, 6.3138),
        (0.001, 2, 22.327),
        (0.0001, 7, 7.0634),
        (0.001, 8, 4.5008),
        (0.00001, 29, 5.0855),
        (0.001, 60, 3.2317),
        (0.025, 200, 1.9719),
        (0.001, 500, 3.1066),
    ],
)
def test_students_distribution(risk: float, freedom: int, expected: float) -> None:
    """Compare with tables (and scipy's `t.isf`)."""
    assert student_t_quantile(risk, freedom) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("freedom", [1, 2, 5, 8, 61, 600])
def test_probabilities_are_areas_under_the_density(freedom: int) -> None:
    t = np.linspace(-8.0, 8.0, 16_001)
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi * freedom) / 2
    density = np.exp(scale - (freedom + 1) / 2 * np.log1p(t**2 / freedom))
    found = student_t_cdf(t, freedom)
    assert found[8000] == 0.5
    areas = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(t))])
    np.testing.assert_allclose(found - found[0], areas, atol=1e-6)
