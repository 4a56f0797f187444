"""Validation of the code that a specification references: existence, kind and signature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from circinus.errors import Diagnostic, OperatorError
from circinus.operators.code_host import OperatorSignature
from circinus.operators.user_code import UserCode, user_code
from circinus.specification import OperatorSpec, Pipeline, Specification
from circinus.specification.diagnostics import Issue, closest_match, expected_choice


def check_operators(specification: Specification) -> tuple[Diagnostic, ...]:
    """Import all operators, metrics and data sets of `specification` in their process, and check their signatures.

    Apart from the imports, no code is executed.

    Returns:
        A diagnostic for each unresolved reference, object of the wrong kind, unknown or missing knob, wrong number of
        inputs, and unknown argument of a data set.
    """
    code = _Code(user_code(specification.module_paths))
    return tuple(
        specification.diagnostic("Pipeline", name, issue.path, issue.found, issue.expected, issue.hint)
        for name, pipeline in specification.pipelines.items()
        for issue in _pipeline(pipeline, code)
    )


class _Code:
    """Cached descriptions of references."""

    def __init__(self, code: UserCode) -> None:
        self._code = code
        self.operator = lru_cache(maxsize=None)(self._operator)

    def _operator(self, reference: str) -> OperatorSignature | Issue:
        try:
            return self._code.operator(reference)
        except OperatorError as error:
            return _unresolved(reference, error, "an operator declared with `@operator`")

    def call(
        self, reference: str, positional: int, keywords: Iterable[str], path: tuple[str, ...], expected: str
    ) -> Issue | None:
        """Return an issue if a function cannot be called with arguments, or None if it can or has no signature."""
        try:
            description = self._code.describe(reference)
            if not description.is_callable:
                return Issue(("uses",), f"{reference!r}, which is a {description.type_name}", "a function")
            mismatch = self._code.call_mismatch(reference, positional, tuple(keywords))
        except OperatorError as error:
            return _unresolved(reference, error, "a function")
        if mismatch is None:
            return None
        return Issue(path, f"arguments that do not fit {mismatch.signature}", expected, mismatch.reason)


def _unresolved(reference: str, error: OperatorError, expected: str) -> Issue:
    return Issue(
        ("uses",), repr(reference), expected, f"{error.message}. {error.hint}" if error.hint else error.message
    )


def _pipeline(pipeline: Pipeline, code: _Code) -> Iterator[Issue]:
    for position, spec in enumerate(pipeline.operators):
        operator = code.operator(spec.uses)
        for issue in (operator,) if isinstance(operator, Issue) else _operator(spec, operator):
            yield issue.with_prefix("operators", position)
    metric = code.call(pipeline.metric.uses, 2, (), ("uses",), "a function of the output and the ground truth")
    if metric is not None:
        yield metric.with_prefix("metric")
    reference, arguments = pipeline.dataset.uses, pipeline.dataset.arguments
    dataset = code.call(reference, 0, arguments, ("arguments",), f"the parameters of {reference}")
    if dataset is not None:
        yield dataset.with_prefix("dataset")


def _operator(spec: OperatorSpec, operator: OperatorSignature) -> Iterator[Issue]:
    declared = {knob.name for knob in spec.knobs}
    for position, knob in enumerate(spec.knobs):
        if knob.name not in operator.knobs:
            intended = closest_match(knob.name, [name for name in operator.knobs if name not in declared])
            hint = f"did you mean {intended}?" if intended is not None else ""
            expected = expected_choice(operator.knobs, f"a knob of {operator.name}")
            yield Issue(("knobs", position, "name"), f"the knob {knob.name}", expected, hint)
            declared |= {intended} if intended is not None else set()  # report a misspelt knob only once
        elif knob.only_if and knob.name in operator.required_knobs:
            expected = f"no condition, since {operator.name} has no default for {knob.name}"
            yield Issue(("knobs", position, "only_if"), "a condition", expected, "give its parameter a default")
    for name in operator.required_knobs:
        if name not in declared:
            expected = f"the knob {name}, for which {operator.name} has no default"
            yield Issue(("knobs",), f"no knob {name}", expected)
    inputs = max(1, len(spec.after))
    if operator.inputs is not None and operator.inputs != inputs:
        found = f"{inputs} input{'s' if inputs > 1 else ''}" if spec.after else "no operator before it, so 1 input"
        expected = f"{operator.inputs}, the number of inputs of {operator.name}"
        yield Issue(("after",), found, expected)
