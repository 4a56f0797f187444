"""Effects of shared items are separated from effects of configurations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.planning.sampler.mean_estimation import estimate_mean_scores

POPULATION = 400


def _table(rng: np.random.Generator, count: int, rest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (count, POPULATION) scores and the configurations' effects; item effects have mean 0."""
    items = rng.normal(0, 0.2, POPULATION)
    items -= items.mean()
    own = rng.uniform(0.3, 0.7, count)
    return own[:, None] + items + rng.normal(0, rest, (count, POPULATION)), own


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
def test_equally_many_items_give_plain_means(seed: int, count: int) -> None:
    scores, _ = _table(np.random.default_rng(seed), count, 0.1)
    found = estimate_mean_scores(list(scores[:, :30]), POPULATION, 1.0)
    np.testing.assert_allclose(found.means, scores[:, :30].mean(axis=1), atol=1e-9)


@given(seed=st.integers(0, 10_000))
def test_where_parts_add_up_few_items_tell_as_much_as_many(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, own = _table(rng, 4, 0.0)
    lengths = [POPULATION, *rng.integers(4, 40, 3).tolist()]
    found = estimate_mean_scores([row[:n] for row, n in zip(scores, lengths, strict=True)], POPULATION, 1.0)
    np.testing.assert_allclose(found.means, own, atol=1e-6)
    assert found.common_variance == pytest.approx(0.0)


def test_errors_are_as_great_as_said() -> None:
    """Standardised errors of differences to the configuration with most items have a variance of about one."""
    rng = np.random.default_rng(5)
    lengths = [200, 40, 16, 16, 8]
    scaled, common = [], []
    for _ in range(300):
        scores, own = _table(rng, 5, 0.08)
        found = estimate_mean_scores([row[:n] for row, n in zip(scores, lengths, strict=True)], POPULATION, 1.0)
        errors = found.means - own
        scaled.append((errors[1:] - errors[0]) / np.sqrt(found.variances[1:] + found.variances[0]))
        common.append(errors[0] ** 2 / (found.variances[0] + found.common_variance))
    assert 0.4 < float(np.mean(np.square(scaled))) < 1.3
    assert 0.4 < float(np.mean(common)) < 1.3


def test_differences_of_configurations_known_on_equally_many_items_are_as_uncertain_as_said() -> None:
    rng = np.random.default_rng(6)
    scaled = []
    for _ in range(300):
        scores, own = _table(rng, 6, 0.08)
        found = estimate_mean_scores(list(scores[:, :16]), POPULATION, 1.0)
        errors = found.means - own
        first, second = rng.choice(6, 2, replace=False)
        scaled.append((errors[first] - errors[second]) ** 2 / (found.variances[first] + found.variances[second]))
    assert 0.6 < float(np.mean(scaled)) < 1.3


@given(seed=st.integers(0, 10_000))
def test_the_order_of_configurations_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, _ = _table(rng, 5, 0.1)
    rows = [row[:n] for row, n in zip(scores, [16, 16, 8, 32, 32], strict=True)]
    order = rng.permutation(5)
    found = estimate_mean_scores(rows, POPULATION, 1.0)
    other = estimate_mean_scores([rows[row] for row in order], POPULATION, 1.0)
    np.testing.assert_allclose(found.means[order], other.means)
    np.testing.assert_allclose(found.variances[order], other.variances)


def test_equal_scores_are_no_proof_of_certainty() -> None:
    found = estimate_mean_scores([np.ones(8), np.ones(8)], POPULATION, 1.0)
    assert (found.variances > 0).all()
    assert found.common_variance > 0


def test_what_was_measured_on_everything_is_exact() -> None:
    scores, _ = _table(np.random.default_rng(3), 3, 0.1)
    found = estimate_mean_scores([scores[0], scores[1, :16], scores[2, :8]], POPULATION, 1.0)
    assert found.means[0] == pytest.approx(scores[0].mean())
    assert found.variances[0] == pytest.approx(0.0)
    assert found.common_variance == pytest.approx(0.0)


def test_items_matter_less_to_some_configurations() -> None:
    rng = np.random.default_rng(7)
    items = rng.normal(0, 0.2, POPULATION)
    scores = np.array([[0.5], [0.5], [0.9]]) + np.array([[1.0], [1.0], [0.2]]) * items
    found = estimate_mean_scores([scores[0], scores[1, :40], scores[2, :40]], POPULATION, 1.0)
    assert found.means[2] == pytest.approx(scores[2].mean(), abs=0.02)
