"""The short forms in which people write lists, and what the lists must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from circinus.specification.diagnostics import Issue, describe, issue_error, issues_error


def as_list(value: Any) -> Any:
    """`value` where it is a list; one value alone stands for a list of it."""
    several = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
    return value if value is None or several else (value,)


@dataclass(frozen=True)
class OneOrMany:
    """Annotates a tuple: a single value may stand for a list of one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(as_list, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler(schema)
        array = next((part for part in many.get("anyOf", [many]) if part.get("type") == "array"), many)
        return {"anyOf": [array["items"], *many.get("anyOf", [many])]}


@dataclass(frozen=True)
class KeyedByName:
    """Annotates a tuple of named models: a mapping from names may stand for the list.

    What the mapping holds for a name is the rest of the model's fields, or the value of the field `main` alone.
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
        """`given` as a list of mappings with the field `name`, where it is a mapping from names."""
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
            second = [
                Issue((position, "name"), "a second name", f"no field `name` here; it is called {name}")
                for position, (name, value) in enumerate(given.items())
                if "name" in self._fields(value)
            ]
            if second:
                raise issues_error("list", second)
        return self.expand(given)


def duplicate_issues(values: Sequence[Any], what: str) -> list[Issue]:
    """One fault for every value that equals an earlier one; `what` says what must differ."""
    faults = []
    for position, value in enumerate(values):
        if value in values[:position]:
            first = values.index(value)
            same = "" if repr(values[first]) == repr(value) else f" (equal to {describe(values[first])})"
            faults.append(Issue((position,), f"{describe(value)} again{same}", f"every {what} once"))
    return faults


def require_unique(what: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A validator that refuses equal values in a tuple."""

    def check(values: tuple[Any, ...]) -> tuple[Any, ...]:
        if faults := duplicate_issues(values, what):
            raise issues_error(what, faults)
        return values

    return check


def sorted_unique(what: str) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """A validator that refuses equal values in a tuple and sorts the others."""
    check = require_unique(what)
    return lambda values: tuple(sorted(check(values)))
