"""What is wrong with a value, in the words of every message: what was found, what was expected, a near name.

Validators raise `wrong(...)` (one fault of their own value) or `refusal(...)` (several, below their value). Whatever
pydantic itself finds is put into the same words by `explain`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
"""Where in a document: field names as written and positions in lists."""

_FAULT = "fault"
_LONGEST = 60

_EXPECTED = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "tuple_type": "a list",
    "string_type": "text",
    "string_unicode": "text in Unicode",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_short": "a list of at least {min_length}",
    "literal_error": "{expected}",
}


@dataclass(frozen=True)
class Expected:
    """Annotates a type with what a message says is expected of it: `Annotated[str, Expects("a name")]`."""

    what: str


@dataclass(frozen=True)
class Issue:
    """One thing wrong at `path`, relative to the value that was checked."""

    path: Path
    found: str
    expected: str
    hint: str = ""

    def with_prefix(self, *path: str | int) -> Issue:
        """The same, seen from `path` further up."""
        return Issue((*path, *self.path), self.found, self.expected, self.hint)


def issue_error(found: str, expected: str, hint: str = "") -> PydanticCustomError:
    """The error that a validator raises about the value it was given."""
    message = "found {found}, expected {expected}; {hint}" if hint else "found {found}, expected {expected}"
    return PydanticCustomError(_FAULT, message, {"found": found, "expected": expected, "hint": hint})


def issues_error(title: str, wrongs: Iterable[Issue]) -> ValidationError:
    """The error that a validator raises about parts of the value it was given."""
    details = [
        InitErrorDetails(type=issue_error(found.found, found.expected, found.hint), loc=found.path, input=None)
        for found in wrongs
    ]
    return ValidationError.from_exception_data(title, details, hide_input=True)


def issues_of(error: ValidationError, model: type[BaseModel], given: Any) -> list[Issue]:
    """Everything that `error` says about `given`, which was to become a `model`.

    A required field is not called missing when it was only misspelt, nor a list too short because of faulty entries.
    """
    written = {field.alias or name: field for name, field in model.model_fields.items()}
    misspelt = {
        _meant(str(details["loc"][0]), model)
        for details in error.errors(include_url=False)
        if details["type"] == "extra_forbidden" and len(details["loc"]) == 1
    }
    places = [details["loc"] for details in error.errors(include_url=False)]
    return [
        _explain_one(details, model, written, given)
        for details in error.errors(include_url=False)
        if not (details["type"] == "missing" and details["loc"][-1] in misspelt)
        and not (details["type"] == "too_short" and any(_is_below(place, details["loc"]) for place in places))
    ]


def _is_below(place: Path, other: Path) -> bool:
    """Whether `place` is part of the value at `other`."""
    return len(place) > len(other) and place[: len(other)] == other


def _explain_one(error: ErrorDetails, model: type[BaseModel], written: Mapping[str, FieldInfo], given: Any) -> Issue:
    path = tuple(step for step in error["loc"] if step != "[key]")
    kind, context = error["type"], error.get("ctx", {})
    if kind == _FAULT:
        return Issue(path, context["found"], context["expected"], context["hint"])
    field = written.get(str(path[0])) if len(path) == 1 else None
    expects = _expectation(field.metadata) if field is not None else None
    if kind == "missing":
        return Issue(path, "nothing", expects or "a value", "the field is required")
    if kind == "extra_forbidden":
        key = str(path[-1])
        meant = _meant(key, model)
        hint = f"did you mean {meant}?" if meant is not None else ""
        fields = [name for name in written if name not in getattr(model, "WRITTEN_ELSEWHERE", ())]
        return Issue(path, f"the unknown field {key}", f"one of {', '.join(fields)}", hint)
    value = _dig(given, path, error["input"])
    if kind == "model_type" and not path:
        return Issue(path, describe(value), f"a mapping with the fields {', '.join(written)}")
    expected = expected_by(error)
    if kind.endswith("_type") and expects:
        expected = expects
    if kind == "literal_error":
        return Issue(path, describe(value), expected, did_you_mean(value, re.findall(r"'([^']*)'", expected)))
    return Issue(path, describe(value), expected, _quoting(kind, value))


def expected_by(error: ErrorDetails) -> str:
    """What pydantic expected, in our words where there are any."""
    kind = error["type"]
    return _EXPECTED[kind].format(**error.get("ctx", {})) if kind in _EXPECTED else error["msg"]


def _meant(key: str, model: type[BaseModel]) -> str | None:
    """The field, as written, that an unknown one most likely stands for."""
    in_python = model.model_fields.get(key)
    if in_python is not None:
        return in_python.alias
    return closest_match(key, (field.alias or name for name, field in model.model_fields.items()))


def _expectation(metadata: Iterable[Any]) -> str | None:
    return next((mark.what for mark in metadata if isinstance(mark, Expected)), None)


def _quoting(kind: str, value: Any) -> str:
    text = isinstance(value, bool | int | float) and kind == "string_type"
    return f'put it in quotes if text is meant: "{describe(value)}"' if text else ""


def _dig(given: Any, path: Path, otherwise: Any) -> Any:
    """The value as it was given, rather than what a validator made of it."""
    for step in path:
        try:
            given = given[step]
        except (KeyError, IndexError, TypeError):
            return otherwise
    return given


def describe(value: Any) -> str:
    """How a message speaks of a value that was found."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}infinity"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}...")
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return f"a {type(value).__name__}"


def closest_match(name: str, names: Iterable[Any]) -> str | None:
    """The one of `names` that a mistyped `name` most likely means."""
    folded = {str(known).casefold(): str(known) for known in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    longer = [known for known in folded if len(name) > 1 and known.startswith(name.casefold())]
    likely = close or longer
    return folded[likely[0]] if likely else None


def did_you_mean(name: Any, names: Iterable[Any]) -> str:
    """A hint that names the near one of `names`; empty when there is none."""
    meant = closest_match(name, names) if isinstance(name, str) else None
    return f"did you mean {meant}?" if meant is not None else ""


def expected_choice(names: Iterable[Any], what: str) -> str:
    """What is expected where one of `names` must be referred to."""
    known = [describe(name) if not isinstance(name, str) else name for name in names]
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"{what} ({shown})" if known else f"{what} (there is none)"
