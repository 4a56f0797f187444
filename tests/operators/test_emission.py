"""Outputs of operators that emit many or have branches: taken apart where they are made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budget import examples
from circinus.errors import OperatorError
from circinus.operators import Branch
from circinus.operators.host import OperatorHost, emitted_values
from circinus.operators.pickling import pack_list, pickle_value, unpickle_value
from circinus.operators.protocol import NO_BRANCH, ONE, Emission
from circinus.specification import OperatorSpec
from raised import raises_code

MANY = Emission(max_elements=3)
TAKEN = Emission(branches=("car", "person"))
BOTH = Emission(3, ("car", "person"))


@pytest.mark.parametrize(
    ("emission", "output", "expected"),
    [
        (ONE, [1, 2], [(NO_BRANCH, [1, 2])]),
        (ONE, Branch("car", 1), [(NO_BRANCH, Branch("car", 1))]),
        (MANY, [], []),
        (MANY, [[1], [], None], [(NO_BRANCH, [1]), (NO_BRANCH, []), (NO_BRANCH, None)]),
        (MANY, ("a", "b"), [(NO_BRANCH, "a"), (NO_BRANCH, "b")]),
        (TAKEN, Branch("person", None), [(1, None)]),
        (TAKEN, Branch("car", [1, 2]), [(0, [1, 2])]),
        (BOTH, [], []),
        (BOTH, [Branch("person", 1), Branch("car", 2), Branch("person", 3)], [(1, 1), (0, 2), (1, 3)]),
    ],
)
def test_each_output_comes_with_its_branch(emission: Emission, output: Any, expected: list[tuple[int, Any]]) -> None:
    assert emitted_values(emission, output) == expected


@pytest.mark.parametrize(
    ("emission", "output", "code"),
    [
        *((emission, output, "operator.no_list") for emission in (MANY, BOTH)
          for output in (None, 3, "abc", b"abc", bytearray(3), memoryview(b"abc"), {1: 2}, {1}, iter([1]))),
        (MANY, [1, 2, 3, 4], "operator.too_many_elements"),
        (BOTH, [Branch("none", 1)] * 4, "operator.too_many_elements"),
        *((TAKEN, output, "operator.unknown_branch")
          for output in (None, 1, "car", ("car", 1), [Branch("car", 1)], Branch("Car", 1), Branch("", 1))),
        (BOTH, Branch("car", [1]), "operator.no_list"),
        (BOTH, [Branch("car", 1), 2], "operator.unknown_branch"),
        (BOTH, [Branch("car", 1), Branch("bus", 2)], "operator.unknown_branch"),
    ],
)  # fmt: skip
def test_other_outputs_are_refused(emission: Emission, output: Any, code: str) -> None:
    with raises_code(OperatorError, code):
        emitted_values(emission, output)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers()), max_size=8), st.integers(0, 8))
@settings(max_examples=examples(200))
def test_elements_keep_their_order_up_to_the_maximum(taken: list[tuple[int, int]], most: int) -> None:
    emission = Emission(most, ("a", "b", "c"))
    output = [Branch("abc"[branch], value) for branch, value in taken]
    if len(output) <= most:
        assert emitted_values(emission, output) == taken
    else:
        with raises_code(OperatorError, "operator.too_many_elements"):
            emitted_values(emission, output)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ONE),
        ({"emits": "many"}, Emission(200)),
        ({"emits": "many", "at_most": 5, "branches": ["x", "y"]}, Emission(5, ("x", "y"))),
        ({"branches": "x"}, Emission(branches=("x",))),
        ({"gather": True}, ONE),
    ],
)
def test_the_specification_says_what_is_emitted(fields: dict[str, Any], expected: Emission) -> None:
    assert Emission.of(OperatorSpec.model_validate({"name": "o", "uses": "m:f", **fields})) == expected


CODE = """
from circinus.operators import Branch, operator

@operator
class Split:
    def process(self, texts, others):
        return [[Branch("long" if len(word) > 2 else "short", word) for word in text.split()] + other
                for text, other in zip(texts, others)]
"""


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OperatorHost:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "emitting_code", raising=False)
    (tmp_path / "emitting_code.py").write_text(CODE, encoding="utf-8")
    return OperatorHost("emitting_code:Split", "", {}, 1.0, [tmp_path], Emission(3, ("long", "short")))


def test_a_host_gives_the_outputs_of_each_input_of_a_batch(split: OperatorHost) -> None:
    nothing = pack_list([])
    run = split.run([[pickle_value(text), nothing] for text in ("a bcd e", "", "fgh")])
    assert [[(branch, unpickle_value(value)) for branch, value in outputs] for outputs in run.of_inputs] == [
        [(1, "a"), (0, "bcd"), (1, "e")],
        [],
        [(0, "fgh")],
    ]
    with raises_code(OperatorError, "operator.unknown_branch"):
        split.run([[pickle_value("a"), pack_list([pickle_value("b")])]])
    with raises_code(OperatorError, "operator.too_many_elements"):
        split.run([[pickle_value("a"), nothing], [pickle_value("a b c d"), nothing]])


def test_an_array_is_no_list() -> None:
    with raises_code(OperatorError, "operator.no_list"):
        emitted_values(MANY, np.zeros(2))
