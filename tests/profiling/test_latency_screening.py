"""What is said to be too slow is, at the risk promised, and the critical path is the longest way through."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circinus.profiling.race.latency_screening import critical_path_s, provably_too_slow
from circinus.specification import LatencySlo, MetricSpec, OperatorSpec, Pipeline

RISK = 0.01


def _says(times_s: np.ndarray, population: int, latency: LatencySlo | None, risk: float = RISK) -> bool:
    return bool(provably_too_slow(times_s[None], population, (latency,), risk)[0, 0])


@pytest.mark.parametrize(("population", "percentile", "drawn"), [(12, 75.0, 5), (14, 50.0, 6), (10, 90.0, 8)])
def test_the_risk_is_kept_over_all_draws(population: int, percentile: float, drawn: int) -> None:
    """With just as many slow items as the objective allows, of all equally likely draws few enough say too slow."""
    latency = LatencySlo(limit=1.0, percentile=percentile)
    allowed = int(np.ceil(population * (1 - percentile / 100)))
    times_s = np.where(np.arange(population) < allowed, 2.0, 0.5)
    for risk in (0.2, 0.05, 0.005):
        wrong = sum(
            _says(times_s[list(draw)], population, latency, risk) for draw in combinations(range(population), drawn)
        )
        assert wrong <= risk * comb(population, drawn)


@given(seed=st.integers(0, 10_000), population=st.integers(1, 60), percentile=st.floats(1.0, 99.5))
def test_slower_items_and_less_caution_say_it_sooner(seed: int, population: int, percentile: float) -> None:
    rng = np.random.default_rng(seed)
    times_s = rng.uniform(0.5, 1.5, int(rng.integers(1, population + 1)))
    latency = LatencySlo(limit=1.0, percentile=percentile)
    if _says(times_s, population, latency):
        assert _says(times_s * 1.1, population, latency)
        assert _says(times_s, population, latency, 10 * RISK)
    if len(times_s) == population:
        slow = (times_s > 1.05).sum() > np.ceil(population * (1 - percentile / 100))
        assert _says(times_s, population, latency) == slow


def test_eight_items_tell_what_is_far_too_slow() -> None:
    latency = LatencySlo(limit=1.0, percentile=95.0)
    assert _says(np.full(8, 1.06), 1000, latency, 1e-6)
    assert not _says(np.array([1.06, *[1.04] * 7]), 1000, latency)
    assert not _says(np.full(8, 9.0), 1000, None)


def test_nothing_is_said_where_items_are_missing() -> None:
    latency = LatencySlo(limit=1.0, percentile=95.0)
    assert not _says(np.array([*[9.0] * 7, np.nan]), 1000, latency)
    assert not provably_too_slow(np.zeros((2, 0)), 1000, (latency,), RISK).any()


def test_the_critical_path_goes_through_the_slower_branch() -> None:
    operators = [
        OperatorSpec(name=name, uses="m:f", after=after)
        for name, after in (("join", ("left", "right")), ("left", ("first",)), ("right", ("first",)), ("first", ()))
    ] + [OperatorSpec(name="aside", uses="m:f")]
    pipeline = Pipeline(
        name="p", operators=tuple(operators), metric=MetricSpec(name="m", uses="m:m"), dataset={"uses": "m:d"}
    )
    service_s = np.array([[[1.0, 1.0, 1.0], [2.0, 5.0, 0.0], [3.0, 1.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 7.0]]])
    assert critical_path_s(pipeline, service_s).tolist() == [[8.0, 10.0, 7.0]]
