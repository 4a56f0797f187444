"""Predictions by covariates: a ridge regression that is believed where it would have helped so far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.statistics.covariates import Covariates
from circinus.statistics.prediction import predicted_means, predictions


def _ridge(columns: np.ndarray, scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    centre = columns.mean(axis=0)
    gram = (columns - centre).T @ (columns - centre) + np.eye(columns.shape[1])
    slopes = np.linalg.solve(gram, (columns - centre).T @ (scores - scores.mean()))
    found: np.ndarray = scores.mean() + (others - centre) @ slopes
    return found


def _helps(columns: np.ndarray, scores: np.ndarray) -> bool:
    """Leave-one-out by its definition for the slopes: the item's own score and mean play no part.

    The centre stays that of all, whence the tolerance where this is used.
    """
    ridge = mean = 0.0
    for left_out in range(len(scores)):
        rest = np.delete(np.arange(len(scores)), left_out)
        predicted = _ridge(columns[rest], scores[rest], columns[left_out : left_out + 1])[0]
        ridge += (scores[left_out] - predicted) ** 2
        mean += (scores[left_out] - scores[rest].mean()) ** 2
    return ridge < mean


@pytest.mark.parametrize("items", [6, 20, 60])
@pytest.mark.parametrize("kinds", [3, 1000])
def test_it_is_a_ridge_regression_or_the_mean_as_leaving_one_out_says(items: int, kinds: int) -> None:
    rng = np.random.default_rng(items + kinds)
    agreed = regressed = 0
    for strength in np.linspace(0, 0.6, 60):
        columns = rng.random((80, 2)) if kinds > 80 else rng.integers(0, 2, (80, 2)).astype(float)
        scores = np.clip(0.2 + strength * columns[:, 0] + 0.2 * rng.random(80), 0, 1)[:items]
        covariates = Covariates.of(columns)
        found = predictions(scores[None], covariates)[0, covariates.kind]
        helps = _helps(columns[:items], scores)
        expected = _ridge(columns[:items], scores, columns) if helps else np.full(80, scores.mean())
        agreed += np.allclose(found, np.clip(expected, 0, 1))
        regressed += helps
    assert 10 < regressed < 60
    assert agreed >= 59  # the two differ in what centre an item left out is seen from


def test_each_configuration_decides_for_itself() -> None:
    rng = np.random.default_rng(0)
    columns = np.eye(2)[rng.integers(0, 2, 100)]
    told, noise = 0.3 + 0.4 * columns[:, 0], 0.5 + 0.3 * np.where(np.arange(100) % 4 < 2, 1.0, -1.0)
    columns = np.hstack([columns, rng.random((100, 3))])
    covariates = Covariates.of(columns)
    together = predictions(np.stack([told, noise])[:, :40], covariates)
    assert np.std(together[0]) > 0.1
    assert np.allclose(together[1], noise[:40].mean())
    for row, scores in enumerate((told, noise)):
        assert np.allclose(together[row], predictions(scores[None, :40], covariates)[0])


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_mean_of_all_items_is_their_plain_mean(items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, columns = rng.random((2, items)), rng.integers(0, 2, (items, 3)).astype(float)
    assert np.allclose(predicted_means(scores, Covariates.of(columns), items), scores.mean(axis=1))
