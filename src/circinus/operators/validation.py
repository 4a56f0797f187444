"""Whether the code that a specification names is there and takes what it will be given."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from circinus.errors import Diagnostic, OperatorError
from circinus.operators.protocol import OperatorFactory
from circinus.operators.registry import resolve, resolve_operator
from circinus.specification import OperatorSpec, Pipeline, Specification
from circinus.specification.diagnostics import Issue, closest_match, expected_choice


def check_operators(specification: Specification) -> tuple[Diagnostic, ...]:
    """Import every operator, metric and data set that `specification` names, and check that they fit.

    Returns:
        One fault for everything that is not found or not of the right kind, for every knob that an operator does not
        take or cannot do without, for every number of inputs it cannot be given, and for every argument of a data
        set that its function does not take. Nothing is loaded and nothing is run but the imports.
    """
    code = _Code(specification.module_paths)
    return tuple(
        specification.diagnostic("Pipeline", name, wrong.path, wrong.found, wrong.expected, wrong.hint)
        for name, pipeline in specification.pipelines.items()
        for wrong in _pipeline(pipeline, code)
    )


class _Code:
    """What references name; every reference is imported once."""

    def __init__(self, module_paths: tuple[Path, ...]) -> None:
        self._module_paths = module_paths
        self.operator = lru_cache(maxsize=None)(self._operator)
        self.function = lru_cache(maxsize=None)(self._function)

    def _operator(self, reference: str) -> OperatorFactory | Issue:
        try:
            return resolve_operator(reference, self._module_paths)
        except OperatorError as error:
            return _unresolved(reference, error, "an operator declared with `@operator`")

    def _function(self, reference: str) -> Any:
        try:
            found = resolve(reference, self._module_paths)
        except OperatorError as error:
            return _unresolved(reference, error, "a function")
        if not callable(found):
            return Issue(("uses",), f"{reference!r}, which is a {type(found).__name__}", "a function")
        return found


def _unresolved(reference: str, error: OperatorError, expected: str) -> Issue:
    return Issue(("uses",), repr(reference), expected, str(error).removeprefix(f"{reference}: "))


def _pipeline(pipeline: Pipeline, code: _Code) -> Iterator[Issue]:
    for position, spec in enumerate(pipeline.operators):
        operator = code.operator(spec.uses)
        for wrong in (operator,) if isinstance(operator, Issue) else _operator(spec, operator):
            yield wrong.with_prefix("operators", position)
    metric = code.function(pipeline.metric.uses)
    if not isinstance(metric, Issue):
        metric = _call(metric, (None, None), {}, ("uses",), "a function of the output and the truth")
    if metric is not None:
        yield metric.with_prefix("metric")
    arguments = pipeline.dataset.arguments
    dataset = code.function(pipeline.dataset.uses)
    if not isinstance(dataset, Issue):
        dataset = _call(dataset, (), arguments, ("arguments",), f"what {pipeline.dataset.uses} takes")
    if dataset is not None:
        yield dataset.with_prefix("dataset")


def _operator(spec: OperatorSpec, operator: OperatorFactory) -> Iterator[Issue]:
    present = {knob.name for knob in spec.knobs}
    for position, knob in enumerate(spec.knobs):
        if knob.name not in operator.knobs:
            meant = closest_match(knob.name, [name for name in operator.knobs if name not in present])
            hint = f"did you mean {meant}?" if meant is not None else ""
            expected = expected_choice(operator.knobs, f"a knob of {operator.name}")
            yield Issue(("knobs", position, "name"), f"the knob {knob.name}", expected, hint)
            present |= {meant} if meant is not None else set()  # one fault for a knob that is only misspelt
        elif knob.only_if and knob.name in operator.required_knobs:
            expected = f"{knob.name} to be there always, since {operator.name} has no default for it"
            yield Issue(("knobs", position, "only_if"), "a condition", expected, "give its parameter a default")
    for name in operator.required_knobs:
        if name not in present:
            expected = f"the knob {name}, for which {operator.name} has no default"
            yield Issue(("knobs",), f"no knob {name}", expected)
    given = max(1, len(spec.after))
    if operator.inputs is not None and operator.inputs != given:
        found = f"{given} input{'s' if given > 1 else ''}" if spec.after else "no operator before it, so 1 input"
        expected = f"{operator.inputs}, which is what {operator.name} takes"
        yield Issue(("after",), found, expected)


def _call(
    function: Any, positional: tuple[Any, ...], keywords: Mapping[str, Any], path: tuple[str, ...], expected: str
) -> Issue | None:
    """Why `function` cannot be called like this; None where it can, or where its signature is not known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built-in functions may have none
        return None
    try:
        signature.bind(*positional, **keywords)
    except TypeError as error:
        return Issue(path, f"arguments that do not fit {signature}", expected, str(error))
    return None
