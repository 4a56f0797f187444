"""Short forms of lists in YAML, and constraints on lists."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from circinus.specification.diagnostics import Issue, describe, issue_error, issues_error


def as_list(value: Any) -> Any:
    """Return a list unchanged, and any other value as a list of it."""
    is_list = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    return value if value is None or is_list else (value,)


@dataclass(frozen=True)
class OneOrMany:
    """Annotation of a tuple that accepts a single value for a list of one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(as_list, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        list_schema = handler(schema)
        options = list_schema.get("anyOf", [list_schema])
        array = next((option for option in options if option.get("type") == "array"), list_schema)
        return {"anyOf": [array["items"], *options]}


@dataclass(frozen=True)
class KeyedByName:
    """Annotation of a tuple of named models that accepts a mapping from names for the list.

    The mapping's values are mappings of the remaining fields, or the value of the field `main`.
    """

    main: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._validate, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        array = handler(schema)
        model = handler.resolve_ref_schema(array["items"])
        fields = {name: field for name, field in model["properties"].items() if name != "name"}
        entry = {
            "type": "object",
            "properties": fields,
            "required": [name for name in model.get("required", ()) if name != "name"],
            "additionalProperties": False,
        }
        keyed = {"type": "object", "additionalProperties": {"anyOf": [fields[self.main], entry]}}
        return {"anyOf": [keyed, array]}

    def expand(self, given: Any) -> Any:
        """Return a mapping from names as a list of mappings with the field `name`, and any other value unchanged."""
        if not isinstance(given, Mapping):
            return given
        return [{**self._fields(value), "name": name} for name, value in given.items()]

    def _fields(self, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        return {} if value is None else {self.main: value}

    def _validate(self, given: Any) -> Any:
        if not isinstance(given, Mapping | list | tuple):
            raise issue_error(describe(given), "a mapping by name, or a list")
        if isinstance(given, Mapping):
            second_names = [
                Issue((position, "name"), "a second name", f"no field `name`, since the key {name} is the name")
                for position, (name, value) in enumerate(given.items())
                if "name" in self._fields(value)
            ]
            if second_names:
                raise issues_error("list", second_names)
        return self.expand(given)


def duplicate_issues(values: Sequence[Any], subject: str) -> list[Issue]:
    """Return an issue for each value that equals a preceding one; `subject` is the noun for a value."""
    issues: list[Issue] = []
    originals: dict[Hashable, Any] = {}
    for position, value in enumerate(values):
        key = value if isinstance(value, Hashable) else (Mapping, repr(value))
        original = originals.setdefault(key, value)
        if len(originals) + len(issues) <= position:
            equality = "" if repr(original) == repr(value) else f" (equal to {describe(original)})"
            issues.append(Issue((position,), f"{describe(value)} again{equality}", f"every {subject} once"))
    return issues


def require_unique(subject: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return a validator that refuses equal values in a tuple; `subject` is the noun for a value."""

    def check(values: tuple[Any, ...]) -> tuple[Any, ...]:
        if issues := duplicate_issues(values, subject):
            raise issues_error(subject, issues)
        return values

    return check


def sorted_unique(subject: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return a validator that sorts a tuple and refuses equal values; `subject` is the noun for a value."""
    check = require_unique(subject)
    return lambda values: tuple(sorted(check(values)))
