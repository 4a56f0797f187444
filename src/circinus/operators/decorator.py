"""Decorator `@operator`, which turns a class or a function into an operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from circinus.errors import OperatorError
from circinus.operators.protocol import DECLARATION, Operator, OperatorFactory
from circinus.operators.source_version import source_version

if TYPE_CHECKING:
    from circinus.specification.base_model import Scalar

Target = TypeVar("Target", bound=Callable[..., Any])

_CPUS = "cpus"
"""Keyword that passes the number of CPUs of the replica. It is not a knob."""


class _FunctionOperator:
    """Operator that applies a function to each item of a batch."""

    def __init__(self, function: Callable[..., Any], knobs: Mapping[str, Scalar]) -> None:
        self._function = function
        self._knobs = dict(knobs)

    def process(self, *inputs: Sequence[Any]) -> list[Any]:
        return [self._function(*item, **self._knobs) for item in zip(*inputs, strict=True)]


@overload
def operator(target: Target) -> Target: ...
@overload
def operator(*, name: str | None = None, version: str | None = None) -> Callable[[Target], Target]: ...
def operator(
    target: Target | None = None, *, name: str | None = None, version: str | None = None
) -> Target | Callable[[Target], Target]:
    """Declare an operator, and return the class or function unchanged.

    A **class** receives its knobs as keyword arguments of `__init__`, where it loads its model (once per replica), and
    has a method `process(*inputs)` for batches. A **function** receives the inputs of one item as positional
    arguments, and its knobs as keyword-only arguments. Both may have a keyword `cpus`: the CPUs of the replica.

    Args:
        target: the class or function.
        name: name in messages; default the target's name.
        version: identity of the code in measurements; default the hash of the source file.

    Raises:
        OperatorError: the target has no `process` method, has no input, or has unnamed knobs (`*args`, `**kwargs`,
            positional-only).

    Example:
        >>> import circinus as c
        >>> @c.operator(version="1")
        ... def scale(value: float, *, factor: float = 2.0) -> float:
        ...     return value * factor
        >>> scale(1.5, factor=3.0)
        4.5
    """
    if target is None:
        return lambda decorated: _declare(decorated, name, version)
    return _declare(target, name, version)


def _declare(target: Target, name: str | None, version: str | None) -> Target:
    factory = _factory(target, name, version)
    try:
        if DECLARATION not in vars(target):
            setattr(target, DECLARATION, factory)
            return target
    except (AttributeError, TypeError):
        pass  # built in
    return cast("Target", factory)  # callable, too


def _factory(target: Callable[..., Any], name: str | None, version: str | None) -> OperatorFactory:
    name = str(name or getattr(target, "__name__", repr(target)))
    if not callable(target):
        raise OperatorError(
            f"found a {type(target).__name__}, expected a class or a function",
            code="operator.not_callable",
            location=f"operator {name}",
        )
    knobs, inputs = _class_parameters(target, name) if inspect.isclass(target) else _function_parameters(target)
    for knob in knobs:
        if knob.kind not in (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            raise OperatorError(
                f"the parameter `{knob}` does not name its knobs",
                code="operator.unnamed_knobs",
                location=f"operator {name}",
                hint="Declare each knob as a keyword parameter.",
            )
    count = None if any(p.kind is Parameter.VAR_POSITIONAL for p in inputs) else len(inputs)
    if count == 0:
        raise OperatorError(
            "there is no parameter for an input",
            code="operator.no_input",
            location=f"operator {name}",
            hint="Add a positional parameter for each input.",
        )

    takes_cpus = any(knob.name == _CPUS for knob in knobs)

    def create(values: Mapping[str, Scalar], cpus: float) -> Operator:
        arguments: dict[str, Any] = dict(values)
        if takes_cpus:
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
        takes_cpus=takes_cpus,
    )


def _class_parameters(target: Any, name: str) -> tuple[list[Parameter], list[Parameter]]:
    """Return the knobs (parameters of `__init__`) and the inputs (parameters of `process`)."""
    process = inspect.getattr_static(target, "process", None)
    if process is None:
        raise OperatorError(
            "the class has no method `process(*inputs)`",
            code="operator.no_process_method",
            location=f"operator {name}",
            hint="Add the method.",
        )
    unbound = inspect.isfunction(process)
    inputs = list(inspect.signature(target.process).parameters.values())[1 if unbound else 0 :]
    return list(inspect.signature(target).parameters.values()), inputs


def _function_parameters(target: Callable[..., Any]) -> tuple[list[Parameter], list[Parameter]]:
    """Return the knobs (keyword-only parameters) and the inputs (other parameters)."""
    parameters = list(inspect.signature(target).parameters.values())
    keywords = (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)
    return [p for p in parameters if p.kind in keywords], [p for p in parameters if p.kind not in keywords]
