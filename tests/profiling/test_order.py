"""The order of the items: a permutation, balanced in every beginning, random within a stratum."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from circinus.profiling.order import stratified_order

CONDITIONS = st.dictionaries(st.sampled_from(["noise", "room"]), st.sampled_from("abc"), max_size=2)


@given(strata=st.lists(CONDITIONS, max_size=40), seed=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_it_is_a_permutation_that_the_seed_decides(strata: list[dict[str, str]], seed: int) -> None:
    order = stratified_order(strata, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(strata)))
    assert (order == stratified_order(strata, np.random.default_rng(seed))).all()


@given(values=st.lists(st.sampled_from("aaaabbbccd"), min_size=2, max_size=80), seed=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_beginning_holds_every_stratum_in_proportion(values: list[str], seed: int) -> None:
    assume(len(set(values)) <= len(values) // 2)
    order = stratified_order([{"noise": value} for value in values], np.random.default_rng(seed))
    steps = np.arange(1, len(values) + 1)
    for value in set(values):
        is_value = np.array([values[i] == value for i in order])
        assert (np.abs(is_value.cumsum() - steps * is_value.mean()) <= 1.25).all()


def test_crossed_conditions_are_balanced_one_by_one() -> None:
    strata = [{"noise": str(i % 4), "room": str(i // 4 % 3), "voice": str(i // 12 % 5)} for i in range(120)]
    order = stratified_order(strata, np.random.default_rng(3))
    for beginning in (4, 8, 16, 32, 64):
        for name, kinds in (("noise", 4), ("room", 3), ("voice", 5)):
            counts = np.bincount([int(strata[i][name]) for i in order[:beginning]], minlength=kinds)
            assert np.abs(counts - beginning / kinds).max() < 1.5


def test_items_of_a_stratum_are_in_random_order() -> None:
    first = [
        stratified_order([{"noise": str(i % 2)} for i in range(12)], np.random.default_rng(s))[0] for s in range(600)
    ]
    counts = np.bincount(first, minlength=12)
    assert counts.min() > 20  # 50 expected; 20 is more than four standard deviations away


def test_a_name_of_its_own_for_every_item_is_no_stratum() -> None:
    strata = [{"file": str(i), "noise": str(i % 2)} for i in range(40)]
    order = stratified_order(strata, np.random.default_rng(0))
    assert [int(strata[i]["noise"]) for i in order[:8]].count(0) == 4
