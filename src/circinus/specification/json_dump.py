"""Whatever the project passes around (dataclasses, models, paths, numbers) as JSON that people can read, too."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic_core import to_json


def json_text(
    value: Any, *, indent: int, by_alias: bool, not_finite: Literal["null", "constants"] = "constants"
) -> str:
    """`value` as indented JSON of ASCII characters, which any terminal and any file can take.

    Args:
        value: of plain values, dataclasses, paths and pydantic models.
        indent: spaces for each level.
        by_alias: whether the fields of models are written as in YAML.
        not_finite: how numbers that are not finite are written: as null, or as `NaN` and `Infinity`.
    """
    text = to_json(value, indent=indent, by_alias=by_alias, inf_nan_mode=not_finite, serialize_unknown=True).decode()
    return text if text.isascii() else re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], text)


def refuse_not_finite(text: str) -> None:
    """Raise ValueError where a JSON text has a number that is not finite."""

    def refuse(constant: str) -> None:
        raise ValueError(f"found {constant}, expected finite numbers")

    json.loads(text, parse_constant=refuse)
