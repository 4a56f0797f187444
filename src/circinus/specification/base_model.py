"""Base model of specifications: frozen, closed to unknown fields, equal by value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from inspect import Parameter, Signature
from itertools import islice
from typing import Annotated, Any, ClassVar, Self, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    Strict,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from circinus.errors import OperatorError
from circinus.specification.code_references import reference_to
from circinus.specification.diagnostics import Expected, Issue, describe, issue_error, issues_error, issues_of
from circinus.specification.limits import MAX_FAULTS, MAX_INTEGER, MAX_TEXT

SURROGATE = re.compile("[\ud800-\udfff]")
"""Unpaired surrogates, which Python strings may contain and files may not."""

_COMMANDS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
CONTROL = re.compile(f"[{_COMMANDS}]")
"""Characters that command a terminal or change the direction of text; tables print the values of knobs as they are."""

_MAX_NAME_LENGTH = 63


def _text(pattern: str, description: str, max_length: int | None = None) -> tuple[Any, ...]:
    """Return the annotations of a text that must match `pattern`, with its `description` in messages."""

    def check(value: str) -> str:
        if max_length is not None and len(value) > max_length:
            raise issue_error(f"{len(value)} characters", f"at most {max_length}")
        if re.fullmatch(pattern, value, re.ASCII) is None:
            raise issue_error(describe(value), description)
        return value

    schema: dict[str, Any] = {"type": "string", "pattern": f"^({pattern})$"}
    if max_length is not None:
        schema["maxLength"] = max_length
    return AfterValidator(check), Expected(description), WithJsonSchema(schema)


Name = Annotated[
    str,
    *_text(
        r"[A-Za-z0-9][A-Za-z0-9_.-]*",
        "a name of letters, digits, `_`, `.` and `-` that begins with a letter or digit",
        _MAX_NAME_LENGTH,
    ),
]
"""Name of at most 63 letters, digits, `_`, `.` and `-`, beginning with a letter or digit."""


def _reference(value: Any) -> Any:
    """Replace an operator, metric or data set given as a Python object by its import reference."""
    if isinstance(value, str) or not (callable(value) or hasattr(value, "target")):
        return value
    try:
        return reference_to(value)
    except OperatorError as error:
        raise issue_error(repr(value), "an object that other processes can import", str(error)) from None


Reference = Annotated[
    str,
    BeforeValidator(_reference),
    *_text(
        r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*|[A-Za-z0-9][A-Za-z0-9_.-]*",
        "`module:attribute` or the name of an entry point",
        MAX_TEXT,
    ),
]
"""Reference to code: `module:attribute`, or the name of an entry point."""

_LABEL = rf"[^\s{_COMMANDS}](?:[^\t\n\r{_COMMANDS}]*[^\s{_COMMANDS}])?"
Label = Annotated[str, *_text(_LABEL, "a short text on one line", _MAX_NAME_LENGTH)]
"""Label in tables, to which nothing refers."""

Scalar = bool | int | float | str
"""Value of a knob."""


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise issue_error(describe(value), "text, a number, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise issue_error(describe(value), "a finite number")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise issue_error(describe(value), "a whole number of at most 64 bits")
    if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
        raise issue_error(describe(value), "text in Unicode")
    if isinstance(value, str) and CONTROL.search(value):
        raise issue_error(describe(value), "text without control characters other than tabs and line breaks")
    return value


ScalarValue = Annotated[Scalar, BeforeValidator(_scalar), Expected("text, a number, true or false")]
"""`Scalar` as a field; numbers must be finite."""

Number = Annotated[float, Strict(), Field(allow_inf_nan=False), Expected("a number")]
"""Finite number. Texts and booleans are not converted."""

Count = Annotated[int, Strict(), Expected("a whole number")]
"""Whole number."""

Flag = Annotated[bool, Strict(), Expected("true or false")]
"""Boolean. Texts and numbers are not converted."""


class _PlainSignature:
    """Signature of a model by field names and plain types, computed when it is read; pydantic's takes pages."""

    def __get__(self, instance: object, model: type[BaseModel]) -> Signature:
        types = get_type_hints(model)
        parameters = []
        for name, field in model.model_fields.items():
            default = Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
            parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, annotation=types[name], default=default))
        return Signature(parameters)


class SpecModel(BaseModel):
    """Frozen model. Field names carry their unit (`round_trip_s`); YAML uses the alias (`round_trip: 20ms`).

    Validation raises a single `pydantic.ValidationError` with all issues, each worded "found ..., expected ...".
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    WRITTEN_ELSEWHERE: ClassVar[frozenset[str]] = frozenset()
    """Fields that documents have outside of `spec`."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        super().__pydantic_init_subclass__(**options)
        cls.__signature__ = _PlainSignature()  # type: ignore[assignment]  # a descriptor

    @classmethod
    def _spread(cls, given: Any, issues: list[Issue]) -> Any:
        """Return `given` with short forms expanded to fields, and append issues of the short forms."""
        return given

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        """Return inconsistencies between fields of `content`: the model, or the raw input if fields are invalid."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _collect_issues(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        issues: list[Issue] = []
        content = given if isinstance(given, cls) else cls._spread(given, issues)
        try:
            model = handler(content)
        except ValidationError as error:
            issues += issues_of(error, cls, content)
            issues += islice(cls._cross_field_issues(content), MAX_FAULTS)
            raise issues_error(cls.__name__, issues) from None
        issues += islice(cls._cross_field_issues(model), MAX_FAULTS)
        if issues:
            raise issues_error(cls.__name__, issues)
        return model
