"""Initial designs contain every operator configuration."""

from __future__ import annotations

import numpy as np
from benchmarks.search.covering_design import covering_design
from hypothesis import given
from hypothesis import strategies as st

from circinus.specification import Configuration, KnobValues


def _configuration(*values: int) -> Configuration:
    return Configuration.of({f"o{n}": KnobValues.of({"k": value}) for n, value in enumerate(values)})


def _all(counts: list[int]) -> list[Configuration]:
    return [_configuration(*map(int, index)) for index in np.ndindex(*counts)]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_all_values_of_all_operators_with_as_few_as_can_be(counts: list[int]) -> None:
    listed = _all(counts)
    found = covering_design(listed)
    assert len(found) == max(counts)
    assert set(found) <= set(listed)
    assert {pair for c in found for pair in c.operators} == {pair for c in listed for pair in c.operators}


@given(st.lists(st.integers(2, 4), min_size=2, max_size=3), st.data())
def test_where_combinations_are_missing_all_values_are_covered_yet(counts: list[int], data: st.DataObject) -> None:
    listed = data.draw(st.lists(st.sampled_from(_all(counts)), min_size=1, unique=True))
    found = covering_design(listed)
    assert len(set(found)) == len(found)
    assert set(found) <= set(listed)
    assert {pair for c in found for pair in c.operators} == {pair for c in listed for pair in c.operators}


def test_high_values_do_not_always_meet() -> None:
    pairs = [tuple(int(own.values[0][1]) for _, own in c.operators) for c in covering_design(_all([5, 5]))]
    assert abs(np.corrcoef(np.array(pairs).T)[0, 1]) < 0.5


def test_nothing_of_nothing() -> None:
    assert covering_design([]) == ()
