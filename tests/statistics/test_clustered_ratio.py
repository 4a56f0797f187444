"""Ratios and means of values in clusters: repeats make them no surer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from circinus.statistics.clustered_ratio import clustered_ratio


def test_standard_error_of_different_items_is_the_ordinary_one() -> None:
    scores = [0.0, 1.0, 0.5, 0.25, 1.0]
    mean, error = clustered_ratio(scores, np.ones(5), list("abcde"))
    assert mean == pytest.approx(np.mean(scores))
    assert error == pytest.approx(np.std(scores, ddof=1) / math.sqrt(5))


def test_repeating_items_does_not_make_the_mean_surer() -> None:
    scores = [0.0, 1.0, 0.5]
    once = clustered_ratio(scores, np.ones(3), list("abc"))
    many = clustered_ratio(scores * 100, np.ones(300), list("abc") * 100)
    assert many == pytest.approx(once)


def test_standard_error_covers_the_mean_of_all_items() -> None:
    """Items drawn at random, each sent a few times: two standard errors cover the mean in about 95 % of the runs."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        items = rng.uniform(size=30)  # of a population with mean 0.5
        repeats = np.repeat(np.arange(30), rng.integers(1, 6, size=30))
        mean, error = clustered_ratio(items[repeats], np.ones(len(repeats)), [str(i) for i in repeats])
        assert error is not None
        covered += abs(mean - 0.5) < 2 * error
    assert 0.89 < covered / 400 < 0.99


def test_one_item_has_no_standard_error() -> None:
    assert clustered_ratio([1.0, 1.0], [1.0, 1.0], ["a", "a"]) == (1.0, None)


def test_ratio_is_that_of_the_totals_and_repeats_do_not_make_it_surer() -> None:
    observed_s, predicted_s, items = [1.0, 2.0, 6.0], [1.0, 1.0, 2.0], list("abc")
    ratio, error = clustered_ratio(observed_s, predicted_s, items)
    assert ratio == pytest.approx(9 / 4)
    assert clustered_ratio(observed_s * 9, predicted_s * 9, items * 9) == pytest.approx((ratio, error))
    assert clustered_ratio([2.0, 4.0], [1.0, 2.0], ["a", "b"]) == pytest.approx((2.0, 0.0))
    assert clustered_ratio([2.0, 4.0], [1.0, 2.0], ["a", "a"])[1] is None


def test_standard_error_covers_the_ratio_of_all_items() -> None:
    """Items drawn at random, each sent a few times, with different ratios of observed to predicted times."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        predicted_s = rng.uniform(0.5, 1.5, size=30)
        observed_s = predicted_s * rng.uniform(1.0, 2.0, size=30)  # 1.5 times the total in the population
        repeats = np.repeat(np.arange(30), rng.integers(1, 6, size=30))
        sent = [str(i) for i in repeats]
        ratio, error = clustered_ratio(observed_s[repeats], predicted_s[repeats], sent)
        assert error is not None
        covered += abs(ratio - 1.5) < 2 * error
    assert 0.89 < covered / 400 < 0.99
