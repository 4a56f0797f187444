"""Decisions agree with the bounds, for any number of thresholds and however items come, and are seldom wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from circinus.statistics.betting import betting_bounds
from circinus.statistics.covariates import Covariates, one_hot_strata
from circinus.statistics.sequential_test import SequentialThresholdTest, ThresholdDecisions
from simulated_populations import ALLOWED, POPULATIONS, RISK, random_orders

THRESHOLDS = np.array([-0.5, 0.0, 0.2, 0.35, 0.5, 0.52, 0.65, 0.8, 1.0, 1.5])


def _decisions(
    scores: np.ndarray,
    population: int,
    thresholds: np.ndarray,
    risk: float = 0.05,
    covariates: Covariates | None = None,
) -> ThresholdDecisions:
    running = SequentialThresholdTest(population, thresholds, risk=risk, covariates=covariates)
    running.extend(scores)
    return running.decisions


@example(scores=[0.875, 0.625] + [0.0] * 10, more=1, with_covariates=False)  # excludes all that remains possible
@given(
    scores=st.lists(st.floats(0, 1), min_size=0, max_size=30), more=st.integers(1, 40), with_covariates=st.booleans()
)
def test_decisions_are_what_the_bounds_say(scores: list[float], more: int, with_covariates: bool) -> None:
    values = np.array(scores)
    population = len(values) + more
    covariates = Covariates.of((np.arange(population) % 3 == 0)[:, None].astype(float)) if with_covariates else None
    decisions = _decisions(values, population, THRESHOLDS, 0.1, covariates)
    (bounds,) = betting_bounds(values[None], population, risk=0.1, covariates=covariates)
    for threshold, above, below in zip(THRESHOLDS, decisions.above, decisions.below, strict=True):
        if abs(threshold - bounds.lower) > 1e-6:
            assert above == (threshold < bounds.lower)
        if abs(threshold - bounds.upper) > 1e-6:
            assert below == (threshold > bounds.upper)


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
        begun = _decisions(scores[: running.items], population, THRESHOLDS, covariates=covariates)
        found = running.decisions
        assert found.exhausted == begun.exhausted
        np.testing.assert_array_equal(found.above, begun.above)
        np.testing.assert_array_equal(found.below, begun.below)


def test_all_items_decide_everything() -> None:
    decisions = _decisions(np.array([0.0, 1.0]), 2, np.array([0.25, 0.5, 0.75]))
    assert decisions.above.tolist() == [True, False, False]
    assert decisions.below.tolist() == [False, False, True]
    assert decisions.at_least.tolist() == [True, True, False]
    assert decisions.at_most.tolist() == [False, True, True]


def test_before_the_first_item_only_the_impossible_is_decided() -> None:
    decisions = SequentialThresholdTest(9, np.array([-1.0, 0.5, 3.0]), risk=0.05, low=0.0, high=2.0).decisions
    assert decisions.above.tolist() == [True, False, False]
    assert decisions.below.tolist() == [False, False, True]


@pytest.mark.parametrize("name", ["coin", "bimodal", "Bernoulli near 1", "correlated strata"])
def test_any_threshold_is_misjudged_at_most_as_often_as_promised(name: str) -> None:
    """Twenty thresholds on either side of the mean, crowded near it, at one risk for all."""
    population = POPULATIONS[name]
    offsets = np.geomspace(1e-6, 0.2, 10)
    thresholds = np.concatenate([population.mean() + offsets, population.mean() - offsets])
    decisions = [
        _decisions(population[order[:-1]], len(population), thresholds, RISK)
        for order in random_orders(len(population))
    ]
    assert np.mean([found.above[:10].any() for found in decisions]) <= ALLOWED
    assert np.mean([found.below[10:].any() for found in decisions]) <= ALLOWED


def test_another_range_is_the_unit_range_moved() -> None:
    scores = np.random.default_rng(1).uniform(0, 1, 60)
    plain = SequentialThresholdTest(100, np.array([0.2, 0.4]), risk=0.1)
    moved = SequentialThresholdTest(100, np.array([-1.0 + 4 * 0.2, -1.0 + 4 * 0.4]), risk=0.1, low=-1.0, high=3.0)
    plain.extend(scores)
    moved.extend(4 * scores - 1)
    assert plain.decisions.above.tolist() == moved.decisions.above.tolist()
    assert plain.decisions.above.any()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        SequentialThresholdTest(10, THRESHOLDS, risk=0.1, low=1.0, high=1.0)
    with pytest.raises(ValueError, match="expected all 10"):
        SequentialThresholdTest(10, THRESHOLDS, risk=0.1, covariates=Covariates.of(np.ones((9, 1))))
    running = SequentialThresholdTest(10, THRESHOLDS, risk=0.1)
    with pytest.raises(ValueError, match=r"outside \[0.0, 1.0\]"):
        running.extend(np.array([0.5, 1.5]))
    assert running.items == 0
