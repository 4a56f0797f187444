"""What counts as a score."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from circinus.profiling.dataset.scorer import validate_score


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.25, 0.25), (True, 1.0), (np.float32(0.5), 0.5), (1.0000000000000002, 1.0), (-1e-12, 0.0)],
)
def test_scores_are_numbers_in_the_range_but_for_rounding(score: Any, expected: float) -> None:
    found = validate_score(score, (0.0, 1.0))
    assert found == expected
    assert type(found) is float


@pytest.mark.parametrize("score", [1.001, -0.001, math.nan, math.inf, None, "good", [0.5], 10**400])
def test_anything_else_is_no_score(score: Any) -> None:
    assert validate_score(score, (0.0, 1.0)) is None


def test_rounding_is_relative_to_the_width_of_the_range() -> None:
    assert validate_score(100.00000001, (0.0, 100.0)) == 100.0
    assert validate_score(1.0 + 1e-8, (0.0, 1.0)) is None
