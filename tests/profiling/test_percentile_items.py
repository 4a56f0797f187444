"""How many items a percentile takes: against the probability it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_application import accuracy_query

from circinus.profiling.race.slo_requirements import MIN_ITEMS, latency_sample_size, percentile_sample_size
from circinus.specification import LatencySlo


def test_known_numbers() -> None:
    assert percentile_sample_size(95, 0.05) == 59  # Wilks' classic
    assert percentile_sample_size(99, 0.05) == 299
    assert percentile_sample_size(50, 0.05) == 5


@given(percentile=st.floats(1, 99.9), risk=st.floats(1e-6, 0.5))
def test_the_fewest_that_keep_the_risk(percentile: float, risk: float) -> None:
    items = percentile_sample_size(percentile, risk)
    assert (percentile / 100) ** items <= risk * (1 + 1e-9)
    assert (percentile / 100) ** (items - 1) > risk * (1 - 1e-9)


def test_drawing_without_replacement_needs_no_more() -> None:
    rng = np.random.default_rng(5)
    population = np.arange(120)
    largest = np.array([rng.permutation(population)[:59].max() for _ in range(2000)])
    misses = float((largest < np.quantile(population, 0.95)).mean())
    assert misses < 0.05


@pytest.mark.parametrize(("percentile", "risk", "items"), [(95, 0.05, 30), (99, 0.05, 150), (50, 0.05, MIN_ITEMS)])
def test_of_a_query(percentile: float, risk: float, items: int) -> None:
    query = accuracy_query(0.9)
    assert latency_sample_size(query) == MIN_ITEMS
    latency = LatencySlo(percentile=percentile, limit=1.0)
    asked = query.model_copy(update={"risk": risk, "slos": query.slos.model_copy(update={"latency": latency})})
    assert latency_sample_size(asked) == items
