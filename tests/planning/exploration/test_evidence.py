"""Items that all configurations share are told apart from what the configurations do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circinus.planning.exploration.evidence import evidence_of

POPULATION = 400


def _table(rng: np.random.Generator, count: int, rest: float) -> tuple[np.ndarray, np.ndarray]:
    """(count, POPULATION) scores, and the configurations' parts, the items adding up to nothing."""
    items = rng.normal(0, 0.2, POPULATION)
    items -= items.mean()
    own = rng.uniform(0.3, 0.7, count)
    return own[:, None] + items + rng.normal(0, rest, (count, POPULATION)), own


@given(seed=st.integers(0, 10_000), count=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_equally_many_items_give_plain_means(seed: int, count: int) -> None:
    scores, _ = _table(np.random.default_rng(seed), count, 0.1)
    found = evidence_of(list(scores[:, :30]), POPULATION, 1.0)
    np.testing.assert_allclose(found.means, scores[:, :30].mean(axis=1), atol=1e-9)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_where_parts_add_up_few_items_tell_as_much_as_many(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, own = _table(rng, 4, 0.0)
    lengths = [POPULATION, *rng.integers(4, 40, 3).tolist()]
    found = evidence_of([row[:n] for row, n in zip(scores, lengths, strict=True)], POPULATION, 1.0)
    np.testing.assert_allclose(found.means, own, atol=1e-6)
    assert found.common_variance == pytest.approx(0.0)


def test_errors_are_as_great_as_said() -> None:
    """Standardised errors of differences to the configuration measured on most have a variance of about one."""
    rng = np.random.default_rng(5)
    lengths = [200, 40, 16, 16, 8]
    scaled, common = [], []
    for _ in range(300):
        scores, own = _table(rng, 5, 0.08)
        found = evidence_of([row[:n] for row, n in zip(scores, lengths, strict=True)], POPULATION, 1.0)
        errors = found.means - own
        scaled.append((errors[1:] - errors[0]) / np.sqrt(found.variances[1:] + found.variances[0]))
        common.append(errors[0] ** 2 / (found.variances[0] + found.common_variance))
    assert 0.4 < float(np.mean(np.square(scaled))) < 1.3
    assert 0.4 < float(np.mean(common)) < 1.3


def test_equal_scores_are_no_proof_of_certainty() -> None:
    found = evidence_of([np.ones(8), np.ones(8)], POPULATION, 1.0)
    assert (found.variances > 0).all()
    assert found.common_variance > 0
