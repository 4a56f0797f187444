"""Readable JSON of dataclasses, pydantic models, paths and plain values, and values of JSON from elsewhere."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python


def json_text(
    value: Any, *, indent: int | None, by_alias: bool, not_finite: Literal["null", "constants"] = "constants"
) -> str:
    """Return `value` as indented JSON in ASCII, which every terminal and encoding supports.

    Args:
        value: plain values, dataclasses, paths and pydantic models, nested in any way.
        indent: spaces per level; None: one line.
        by_alias: whether to name the fields of models as in YAML.
        not_finite: encoding of numbers that are not finite: null, or the constants `NaN` and `Infinity`.
    """
    try:
        text = to_json(
            value, indent=indent, by_alias=by_alias, inf_nan_mode=not_finite, serialize_unknown=True
        ).decode()
    except PydanticSerializationError:  # a name of a file that is not in UTF-8
        plain = to_jsonable_python(value, by_alias=by_alias, inf_nan_mode=not_finite, serialize_unknown=True)
        return json.dumps(plain, indent=indent, separators=(",", ":") if indent is None else None)
    return text if text.isascii() else re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], text)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is no JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def refuse_not_finite(text: str) -> None:
    """Raise ValueError if a JSON text contains a number that is not finite."""

    def refuse(constant: str) -> None:
        raise ValueError(f"found {constant}, expected finite numbers")

    json.loads(text, parse_constant=refuse)
