"""Issues of values in one uniform wording: the value found, the expected value, and a similar name as hint.

Validators raise `issue_error` (one issue of their own value) or `issues_error` (several issues below their value).
`issues_of` converts errors of pydantic to the same wording.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from circinus.specification.limits import MAX_CANDIDATES, MAX_FAULTS, MAX_INTEGER, MAX_TEXT

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
"""Location within a document: field names as written, and positions in lists."""

_ISSUE = "fault"
_MAX_SHOWN = 60
"""Maximum number of characters of a text in a message."""
_MAX_LISTED = 12
"""Maximum number of choices in a message."""

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
    "too_long": "a list of at most {max_length}",
    "literal_error": "{expected}",
    "enum": "{expected}",
}


@dataclass(frozen=True)
class Expected:
    """Annotation of a type with its description in messages: `Annotated[str, Expected("a name")]`."""

    description: str


@dataclass(frozen=True)
class Issue:
    """Problem at `path`, relative to the checked value."""

    path: Path
    found: str
    expected: str
    hint: str = ""

    def with_prefix(self, *path: str | int) -> Issue:
        """Return the issue with `path` before its own."""
        return Issue((*path, *self.path), self.found, self.expected, self.hint)


def issue_error(found: str, expected: str, hint: str = "") -> PydanticCustomError:
    """Return the error of a validator about its own value."""
    message = "found {found}, expected {expected}; {hint}" if hint else "found {found}, expected {expected}"
    return PydanticCustomError(_ISSUE, message, {"found": found, "expected": expected, "hint": hint})


def issues_error(title: str, issues: Iterable[Issue]) -> ValidationError:
    """Return the error of a validator about parts of its value."""
    details = [
        InitErrorDetails(type=issue_error(issue.found, issue.expected, issue.hint), loc=issue.path, input=None)
        for issue in issues
    ]
    return ValidationError.from_exception_data(title, details, hide_input=True)


def issues_of(error: ValidationError, model: type[BaseModel], given: Any) -> list[Issue]:
    """Return all issues of `error` about `given`, the input of `model`.

    A misspelt required field is not reported as missing as well, nor a list with faulty entries as too short. Of very
    many issues the first are returned.
    """
    written = {field.alias or name: field for name, field in model.model_fields.items()}
    errors = error.errors(include_url=False)[:MAX_FAULTS]
    misspelt = {
        _intended_field(str(details["loc"][0]), model)
        for details in errors
        if details["type"] == "extra_forbidden" and len(details["loc"]) == 1
    }
    locations = [details["loc"] for details in errors]
    return [
        _converted(details, model, written, given)
        for details in errors
        if not (details["type"] == "missing" and details["loc"][-1] in misspelt)
        and not (details["type"] == "too_short" and any(_is_below(location, details["loc"]) for location in locations))
    ]


def _is_below(path: Path, ancestor: Path) -> bool:
    return len(path) > len(ancestor) and path[: len(ancestor)] == ancestor


def _converted(error: ErrorDetails, model: type[BaseModel], written: Mapping[str, FieldInfo], given: Any) -> Issue:
    path = tuple(step for step in error["loc"] if step != "[key]")
    kind, context = error["type"], error.get("ctx", {})
    if kind == _ISSUE:
        return Issue(path, context["found"], context["expected"], context["hint"])
    field = written.get(str(path[0])) if len(path) == 1 else None
    declared = _expectation(field.metadata) if field is not None else None
    if kind == "missing":
        return Issue(path, "nothing", declared or "a value", "the field is required")
    if kind == "extra_forbidden":
        key = str(path[-1])
        intended = _intended_field(key, model)
        if key in model.model_fields and isinstance(given, Mapping) and intended in given:
            return Issue(path, f"{intended} and {key}", "one of these two names of the field", f"leave out {key}")
        if intended is not None and iskeyword(intended) and key == f"{intended}_":
            intended = next(name for name, field in model.model_fields.items() if field.alias == intended)
        hint = f"did you mean {intended}?" if intended is not None else ""
        fields = [name for name in written if name not in getattr(model, "WRITTEN_ELSEWHERE", ())]
        return Issue(path, f"the unknown field {key_text(key)}", f"one of {', '.join(fields)}", hint)
    value = _value_at(given, path, default=error["input"])
    if kind == "model_type" and not path:
        return Issue(path, describe(value), f"a mapping with the fields {', '.join(written)}")
    expected = expected_by(error)
    if kind.endswith("_type") and declared:
        expected = declared
    if kind in ("literal_error", "enum"):
        return Issue(path, describe(value), expected, did_you_mean(value, re.findall(r"'([^']*)'", expected)))
    hint = _quoting_hint(kind, value) or _percentage_hint(value, context, declared)
    return Issue(path, describe(value), expected, hint)


def expected_by(error: ErrorDetails) -> str:
    """Return the expectation behind an error of pydantic, in our wording if there is one."""
    kind = error["type"]
    return _EXPECTED[kind].format(**error.get("ctx", {})) if kind in _EXPECTED else error["msg"]


def first_error(error: ValidationError) -> str:
    """Return the first error of pydantic, as `field: problem`."""
    details = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, details['loc']))}: {details['msg']}"


def _intended_field(key: str, model: type[BaseModel]) -> str | None:
    """Return the field, as written, that an unknown `key` most likely stands for."""
    python_field = model.model_fields.get(key)
    if python_field is not None:
        return python_field.alias
    return closest_match(key, (field.alias or name for name, field in model.model_fields.items()))


def _expectation(metadata: Sequence[Any]) -> str | None:
    """Return the description of the outermost type, which comes last."""
    return next((mark.description for mark in reversed(metadata) if isinstance(mark, Expected)), None)


def _quoting_hint(kind: str, value: Any) -> str:
    is_unquoted = isinstance(value, bool | int | float) and kind == "string_type"
    return f'put it in quotes if text is meant: "{describe(value)}"' if is_unquoted else ""


def _percentage_hint(value: Any, context: Mapping[str, Any], declared: str | None) -> str:
    """Return a hint at the percentage that a share above its limit stands for, or "" if that exceeds it, too."""
    limit = context.get("lt", context.get("le"))
    is_percentage = declared is not None and "percentage" in declared and "%" not in str(value)
    if not is_percentage or limit is None or not 2 <= float(value) < 100 * limit:
        return ""
    return f'did you mean "{float(value):g}%"?'


def _value_at(given: Any, path: Path, default: Any) -> Any:
    """Return the original value at `path`, as validators may have replaced it."""
    for step in path:
        try:
            given = given[step]
        except (KeyError, IndexError, TypeError):
            return default
    return given


def shorten(text: str) -> str:
    """Return the beginning of a text that is too long for a message."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def key_text(key: str) -> str:
    """Return a key as messages name it."""
    return shorten(key) or "''"


def describe(value: Any) -> str:
    """Return the description of a value in a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}infinity"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return repr(shorten(value))
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def closest_match(name: str, names: Iterable[Any]) -> str | None:
    """Return the element of `names` that a mistyped `name` most likely means, or None."""
    if len(name) > MAX_TEXT:
        return None
    candidates = [str(candidate) for candidate in islice(names, MAX_CANDIDATES)]
    by_folded = {candidate.casefold(): candidate for candidate in candidates if len(candidate) <= MAX_TEXT}
    similar = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    longer = [folded for folded in by_folded if len(name) > 1 and folded.startswith(name.casefold())]
    matches = similar or longer
    return by_folded[matches[0]] if matches else None


def did_you_mean(name: Any, names: Iterable[Any]) -> str:
    """Return a hint with the similar element of `names`, or "" if there is none."""
    intended = closest_match(name, names) if isinstance(name, str) else None
    return f"did you mean {intended}?" if intended is not None else ""


def expected_choice(names: Iterable[Any], subject: str) -> str:
    """Return the expectation of a reference to one of `names`, each of which is a `subject`."""
    first = list(islice(names, _MAX_LISTED + 1))
    texts = [describe(name) if not isinstance(name, str) else shorten(name) for name in first]
    listed = ", ".join(texts[:_MAX_LISTED]) + (", ..." if len(texts) > _MAX_LISTED else "")
    return f"{subject} ({listed})" if texts else f"{subject} (there is none)"
