"""`@operator`: turn a class or a plain function into an operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any, cast, overload

from circinus.errors import OperatorError
from circinus.operators.protocol import Operator, OperatorFactory
from circinus.operators.source_version import source_version

if TYPE_CHECKING:
    from circinus.specification.base_model import Scalar

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
def operator(target: Callable[..., Any]) -> OperatorFactory: ...
@overload
def operator(
    *, name: str | None = None, version: str | None = None
) -> Callable[[Callable[..., Any]], OperatorFactory]: ...
def operator(
    target: Callable[..., Any] | None = None, *, name: str | None = None, version: str | None = None
) -> OperatorFactory | Callable[[Callable[..., Any]], OperatorFactory]:
    """Declare an operator.

    A **class** gets its knobs as keyword arguments of `__init__`, where it loads its model (once a replica), and
    has a method `process(*inputs)` that works on batches. A **function** gets one item's inputs as positional
    arguments and its knobs as keyword-only arguments. Either may take a keyword `cpus`: the CPUs of the replica.

    Args:
        target: the class or function.
        name: what to call it in messages; by default the target's name.
        version: replaces the hash of the source file as the identity of what was measured.

    Raises:
        OperatorError: the target has no `process` method, takes no input, or takes knobs without naming them
            (`*args`, `**kwargs`, positional-only).
    """
    if target is None:
        return lambda found: _operator_type(found, name, version)
    return _operator_type(target, name, version)


def _operator_type(target: Callable[..., Any], name: str | None, version: str | None) -> OperatorFactory:
    name = str(name or getattr(target, "__name__", repr(target)))
    if not callable(target):
        raise OperatorError(
            f"operator {name}: found a {type(target).__name__}, expected a class or a function",
            code="operator.not_callable",
        )
    knobs, inputs = _class_parameters(target, name) if inspect.isclass(target) else _function_parameters(target)
    for knob in knobs:
        if knob.kind not in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            raise OperatorError(
                f"operator {name}: found the parameter {knob} where knobs are taken, expected every knob as a "
                "parameter with its name; name them one by one",
                code="operator.unnamed_knobs",
            )
    count = None if any(p.kind is Parameter.VAR_POSITIONAL for p in inputs) else len(inputs)
    if count == 0:
        raise OperatorError(
            f"operator {name}: found no parameter for an input, expected at least one; add it", code="operator.no_input"
        )

    def create(values: Mapping[str, Scalar], cpus: float) -> Operator:
        arguments: dict[str, Any] = dict(values)
        if any(knob.name == _CPUS for knob in knobs):
            arguments[_CPUS] = cpus
        if not inspect.isclass(target):
            return _FunctionOperator(target, arguments)
        loaded: Operator = cast("Callable[..., Operator]", target)(**arguments)
        return loaded

    return OperatorFactory(
        name=name,
        create=create,
        knobs=tuple(knob.name for knob in knobs if knob.name != _CPUS),
        inputs=count,
        version=version or source_version(target),
        target=target,
        required_knobs=tuple(knob.name for knob in knobs if knob.name != _CPUS and knob.default is Parameter.empty),
    )


def _class_parameters(target: Any, name: str) -> tuple[list[Parameter], list[Parameter]]:
    """Knobs, from `__init__`, and inputs, from `process`."""
    process = inspect.getattr_static(target, "process", None)
    if process is None:
        raise OperatorError(
            f"operator {name}: found a class without a method `process(*inputs)`; add one",
            code="operator.no_process_method",
        )
    unbound = inspect.isfunction(process)
    inputs = list(inspect.signature(target.process).parameters.values())[1 if unbound else 0 :]
    return list(inspect.signature(target).parameters.values()), inputs


def _function_parameters(target: Callable[..., Any]) -> tuple[list[Parameter], list[Parameter]]:
    """Knobs are keyword-only, all others are inputs."""
    parameters = list(inspect.signature(target).parameters.values())
    keywords = (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)
    return [p for p in parameters if p.kind in keywords], [p for p in parameters if p.kind not in keywords]
