"""Verdicts agree with the bounds, for any number of thresholds, and are seldom wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from simulated_populations import ALLOWED, POPULATIONS, RISK, random_orders

from circinus.profiling.confidence_sequences import Covariates, betting_bounds, threshold_decisions

THRESHOLDS = np.array([-0.5, 0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0, 1.5])


@example(scores=[0.875, 0.625] + [0.0] * 10, more=1, with_covariates=False)  # excludes all that remains possible
@given(
    scores=st.lists(st.floats(0, 1), min_size=0, max_size=30), more=st.integers(1, 40), with_covariates=st.booleans()
)
def test_verdicts_are_what_the_bounds_say(scores: list[float], more: int, with_covariates: bool) -> None:
    values = np.array(scores).reshape(1, -1)
    population = values.shape[1] + more
    covariates = Covariates.of((np.arange(population) % 3 == 0)[:, None].astype(float)) if with_covariates else None
    verdicts = threshold_decisions(values, population, THRESHOLDS, risk=0.1, covariates=covariates)
    (bounds,) = betting_bounds(values, population, risk=0.1, covariates=covariates)
    for threshold, above, below in zip(THRESHOLDS, verdicts.above[0], verdicts.below[0], strict=True):
        if abs(threshold - bounds.lower) > 1e-6:
            assert above == (threshold < bounds.lower)
        if abs(threshold - bounds.upper) > 1e-6:
            assert below == (threshold > bounds.upper)


def test_all_items_decide_everything() -> None:
    verdicts = threshold_decisions(np.array([[0.0, 1.0], [1.0, 1.0]]), 2, np.array([0.25, 0.5, 0.75]), risk=0.05)
    assert verdicts.above.tolist() == [[True, False, False], [True, True, True]]
    assert verdicts.below.tolist() == [[False, False, True], [False, False, False]]
    assert verdicts.at_least.tolist() == [[True, True, False], [True, True, True]]
    assert verdicts.at_most.tolist() == [[False, True, True], [False, False, False]]
    assert not verdicts.undecided.any()


def test_before_the_first_item_only_the_impossible_is_decided() -> None:
    verdicts = threshold_decisions(np.zeros((2, 0)), 9, np.array([-1.0, 0.5, 3.0]), risk=0.05, low=0.0, high=2.0)
    assert verdicts.undecided.tolist() == [[False, True, False]] * 2
    assert verdicts.above[:, 0].all()
    assert verdicts.below[:, 2].all()


@pytest.mark.parametrize("name", ["coin", "bimodal", "Bernoulli near 1", "correlated strata"])
def test_any_threshold_is_misjudged_at_most_as_often_as_promised(name: str) -> None:
    """Twenty thresholds on either side of the mean, crowded near it, at one risk for all."""
    population = POPULATIONS[name]
    mean = population.mean()
    offsets = np.geomspace(1e-6, 0.2, 10)
    scores = population[random_orders(len(population))][:, :-1]
    verdicts = threshold_decisions(scores, len(population), np.concatenate([mean + offsets, mean - offsets]), risk=RISK)
    assert verdicts.above[:, :10].any(axis=1).mean() <= ALLOWED
    assert verdicts.below[:, 10:].any(axis=1).mean() <= ALLOWED


def test_a_range_of_one_score_is_decided_at_once() -> None:
    verdicts = threshold_decisions(np.ones((1, 1)), 5, np.array([0.5, 1.0, 2.0]), risk=0.05, low=1.0, high=1.0)
    assert verdicts.at_least.tolist() == [[True, True, False]]
    assert verdicts.at_most.tolist() == [[False, True, True]]
