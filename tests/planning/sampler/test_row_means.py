"""Row means of a table with gaps equal the least squares solution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.planning.sampler import mean_estimation as two_way
from circinus.planning.sampler.mean_estimation import two_way_row_means


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 5))
def test_means_and_their_errors_are_those_of_least_squares(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    columns = int(rng.integers(3, 9))
    table = rng.uniform(0, 1, (rows, columns))
    gaps = rng.random((rows, columns)) < 0.4
    gaps[rng.integers(rows)] = False
    gaps[np.arange(rows), rng.integers(0, columns, rows)] = False
    row, column = np.nonzero(~gaps)
    design = np.zeros((len(row), rows + columns))
    design[np.arange(len(row)), row] = design[np.arange(len(row)), rows + column] = 1.0
    values = table[row, column]
    wanted = np.concatenate([np.eye(rows), np.full((rows, columns), 1.0 / columns)], axis=1) @ np.linalg.pinv(design)
    squares = float(((values - design @ (np.linalg.pinv(design) @ values)) ** 2).sum())
    variance = (squares + 0.01) / (len(row) - np.linalg.matrix_rank(design) + 1)
    found = two_way_row_means(np.where(gaps, np.nan, table), 0.01)
    assert found.rows.tolist() == list(range(rows))
    np.testing.assert_allclose(found.means, wanted @ values, atol=1e-9)
    np.testing.assert_allclose(found.variances, variance * (wanted**2).sum(axis=1), atol=1e-9)


def test_errors_are_as_great_as_said() -> None:
    rng = np.random.default_rng(3)
    squares = []
    for _ in range(300):
        own, parts = rng.uniform(0.3, 0.7, 4), rng.normal(0, 0.3, 80)
        table = own[:, None] + parts + rng.normal(0, 0.1, (4, 80))
        for row, length in enumerate((80, 40, 16, 8)):
            table[row, length:] = np.nan
        found = two_way_row_means(table, 1e-4)
        squares.append((found.means - own - parts.mean()) ** 2 / found.variances)
    means = np.mean(squares, axis=0)
    assert (means > 0.7).all()
    assert (means < 1.3).all()


def test_what_cannot_be_compared_is_left_out() -> None:
    table = np.array([[0.1, 0.3, np.nan], [np.nan, np.nan, 0.9], [0.2, np.nan, np.nan]])
    found = two_way_row_means(table, 0.0)
    assert found.rows.tolist() == [0, 2]
    assert found.means == pytest.approx([0.2, 0.3])


def test_of_many_rows_with_gaps_those_with_most_values_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_way, "_MAX_ROWS", 2)
    table = np.array([[0.1, np.nan], [0.2, 0.3], [0.4, 0.5], [0.6, np.nan]])
    assert two_way_row_means(table, 0.0).rows.tolist() == [1, 2]
    assert two_way_row_means(np.nan_to_num(table), 0.0).rows.tolist() == [0, 1, 2, 3]
