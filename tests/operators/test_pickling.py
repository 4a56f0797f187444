"""Payloads: a list of pickled values is told from any pickled value, and nested as deep as one likes."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.operators.pickling import Payload, pack_list, pickle_value, unpack_list, unpickle_value

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
TREES = st.recursive(VALUES.map(lambda value: (value,)), lambda inner: st.lists(inner, max_size=4), max_leaves=12)
"""A value in a tuple of one, or a list of trees."""


def _packed(tree: Any) -> bytes:
    return pickle_value(tree[0]) if isinstance(tree, tuple) else pack_list([_packed(part) for part in tree])


def _value(tree: Any) -> Any:
    return tree[0] if isinstance(tree, tuple) else [_value(part) for part in tree]


@given(TREES, st.sampled_from([bytes, bytearray, memoryview]))
@settings(max_examples=examples(200))
def test_packed_lists_of_any_depth_come_back(tree: Any, kind: type[Payload]) -> None:
    assert unpickle_value(kind(_packed(tree))) == _value(tree)


@given(st.lists(st.binary(max_size=20)), st.sampled_from([bytes, bytearray, memoryview]))
@settings(max_examples=examples(200))
def test_values_of_a_packed_list_stay_serialized(values: list[bytes], kind: type[Payload]) -> None:
    assert list(map(bytes, unpack_list(kind(pack_list(values))))) == values


@given(VALUES)
@settings(max_examples=examples(400))
def test_a_value_is_never_taken_for_a_list(value: Any) -> None:
    """Nor a list that an operator returned as its one output."""
    data = pickle_value(value)
    assert unpickle_value(data) == value
    with pytest.raises(ValueError, match="packed list"):
        unpack_list(data)


@pytest.mark.parametrize("value", [[], b"\0", "\0", np.zeros(3), datetime.date(2026, 1, 1), Exception("no"), range(2)])
def test_values_of_other_types_are_no_lists_either(value: Any) -> None:
    data = pickle_value(value)
    assert repr(unpickle_value(data)) == repr(value)
    with pytest.raises(ValueError, match="packed list"):
        unpack_list(data)
    assert [repr(element) for element in unpickle_value(pack_list([data, pack_list([])]))] == [repr(value), "[]"]
