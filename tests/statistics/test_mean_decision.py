"""Guides for sample sizes: they grow where a mean is harder to decide, and end at all items."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.statistics.martingale import UNLIMITED
from circinus.statistics.mean_decision import items_until_bounded, items_until_decided, shrunk_variance


@given(margin=st.floats(1e-3, 0.5), variance=st.floats(0.001, 0.25), population=st.integers(1, 10_000))
def test_items_grow_as_the_margin_falls_and_never_beyond_all(margin: float, variance: float, population: int) -> None:
    items, nearer = items_until_decided(np.array([margin, margin / 2]), variance, 1.0, 1e-3, population)
    assert 0 < items < nearer < population
    assert items_until_decided(margin, variance, 1.0, 1e-3, population) == pytest.approx(items)
    assert items_until_decided(margin, 2 * variance, 1.0, 1e-3, population) > items


def test_a_population_without_end_needs_what_bernstein_says() -> None:
    margin, variance, risk = 0.1, 0.04, 1e-3
    items = items_until_decided(margin, variance, 1.0, risk, 10**12)
    exponent = items * margin**2 / (2 * variance + 2 / 3 * margin)
    assert np.exp(-exponent) == pytest.approx(risk)


def test_few_equal_scores_prove_no_certainty() -> None:
    assert shrunk_variance(0.0, 0, 2.0) == 0.25
    assert shrunk_variance(0.0, 8, 2.0) == pytest.approx(0.25 / 9)
    assert shrunk_variance(3.0, 2, 0.0) == 1.0


@given(items=st.integers(8, 1000), margin=st.floats(0.01, 0.4), width=st.floats(0.01, 0.4), variance=st.floats(0, 0.25))
def test_a_mean_nearer_to_its_threshold_needs_more_items(
    items: int, margin: float, width: float, variance: float
) -> None:
    needed, nearer, wider = (
        items_until_bounded(items, *distances, variance, 1.0)
        for distances in ((margin, width), (margin / 2, width), (margin, 2 * width))
    )
    assert 0 < needed <= nearer
    assert needed < wider
    unbiased = items * items_until_decided(margin, variance, 1.0, 0.5, UNLIMITED)
    unbiased /= items_until_decided(width, variance, 1.0, 0.5, UNLIMITED)
    if margin > (variance / items) ** 0.5:
        assert needed >= unbiased * (1 - 1e-9), "a measured mean that stands out seems too far"


@given(items=st.integers(8, 1000), width=st.floats(0.01, 0.4), variance=st.floats(0.001, 0.25))
def test_no_mean_needs_items_without_end(items: int, width: float, variance: float) -> None:
    nearest, near, far = (
        items_until_bounded(items, margin * (variance / items) ** 0.5, width, variance, 1.0)
        for margin in (1e-9, 0.1, 3.0)
    )
    assert nearest == near > far
