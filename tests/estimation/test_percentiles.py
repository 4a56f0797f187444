from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from circinus.estimation.percentiles import PercentileEstimator, ScenarioGrid

GRID = ScenarioGrid(5, 64)
P95 = PercentileEstimator.at(95.0, 0.05)

vectors = arrays(np.float64, GRID.count, elements=st.floats(0, 100))


@given(vectors, st.sampled_from([1.0, 50.0, 90.0, 95.0, 99.0, 99.9]))
def test_bounds_enclose_the_value(latency_s: np.ndarray, percentile: float) -> None:
    wanted = PercentileEstimator.at(percentile, 0.05)
    latency_s = np.resize(latency_s, wanted.grid.count)
    bounded = wanted.of(latency_s)
    assert bounded.lower <= bounded.value <= bounded.upper
    assert bounded.upper <= latency_s.max()


@given(vectors, arrays(np.float64, GRID.count, elements=st.floats(0, 10)))
def test_slower_scenarios_never_give_smaller_percentiles(latency_s: np.ndarray, more_s: np.ndarray) -> None:
    fast, slow = P95.of(latency_s), P95.of(latency_s + more_s)
    assert fast.value <= slow.value
    assert fast.lower <= slow.lower
    assert fast.upper <= slow.upper


@given(st.lists(vectors, min_size=0, max_size=4), st.floats(0, 100))
def test_the_ways_to_the_upper_bound_agree(several: list[np.ndarray], limit_s: float) -> None:
    matrix = np.array(several).reshape(-1, GRID.count)
    upper = P95.upper(matrix)
    assert upper.tolist() == [P95.of(row).upper for row in matrix]
    assert P95.within(matrix, limit_s).tolist() == (upper <= limit_s).tolist()


@pytest.mark.parametrize("percentile", [50.0, 90.0, 95.0])
@pytest.mark.parametrize("shape", ["normal", "lognormal", "two"])
def test_the_upper_bound_misses_the_truth_less_often_than_the_risk(percentile: float, shape: str) -> None:
    rng = np.random.default_rng(11)
    draw = {
        "normal": lambda size: rng.normal(size=size),
        "lognormal": lambda size: rng.lognormal(sigma=1.5, size=size),
        "two": lambda size: rng.normal(size=size) + 10 * (rng.random(size) < 0.06),
    }[shape]
    truth = np.quantile(draw(2_000_000), percentile / 100)
    misses = np.mean(PercentileEstimator.at(percentile, 0.05).upper(draw((4000, GRID.count))) < truth)
    assert misses <= 0.05


@pytest.mark.parametrize("risk", [0.05, 0.01])
@pytest.mark.parametrize("percentile", [50.0, 90.0, 95.0, 99.0, 99.9, 99.99])
def test_sections_bound_no_lower_percentile(percentile: float, risk: float) -> None:
    assert percentile <= PercentileEstimator.at(percentile, risk).section_percentile < 100.0


def test_the_value_is_the_order_statistic() -> None:
    assert P95.of(np.random.default_rng(0).permutation(GRID.count).astype(float)).value == 303
