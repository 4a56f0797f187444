"""Verdicts kept up as items come: the same as those begun from the first item."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.profiling.confidence_sequences import (
    Covariates,
    SequentialThresholdTest,
    one_hot_strata,
    threshold_decisions,
)

THRESHOLDS = np.array([-0.1, 0.0, 0.2, 0.5, 0.52, 0.8, 1.0, 1.2])


@given(
    seed=st.integers(0, 10_000),
    population=st.integers(1, 150),
    steps=st.lists(st.integers(0, 40), max_size=6),
    with_covariates=st.booleans(),
)
def test_in_any_steps_they_are_those_of_all_items_at_once(
    seed: int, population: int, steps: list[int], with_covariates: bool
) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.integers(0, 3, population)
    scores = np.clip(rng.normal(0.5, 0.1, population) + 0.2 * (strata - 1), 0, 1)
    covariates = Covariates.of(one_hot_strata([{"s": str(s)} for s in strata])) if with_covariates else None
    running = SequentialThresholdTest(population, THRESHOLDS, risk=0.05, covariates=covariates)
    for step in steps:
        running.extend(scores[running.items : running.items + step])
        begun = threshold_decisions(
            scores[None, : running.items], population, THRESHOLDS, risk=0.05, covariates=covariates
        )
        found = running.verdicts
        assert found.exhausted == begun.exhausted
        np.testing.assert_array_equal(found.above, begun.above)
        np.testing.assert_array_equal(found.below, begun.below)


def test_another_range_is_the_unit_range_moved() -> None:
    scores = np.random.default_rng(1).uniform(0, 1, 60)
    plain = SequentialThresholdTest(100, np.array([0.2, 0.4]), risk=0.1)
    moved = SequentialThresholdTest(100, np.array([-1.0 + 4 * 0.2, -1.0 + 4 * 0.4]), risk=0.1, low=-1.0, high=3.0)
    plain.extend(scores)
    moved.extend(4 * scores - 1)
    assert plain.verdicts.above.tolist() == moved.verdicts.above.tolist()
    assert plain.verdicts.above.any()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        SequentialThresholdTest(10, THRESHOLDS, risk=0.1, low=1.0, high=1.0)
    with pytest.raises(ValueError, match="expected all 10"):
        SequentialThresholdTest(10, THRESHOLDS, risk=0.1, covariates=Covariates.of(np.ones((9, 1))))
    running = SequentialThresholdTest(10, THRESHOLDS, risk=0.1)
    with pytest.raises(ValueError, match=r"outside \[0.0, 1.0\]"):
        running.extend(np.array([0.5, 1.5]))
    assert running.items == 0
