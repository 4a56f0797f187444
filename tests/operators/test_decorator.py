"""`@operator` on functions and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from circinus.errors import OperatorError
from circinus.operators import Operator, operator
from raised import raises_code


@operator
def joined(left: str, right: str, *, separator: str = "-", repeats: int, cpus: float = 1) -> str:
    return separator.join([left, right] * repeats) + f"@{cpus:g}"


class Scaled:
    def __init__(self, *, factor: float, offset: float = 0.0, cpus: float = 1.0) -> None:
        self.factor, self.offset, self.cpus = factor, offset, cpus

    def process(self, values: Sequence[float]) -> list[float]:
        return [value * self.factor + self.offset for value in values]


scale = operator(name="scale", version="7")(Scaled)


def test_a_function_works_on_one_item_and_its_operator_on_batches() -> None:
    assert (joined.name, joined.knobs, joined.inputs) == ("joined", ("separator", "repeats"), 2)
    assert joined.required_knobs == ("repeats",)
    loaded = joined.create({"repeats": 1, "separator": "+"}, 2)
    assert isinstance(loaded, Operator)
    assert loaded.process(["a", "b"], ["c", "d"]) == ["a+c@2", "b+d@2"]


def test_a_function_refuses_inputs_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        joined.create({"repeats": 1}, 1).process(["a", "b"], ["c"])


def test_a_class_gets_knobs_and_cpus_once() -> None:
    assert (scale.name, scale.knobs, scale.inputs, scale.version) == ("scale", ("factor", "offset"), 1, "7")
    assert scale.required_knobs == ("factor",)
    loaded: Any = scale.create({"factor": 2.0}, 4)
    assert loaded.cpus == 4
    assert loaded.process([1.0, 2.0]) == [2.0, 4.0]


def test_any_number_of_inputs_is_none() -> None:
    @operator
    def gathered(*parts: str) -> str:
        return "".join(parts)

    assert gathered.inputs is None
    assert gathered.create({}, 1).process(["a"], ["b"], ["c"]) == ["abc"]


def test_static_process_has_no_self_to_count() -> None:
    class Stateless:
        @staticmethod
        def process(values: Sequence[int]) -> list[int]:
            return list(values)

    assert operator(Stateless).inputs == 1


def test_the_version_is_that_of_the_file() -> None:
    @operator
    def other(value: int) -> int:
        return value

    assert other.version == joined.version
    assert len(joined.version) == 64


def test_a_class_without_process_is_refused() -> None:
    class Nothing:
        pass

    with raises_code(OperatorError, "operator.no_process_method") as caught:
        operator(Nothing)
    assert caught.value.location == "operator Nothing"


def test_knobs_must_be_named() -> None:
    class Open:
        def __init__(self, **knobs: Any) -> None: ...

        def process(self, values: Sequence[int]) -> Sequence[int]:
            return values

    class Star:
        def __init__(self, *knobs: Any) -> None: ...

        def process(self, values: Sequence[int]) -> Sequence[int]:
            return values

    def function(value: int, **knobs: Any) -> int:
        return value

    for target in (Open, Star, function):
        with raises_code(OperatorError, "operator.unnamed_knobs"):
            operator(target)


def test_an_operator_has_an_input() -> None:
    with raises_code(OperatorError, "operator.no_input"):
        operator(lambda: 1)


def test_what_is_not_callable_is_refused() -> None:
    not_callable: Any = 3
    with raises_code(OperatorError, "operator.not_callable"):
        operator(not_callable)


def test_code_without_python_source_needs_a_declared_version() -> None:
    with raises_code(OperatorError, "operator.no_source") as caught:
        operator(print)
    assert caught.value.__suppress_context__
    assert operator(version="1")(print).version == "1"
