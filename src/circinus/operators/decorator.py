"""`@operator`: turn a class or a plain function into an operator."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from circinus.errors import OperatorError
from circinus.operators.protocol import Operator, OperatorType
from circinus.spec.model import Scalar

_CPUS = "cpus"
"""An operator that takes a keyword of this name is told how many CPUs its replica has; it is no knob."""


class _FunctionOperator:
    """Applies a function of one item to each item of a batch."""

    def __init__(self, function: Callable[..., Any], knobs: Mapping[str, Scalar]) -> None:
        self._function = function
        self._knobs = dict(knobs)

    def process(self, *inputs: Sequence[Any]) -> list[Any]:
        return [self._function(*item, **self._knobs) for item in zip(*inputs, strict=True)]


@overload
def operator(target: Callable[..., Any]) -> OperatorType: ...
@overload
def operator(
    *, name: str | None = None, version: str | None = None
) -> Callable[[Callable[..., Any]], OperatorType]: ...
def operator(
    target: Callable[..., Any] | None = None, *, name: str | None = None, version: str | None = None
) -> OperatorType | Callable[[Callable[..., Any]], OperatorType]:
    """Declare an operator.

    A **class** gets its knobs as keyword arguments of `__init__`, where it loads its model (once a replica), and
    has a method `process(*inputs)` that works on batches. A **function** gets one item's inputs as positional
    arguments and its knobs as keyword-only arguments. Either may take a keyword `cpus`: the CPUs of the replica.

    Args:
        target: the class or function.
        name: what to call it in messages; by default the target's name.
        version: replaces the hash of the source file as the identity of what was measured.

    Raises:
        OperatorError: the target has no `process` method, or takes `*args` where knobs are expected.
    """
    if target is None:
        return lambda found: _operator_type(found, name, version)
    return _operator_type(target, name, version)


def _operator_type(target: Callable[..., Any], name: str | None, version: str | None) -> OperatorType:
    name = name or target.__name__
    if inspect.isclass(target):
        process = getattr(target, "process", None)
        if process is None:
            raise OperatorError(f"operator {name}: found a class without a method `process(*inputs)`; add one")
        parameters = list(inspect.signature(target).parameters.values())
        inputs = _count_inputs(list(inspect.signature(process).parameters.values())[1:])
    else:
        signature = list(inspect.signature(target).parameters.values())
        parameters = [p for p in signature if p.kind is p.KEYWORD_ONLY]
        inputs = _count_inputs([p for p in signature if p.kind is not p.KEYWORD_ONLY])
    keywords = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]

    def create(knobs: Mapping[str, Scalar], cpus: float) -> Operator:
        arguments: dict[str, Any] = dict(knobs)
        if _CPUS in keywords:
            arguments[_CPUS] = cpus
        if inspect.isclass(target):
            loaded: Operator = target(**arguments)
            return loaded
        return _FunctionOperator(target, arguments)

    return OperatorType(
        name=name,
        create=create,
        knobs=tuple(keyword for keyword in keywords if keyword != _CPUS),
        inputs=inputs,
        version=version or _source_hash(target),
    )


def _count_inputs(parameters: Sequence[inspect.Parameter]) -> int | None:
    return None if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(parameters)


def _source_hash(target: Callable[..., Any]) -> str:
    path = inspect.getsourcefile(target)
    if path is None:
        return hashlib.sha256(repr(target).encode()).hexdigest()
    with open(path, "rb") as source:
        return hashlib.sha256(source.read()).hexdigest()
