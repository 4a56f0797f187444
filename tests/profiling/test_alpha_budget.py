"""The risk of a run is shared by all that may go wrong in it."""

from __future__ import annotations

import numpy as np
import pytest

from circinus.profiling.race.alpha_budget import per_sequence_alpha
from circinus.statistics.betting import betting_bounds
from circinus.statistics.sequential_test import SequentialThresholdTest
from simulated_populations import random_orders


def test_shares_add_up_to_the_risk() -> None:
    assert per_sequence_alpha(0.05, 25) * 50 == pytest.approx(0.05)
    assert per_sequence_alpha(0.05, 25, comparisons=24) * 98 == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("risk", "configurations", "comparisons"), [(0.0, 1, 0), (1.0, 1, 0), (0.1, 0, 0), (0.1, 1, -1)]
)
def test_what_cannot_be_is_refused(risk: float, configurations: int, comparisons: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        per_sequence_alpha(risk, configurations, comparisons)


def test_in_a_whole_run_anything_is_wrong_at_most_as_often_as_promised() -> None:
    """Six independent coins, each with thresholds just beside its mean, all compared with the first."""
    size, promised, runs = 60, 0.2, 300
    rng = np.random.default_rng(3)
    scores = (rng.random((6, size)) < np.linspace(0.2, 0.8, 6)[:, None]).astype(float)
    means = scores.mean(axis=1)
    thresholds = np.concatenate([means + 1e-6, means - 1e-6])
    risk = per_sequence_alpha(promised, configurations=6, comparisons=5)
    drawn = scores[:, random_orders(size, runs=runs)[:, :-1]]  # (6, runs, items)
    wrong = np.zeros(runs, dtype=bool)
    for mean, coin in zip(means, drawn, strict=True):
        for run, seen in enumerate(coin):
            test = SequentialThresholdTest(size, thresholds, risk=risk)
            test.extend(seen)
            found = test.decisions
            wrong[run] |= ((found.above & (thresholds >= mean)) | (found.below & (thresholds <= mean))).any()
    for mean, coin in zip(means[1:] - means[0], drawn[1:], strict=True):
        differences = betting_bounds(coin - drawn[0], size, risk=risk, low=-1.0)
        wrong |= [not found.lower - 1e-6 <= mean <= found.upper + 1e-6 for found in differences]
    assert 0 < wrong.mean() <= promised


def test_who_says_something_of_one_side_only_shares_with_half_as_many() -> None:
    assert per_sequence_alpha(0.05, 25, sides=1) * 25 == pytest.approx(0.05)
