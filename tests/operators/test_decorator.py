"""`@operator` on functions and classes."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Sequence
from typing import Any

import cloudpickle
import pytest

import circinus as c
from circinus.errors import OperatorError
from circinus.operators import Operator, operator, operator_of
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
    factory = operator_of(joined)
    assert (factory.name, factory.knobs, factory.inputs) == ("joined", ("separator", "repeats"), 2)
    assert factory.required_knobs == ("repeats",)
    loaded = operator_of(joined).create({"repeats": 1, "separator": "+"}, 2)
    assert isinstance(loaded, Operator)
    assert loaded.process(["a", "b"], ["c", "d"]) == ["a+c@2", "b+d@2"]


def test_a_function_refuses_inputs_of_unequal_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        operator_of(joined).create({"repeats": 1}, 1).process(["a", "b"], ["c"])


def test_a_class_gets_knobs_and_cpus_once() -> None:
    factory = operator_of(scale)
    assert (factory.name, factory.knobs, factory.inputs, factory.version) == ("scale", ("factor", "offset"), 1, "7")
    assert factory.required_knobs == ("factor",)
    loaded: Any = operator_of(scale).create({"factor": 2.0}, 4)
    assert loaded.cpus == 4
    assert loaded.process([1.0, 2.0]) == [2.0, 4.0]


def test_any_number_of_inputs_is_none() -> None:
    @operator
    def gathered(*parts: str) -> str:
        return "".join(parts)

    assert operator_of(gathered).inputs is None
    assert operator_of(gathered).create({}, 1).process(["a"], ["b"], ["c"]) == ["abc"]


def test_static_process_has_no_self_to_count() -> None:
    class Stateless:
        @staticmethod
        def process(values: Sequence[int]) -> list[int]:
            return list(values)

    assert operator_of(operator(Stateless)).inputs == 1


def test_the_version_is_that_of_the_file() -> None:
    @operator
    def other(value: int) -> int:
        return value

    assert operator_of(other).version == operator_of(joined).version
    assert len(operator_of(joined).version) == 64


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
    assert operator_of(operator(version="1")(print)).version == "1"


def test_a_decorated_function_and_class_are_themselves() -> None:
    assert inspect.isfunction(joined)
    assert joined("a", "b", repeats=2) == "a-b-a-b@1"
    assert scale is Scaled
    assert scale(factor=2.0, offset=1.0).process([1.0]) == [3.0]
    assert pickle.loads(pickle.dumps(joined)) is joined
    loaded = pickle.loads(pickle.dumps(scale(factor=2.0)))
    assert isinstance(loaded, Scaled)
    assert c.OperatorSpec(name="a", uses=joined).uses.endswith("test_decorator:joined")


def test_what_cannot_be_marked_is_callable_and_an_operator() -> None:
    built_in = operator(version="1")(len)
    second = operator(version="8")(Scaled)  # the class is an operator of version 7 already
    assert (built_in([1, 2]), second(factor=3.0).factor) == (2, 3.0)
    assert (operator_of(built_in).version, operator_of(second).version, operator_of(scale).version) == ("1", "8", "7")


def test_subclasses_and_wrappers_of_an_operator_are_no_operators() -> None:
    class Further(Scaled):
        pass

    @functools.wraps(joined)
    def wrapper(*inputs: str) -> str:
        return joined(*inputs, repeats=1)

    assert operator_of(Further) is None
    assert operator_of(wrapper) is None
    assert operator_of(operator(version="9")(Further)).version == "9"


def test_an_operator_pickled_by_value_is_one_with_its_version() -> None:
    namespace: dict[str, Any] = {"operator": operator, "__name__": "notebook"}
    exec(
        "@operator(version='5')\nclass Twice:\n    def process(self, values): return [2 * v for v in values]\n"
        "@operator(version='6')\ndef thrice(value, *, more=0): return 3 * value + more",
        namespace,
    )
    twice, thrice = (pickle.loads(cloudpickle.dumps(namespace[name])) for name in ("Twice", "thrice"))
    assert (operator_of(twice).version, operator_of(thrice).version) == ("5", "6")
    assert operator_of(twice).create({}, 1.0).process([1]) == twice().process([1]) == [2]
    assert operator_of(thrice).create({"more": 1}, 1.0).process([1]) == [4]
    assert thrice(1) == 3
