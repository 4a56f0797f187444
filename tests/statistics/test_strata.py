"""Strata become columns."""

from __future__ import annotations

import numpy as np

from circinus.statistics.covariates import one_hot_strata


def test_conditions_and_their_combinations_are_columns() -> None:
    strata = [{"room": room, "noise": noise} for room in "ab" for noise in "xyz" for _ in range(4)]
    found = one_hot_strata(strata)
    assert found.shape == (24, 3 + 2 + 6)
    assert set(np.unique(found)) == {0.0, 1.0}
    assert (found[:, :3].sum(axis=1) == 1).all()  # noise
    assert (found[:, 3:5].sum(axis=1) == 1).all()  # room
    assert sorted(found[:, 5:].sum(axis=0)) == [4.0] * 6


def test_names_that_are_nearly_different_for_every_item_or_the_same_for_all_tell_nothing() -> None:
    strata = [{"file": str(i), "kind": "speech", "room": "ab"[i % 2]} for i in range(10)]
    assert one_hot_strata(strata).shape == (10, 2)
    assert one_hot_strata([{} for _ in range(5)]).shape == (5, 0)
    assert one_hot_strata([]).shape == (0, 0)


def test_where_combinations_are_too_many_the_conditions_alone_are_columns() -> None:
    strata = [{"room": str(i % 5), "noise": str(i // 5 % 5)} for i in range(40)]
    assert one_hot_strata(strata).shape == (40, 10)
    assert one_hot_strata(strata, max_values=3).shape == (40, 0)


def test_a_condition_that_some_items_lack_is_a_condition_of_its_own() -> None:
    strata = [{"room": "a"}, {}] * 4
    assert np.array_equal(one_hot_strata(strata), np.tile([[0.0, 1.0], [1.0, 0.0]], (4, 1)))
