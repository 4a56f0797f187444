"""Bounds of the mean of what the items stand for: fresh samples of distributions whose mean is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from budget import half_share_of
from circinus.statistics.betting import betting_bounds
from circinus.statistics.covariates import Covariates, request_strata
from circinus.statistics.martingale import UNLIMITED
from circinus.statistics.sequential_test import SequentialThresholdTest
from simulated_populations import RISK, allowed

RUNS = half_share_of(800)
SHARES = np.array([0.4, 0.3, 0.2, 0.1])
STRATA = np.repeat(np.arange(4), np.round(SHARES * 80).astype(int))
HIGH, LOW = 0.97 - 0.02 * np.arange(4), 0.01 + 0.02 * np.arange(4)

SHAPES: dict[str, tuple[Callable[[np.random.Generator, np.ndarray], np.ndarray], np.ndarray]] = {
    "Bernoulli near 1": (lambda rng, s: 1.0 * (rng.random(len(s)) < HIGH[s]), HIGH),
    "Bernoulli near 0": (lambda rng, s: 1.0 * (rng.random(len(s)) < LOW[s]), LOW),
    "coin": (lambda rng, s: 1.0 * (rng.random(len(s)) < 0.5), np.full(4, 0.5)),
    "beta": (lambda rng, s: rng.beta(8 - s, 1.0), (8 - np.arange(4)) / (9 - np.arange(4))),
    "a value by stratum": (lambda rng, s: np.where(s > 1, 0.2, 0.9), np.array([0.9, 0.9, 0.2, 0.2])),
    "ties at the mean": (lambda rng, s: rng.choice([0.8, 0.8, 0.8, 0.7, 0.9], len(s)), np.full(4, 0.8)),
    "three values": (lambda rng, s: rng.choice([0.0, 0.5, 1.0], len(s), p=[0.1, 0.3, 0.6]), np.full(4, 0.75)),
}  # fmt: skip


def _covariates(strata: np.ndarray) -> Covariates:
    return Covariates.of((strata[:, None] == np.unique(strata)).astype(float))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_strata", [False, True])
def test_over_whole_runs_on_fresh_items_a_side_fails_at_most_as_often_as_allowed(shape: str, with_strata: bool) -> None:
    """Thresholds just beyond the mean on each side, after every item, to the very last one."""
    sample, means = SHAPES[shape]
    mean = float(SHARES @ means)
    rng = np.random.default_rng(17)
    failed = np.zeros(2)
    for _ in range(RUNS):
        strata = rng.permutation(STRATA)
        scores = sample(rng, strata)
        covariates = _covariates(strata) if with_strata else None
        test = SequentialThresholdTest(UNLIMITED, np.array([mean]), risk=RISK, covariates=covariates)
        test.extend(scores)
        failed += np.array([test.decisions.above[0], test.decisions.below[0]])
    assert failed.max() / RUNS <= allowed(RUNS)


@pytest.mark.parametrize("shape", ["Bernoulli near 1", "coin", "three values"])
def test_the_mean_of_the_items_alone_would_break_the_promise(shape: str) -> None:
    sample, means = SHAPES[shape]
    mean = float(SHARES @ means)
    rng = np.random.default_rng(17)
    wrong = 0
    for _ in range(RUNS):
        scores = sample(rng, rng.permutation(STRATA))
        wrong += betting_bounds(scores[None], len(scores), risk=RISK)[0].lower > mean
    assert wrong / RUNS > allowed(RUNS)


@pytest.mark.parametrize("seed", range(3))
def test_strata_tighten_bounds_and_a_width_remains_when_all_items_are_measured(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.permutation(np.repeat(np.arange(4), 50))
    scores = np.clip(0.9 - 0.2 * strata + rng.normal(0, 0.05, 200), 0, 1)
    (plain,) = betting_bounds(scores[None], UNLIMITED, risk=0.01)
    (bounds,) = betting_bounds(scores[None], UNLIMITED, risk=0.01, covariates=_covariates(strata))
    assert bounds.value == pytest.approx(scores.mean())
    assert 0.01 < bounds.upper - bounds.lower < 0.75 * (plain.upper - plain.lower)


@pytest.mark.parametrize("seed", range(4))
def test_increments_change_nothing_and_thresholds_agree_with_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    covariates = _covariates(rng.integers(0, 3, 90))
    scores = np.clip(0.5 + 0.2 * (covariates.kind - 1) + rng.normal(0, 0.1, 90), 0, 1)
    thresholds = np.linspace(0.05, 0.95, 19)
    running = SequentialThresholdTest(UNLIMITED, thresholds, risk=0.05, covariates=covariates)
    for begin, end in ((0, 8), (8, 9), (9, 40), (40, 90)):
        running.extend(scores[begin:end])
        (bounds,) = betting_bounds(scores[None, :end], UNLIMITED, risk=0.05, covariates=covariates)
        assert np.array_equal(running.decisions.above, thresholds < bounds.lower)
        assert np.array_equal(running.decisions.below, thresholds > bounds.upper)
    assert not running.decisions.exhausted


def test_weighted_scores_have_the_mean_of_requests_until_a_stratum_is_used_up() -> None:
    covariates = Covariates.of(np.array([[0.0], [1.0], [1.0], [0.0], [1.0], [1.0]]))
    chances, weights = covariates.chances(0, 6), covariates.weights(0, 6)
    assert chances.sum(axis=1) == pytest.approx(np.ones(6))
    assert (chances * weights)[:4] == pytest.approx(np.tile(covariates.shares, (4, 1)))
    assert (chances * weights)[4:] == pytest.approx(np.tile([0.0, 2 / 3], (2, 1)))
    assert np.array_equal(covariates.chances(2, 5), chances[2:5])


@pytest.mark.parametrize(
    ("strata", "expected"),
    [
        ([{}] * 20, [20]),
        ([{"room": "ab"[i % 2]} for i in range(20)], [10, 10]),
        ([{"room": "ab"[i % 2], "speaker": str(i // 2)} for i in range(20)], [10, 10]),
        ([{"room": "a"}] * 20 + [{"room": "b"}] * 9 + [{"room": "c"}] * 3 + [{"room": "d"}] * 2, [14, 20]),
        ([{"room": "a"}] * 7, [7]),
    ],
)
def test_strata_of_few_items_are_joined(strata: list[dict[str, str]], expected: list[int]) -> None:
    labels = request_strata(strata)
    sizes = sorted(labels.count(label) for label in set(labels))
    assert sizes == sorted(expected)


def test_many_combinations_of_conditions_are_not_strata() -> None:
    strata = [{"a": str(n % 16), "b": str(n // 16 % 16)} for n in range(4_000)]
    assert len(set(request_strata(strata))) == 16
