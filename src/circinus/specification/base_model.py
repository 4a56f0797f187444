"""The base of everything in a specification: frozen, closed to unknown fields, equal by value."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Self

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

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character: Python's texts may have it, files may not."""

_NAME_CHARACTERS = 63


def _text(pattern: str, what: str, longest: int | None = None) -> tuple[Any, ...]:
    """Annotations of a text that must match `pattern` wholly; `what` is what a message says of it."""

    def check(value: str) -> str:
        if longest is not None and len(value) > longest:
            raise issue_error(f"{len(value)} characters", f"at most {longest}")
        if re.fullmatch(pattern, value, re.ASCII) is None:
            raise issue_error(describe(value), what)
        return value

    schema: dict[str, Any] = {"type": "string", "pattern": f"^({pattern})$"}
    if longest is not None:
        schema["maxLength"] = longest
    return AfterValidator(check), Expected(what), WithJsonSchema(schema)


Name = Annotated[
    str,
    *_text(
        r"[A-Za-z0-9][A-Za-z0-9_.-]*",
        "a name of letters, digits, `_`, `.` and `-` that begins with a letter or digit",
        _NAME_CHARACTERS,
    ),
]
"""A name: letters, digits, `_`, `.` and `-`, beginning with a letter or digit; at most 63 characters."""


def _reference(value: Any) -> Any:
    """Replace an operator, metric or data set given as a Python object by the reference it is imported by."""
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
    ),
]
"""Where code is found: `module:attribute`, or the name of an entry point."""

Label = Annotated[str, *_text(r"\S(?:[^\n\r]*\S)?", "a short text on one line", _NAME_CHARACTERS)]
"""What something is called in tables; nothing refers to it."""

Scalar = bool | int | float | str
"""The value of a knob."""


def _scalar(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise issue_error(describe(value), "text, a number, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise issue_error(describe(value), "a finite number")
    if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
        raise issue_error(describe(value), "text in Unicode")
    return value


ScalarValue = Annotated[Scalar, BeforeValidator(_scalar), Expected("text, a number, true or false")]
"""A `Scalar` as a field: finite where it is a number."""

Number = Annotated[float, Strict(), Field(allow_inf_nan=False), Expected("a number")]
"""A finite number; texts and truth values are not taken for one."""

Count = Annotated[int, Strict(), Expected("a whole number")]
"""A whole number."""

Flag = Annotated[bool, Strict(), Expected("true or false")]
"""True or false and nothing else."""


class SpecModel(BaseModel):
    """A frozen model. Fields carry their unit (`round_trip_s`); in YAML the alias (`round_trip: 20ms`) is written.

    What is wrong with a value is raised as one `pydantic.ValidationError` with all faults, each in the words
    "found ..., expected ...".
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        validate_default=True,
        hide_input_in_errors=True,
    )

    WRITTEN_ELSEWHERE: ClassVar[frozenset[str]] = frozenset()
    """Fields that stand in another part of the document than the others."""

    @classmethod
    def _spread(cls, given: Any, faults: list[Issue]) -> Any:
        """`given` with the short forms that people write spread out to fields; appends what it finds wrong."""
        return given

    @classmethod
    def _cross_field_issues(cls, content: Any) -> Iterable[Issue]:
        """What does not fit together within `content`: the model, or what was given where its fields are faulty."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _all_faults(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        faults: list[Issue] = []
        content = given if isinstance(given, cls) else cls._spread(given, faults)
        try:
            made = handler(content)
        except ValidationError as error:
            faults += issues_of(error, cls, content)
            faults += cls._cross_field_issues(content)
            raise issues_error(cls.__name__, faults) from None
        faults += cls._cross_field_issues(made)
        if faults:
            raise issues_error(cls.__name__, faults)
        return made
