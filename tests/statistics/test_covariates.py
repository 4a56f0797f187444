"""Covariates keep every combination once."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.statistics.betting import betting_bounds
from circinus.statistics.covariates import Covariates


def test_combinations_are_kept_once_and_found_again() -> None:
    columns = np.array([[1.0, 0.5], [0.0, 0.5], [1.0, 0.5], [1.0, 0.25]])
    known = Covariates.of(columns)
    assert len(known.rows) == 3
    assert np.array_equal(known.rows[known.kind], columns)


def test_counts_are_of_the_items_left() -> None:
    known = Covariates.of(np.array([[0.0], [1.0], [0.0], [2.0]]))
    assert known.counts(0).tolist() == [2, 1, 1]
    assert known.counts(2).tolist() == [1, 0, 1]
    assert known.counts(4).tolist() == [0, 0, 0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="item 2"):
        Covariates.of(np.array([[0.0], [1.0], [np.inf]]))
    with pytest.raises(ValueError, match=r"\(3,\)"):
        Covariates.of(np.zeros(3))
    with pytest.raises(ValueError, match="of 3 items, expected all 4"):
        Covariates.of(np.zeros((3, 1))).check(4)


def test_without_a_column_all_is_as_without_covariates() -> None:
    scores = np.random.default_rng(0).random((2, 20))
    empty = betting_bounds(scores, 50, risk=0.05, covariates=Covariates.of(np.zeros((50, 0))))
    for found, expected in zip(empty, betting_bounds(scores, 50, risk=0.05), strict=True):
        assert (found.value, found.lower, found.upper) == pytest.approx(
            (expected.value, expected.lower, expected.upper), abs=1e-6
        )
