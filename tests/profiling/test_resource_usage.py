"""What may stand in for what: by the definition, item by item and operator by operator."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_races import random_footprints

from circinus.profiling.race.resource_usage import ResourceUsage, critical_path_s, provably_too_slow
from circinus.profiling.settings import PROFILING
from circinus.specification import LatencySlo, MetricSpec, OperatorSpec, Pipeline

seeds = st.integers(0, 100_000)


def _one_item(cpu_s: list[list[float]], **changes: object) -> ResourceUsage:
    """(k, o) CPU seconds of one item; bytes and memory are alike."""
    taken = np.array(cpu_s, dtype=np.float64)
    values: dict[str, object] = {
        "cpu_s": taken[:, :, None],
        "output_bytes": np.ones_like(taken)[:, :, None],
        "memory_bytes": np.ones_like(taken),
        "items": np.ones(len(taken), dtype=np.int64),
        "knob_ids": np.tile(np.arange(len(taken))[:, None], (1, taken.shape[1])),
    }
    return ResourceUsage(**{**values, **changes})  # type: ignore[arg-type]


def test_less_gpu_memory_is_not_replaced_by_more() -> None:
    usage = _one_item([[1.0], [2.0], [3.0]], gpu_memory_bytes=np.array([[2.0], [2.0], [1.0]]))
    every = np.arange(4)
    expected = [[True, True, False, False], [False, True, False, False], [False, False, True, False], [False] * 4]
    assert usage.followed_by_unmeasured(1).no_costlier(every, every).tolist() == expected


def _stands_in(found: ResourceUsage, first: int, second: int) -> bool:
    common = min(found.items[first], found.items[second])
    if common == 0:
        return False
    for taken in (found.cpu_s[:, :, :common].mean(axis=2), found.output_bytes[:, :, :common].mean(axis=2)):
        if not _hardly_more(taken[first], taken[second], found.tolerance):
            return False
    return _hardly_more(found.memory_bytes[first], found.memory_bytes[second], found.tolerance)


def _hardly_more(mine: np.ndarray, its: np.ndarray, tolerance: float) -> bool:
    if np.isnan(mine).any() or np.isnan(its).any():
        return False
    # Levels of the random footprints are on a grid: what is within rounding of the limit is left open.
    negligible = 0.01 * float(its.sum())
    pairs = [(float(a), float(b)) for a, b in zip(mine, its, strict=True)]
    in_all = sum(max(a - b, 0.0) for a, b in pairs) <= tolerance * float(its.sum()) + 1e-9
    return in_all and all(a - b <= tolerance * b + negligible + 1e-9 for a, b in pairs)


def _near_the_limit(found: ResourceUsage, first: int, second: int) -> bool:
    """Whether rounding decides."""
    common = max(1, min(found.items[first], found.items[second]))
    for taken in (found.cpu_s[:, :, :common].mean(axis=2), found.output_bytes[:, :, :common].mean(axis=2)):
        allowed = found.tolerance * taken[second] + 0.01 * taken[second].sum()
        excess = np.maximum(taken[first] - taken[second], 0.0)
        if (np.abs(excess - allowed) < 1e-9).any():
            return True
        if abs(excess.sum() - found.tolerance * taken[second].sum()) < 1e-9:
            return True
    return False


def _total_s(found: ResourceUsage, number: int) -> float:
    return float(found.cpu_s[number, :, : found.items[number]].sum() / found.items[number])


@given(seed=seeds, count=st.integers(1, 9))
def test_what_stands_in_takes_hardly_more_of_anything(seed: int, count: int) -> None:
    found = random_footprints(np.random.default_rng(seed), count)
    everything = np.arange(count)
    stands_in = found.no_costlier(everything, everything)
    for first in range(count):
        for second in range(count):
            if not _near_the_limit(found, first, second):
                assert stands_in[first, second] == _stands_in(found, first, second)
    np.testing.assert_array_equal(found.no_costlier(everything[1:], everything[:2]), stands_in[1:, :2])


@given(seed=seeds, count=st.integers(1, 9))
def test_one_order_says_which_of_two_comes_before(seed: int, count: int) -> None:
    found = random_footprints(np.random.default_rng(seed), count)
    before = found.cheaper(np.arange(count), np.arange(count))
    known = np.flatnonzero(found.items > 0)
    ranks = before[np.ix_(known, known)].sum(axis=0)  # how many come before each: 0, 1, 2, ... in an order of all
    assert sorted(ranks.tolist()) == list(range(len(known)))
    assert before.sum() == len(known) * (len(known) - 1) / 2
    totals = [_total_s(found, k) for k in known[np.argsort(ranks)]]
    assert totals == pytest.approx(sorted(totals))


@given(seed=seeds, count=st.integers(1, 12))
def test_partners_are_the_most_alike_and_of_those_the_costliest(seed: int, count: int) -> None:
    found = random_footprints(np.random.default_rng(seed), count)
    everything = np.arange(count)
    may = found.no_costlier(everything, everything) & found.cheaper(everything, everything)
    for number, partner in enumerate(found.references().tolist()):
        candidates = np.flatnonzero(may[:, number]).tolist()
        if not candidates:
            assert partner == -1
            continue
        differing = {k: int((found.knob_ids[k] != found.knob_ids[number]).sum()) for k in candidates}
        fewest = [k for k in candidates if differing[k] == min(differing.values())]
        assert partner in fewest
        assert _total_s(found, partner) == pytest.approx(max(_total_s(found, k) for k in fewest))


@given(seed=seeds, count=st.integers(1, 12))
def test_whoever_goes_from_partner_to_partner_comes_to_an_end(seed: int, count: int) -> None:
    partners = random_footprints(np.random.default_rng(seed), count).references()
    for number in range(count):
        steps = 0
        while number >= 0:
            number, steps = int(partners[number]), steps + 1
            assert steps <= count


def test_unequal_items_make_no_circle() -> None:
    """Compared two by two on the items known of both, each of these takes less than the next."""
    cpu_s = np.array([[[1.02, 1.00]], [[1.00, 1.04]], [[1.015, np.nan]]])
    found = ResourceUsage(
        cpu_s=cpu_s,
        output_bytes=np.where(np.isnan(cpu_s), np.nan, 1.0),
        memory_bytes=np.ones((3, 1)),
        items=np.array([2, 2, 1]),
        knob_ids=np.arange(3)[:, None],
    )
    assert found.no_costlier(np.arange(3), np.arange(3)).all()
    assert found.references().tolist() == [-1, 2, 0]


def test_the_tolerance_is_of_the_whole_and_of_each_operator() -> None:
    """A tenth more in the small operator is little of the whole; as much in both directions does not cancel out."""
    found = _one_item([[1.0, 10.0], [1.1, 10.0], [1.0, 10.7], [1.6, 9.4]])
    zero = np.zeros(1, dtype=np.int64)
    assert found.no_costlier(np.arange(4), zero)[:, 0].tolist() == [True, True, False, False]
    assert found.no_costlier(zero, np.arange(4))[0].tolist() == [True, True, True, False]
    assert found.tolerance == PROFILING.usage_tolerance


def test_bytes_and_memory_count_as_seconds_do() -> None:
    ones = np.ones((2, 1))
    more = np.array([[1.0], [1.2]])
    pair = np.arange(2)
    for changes in ({"output_bytes": more[:, :, None]}, {"memory_bytes": more}):
        found = _one_item([[1.0], [1.0]], **changes)
        assert found.no_costlier(pair, pair).tolist() == [[True, True], [False, True]]
        assert found.references().tolist() == [-1, 0]
    assert _one_item(ones.tolist()).references().tolist() == [-1, 0]  # of equals the first listed


def test_nothing_is_said_of_what_nobody_measured() -> None:
    unknown = ResourceUsage.empty(3)
    everything = np.arange(3)
    assert not unknown.no_costlier(everything, everything).any()
    assert not unknown.cheaper(everything, everything).any()
    assert unknown.references().tolist() == [-1, -1, -1]
    assert np.isnan(unknown.total_cpu_s).all()
    memory = _one_item([[1.0], [1.0]], memory_bytes=np.array([[1.0], [np.nan]]))
    assert memory.references().tolist() == [-1, -1]


def test_items_are_compared_where_both_are_known() -> None:
    """The second takes half as much on the item that both know; the first is ahead on average over unequal items."""
    found = ResourceUsage(
        cpu_s=np.array([[[4.0, 1.0, 1.0]], [[2.5, np.nan, np.nan]]]),
        output_bytes=np.array([[[1.0, 1.0, 1.0]], [[1.0, np.nan, np.nan]]]),
        memory_bytes=np.ones((2, 1)),
        items=np.array([3, 1]),
        knob_ids=np.arange(2)[:, None],
    )
    pair = np.arange(2)
    assert found.no_costlier(pair, pair).tolist() == [[True, False], [True, True]]
    assert found.total_cpu_s.tolist() == [2.0, 2.5]


def test_the_tolerance_is_that_of_each_operator() -> None:
    """A hundred times as much of an operator that takes little, made up for elsewhere, is not hardly more."""
    found = _one_item([[0.5, 9.4], [0.1, 10.0], [0.104, 10.4]])
    assert not found.no_costlier(np.array([0]), np.array([1]))[0, 0]
    assert found.no_costlier(np.array([2]), np.array([1]))[0, 0]


def test_uneven_is_who_takes_very_different_times_where_it_matters() -> None:
    times_s = np.full((3, 2, 8), 1.0)
    times_s[0, 0, ::2] = 0.01  # an early exit for half of the items
    times_s[1, 0] = 1e-5  # next to nothing, and noisy
    times_s[1, 0, ::2] = 1e-7
    found = ResourceUsage(times_s, np.ones((3, 2, 8)), np.ones((3, 2)), np.full(3, 8), np.zeros((3, 2), dtype=np.int64))
    assert found.heavy_tailed.tolist() == [True, False, False]
    assert ResourceUsage.empty(2).heavy_tailed.tolist() == [False, False]


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


def test_the_critical_path_goes_through_the_branch_that_was_taken() -> None:
    operators = (
        OperatorSpec(name="route", uses="m:f", branches=("easy", "hard")),
        OperatorSpec(name="left", uses="m:f", after=({"route": "easy"},)),
        OperatorSpec(name="right", uses="m:f", after=({"route": "hard"},)),
        OperatorSpec(name="join", uses="m:f", after=({"any": ["left", "right"]},)),
    )
    pipeline = Pipeline(name="p", operators=operators, metric=MetricSpec(name="m", uses="m:m"), dataset={"uses": "m:d"})
    service_s = np.array([[[1.0, 1.0], [2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]])
    assert critical_path_s(pipeline, service_s).tolist() == [[4.0, 7.0]]
