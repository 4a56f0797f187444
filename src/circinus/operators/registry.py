"""Finding operators, metrics and data sets by `module:attribute` or by entry point."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from circinus.errors import OperatorError
from circinus.operators.protocol import OperatorType

ENTRY_POINT_GROUP = "circinus.operators"


def resolve(reference: str, module_paths: Sequence[Path] = ()) -> Any:
    """Import what `reference` names.

    Args:
        reference: `module:attribute`, or the name of an entry point of the group `circinus.operators`.
        module_paths: folders to look in before `sys.path`; they stay on `sys.path`, so that operators can import
            their neighbours later.

    Raises:
        OperatorError: nothing is found, or the import fails; the message names a near one where there is one.
    """
    for path in reversed(module_paths):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    if ":" not in reference:
        return _resolve_entry_point(reference)
    module_name, _, attribute = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise OperatorError(
            f"{reference}: importing {module_name} failed with {type(error).__name__}: {error}"
        ) from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise OperatorError(f"{reference}: {module_name} has no attribute {part}{hint}")
        found = getattr(found, part)
    return found


def resolve_operator(reference: str, module_paths: Sequence[Path] = ()) -> OperatorType:
    """Like `resolve`, for operators.

    Raises:
        OperatorError: also when what is found was not declared with `@operator`.
    """
    found = resolve(reference, module_paths)
    if not isinstance(found, OperatorType):
        raise OperatorError(f"{reference}: found {type(found).__name__}, expected what `@operator` makes; decorate it")
    return found


def _resolve_entry_point(name: str) -> Any:
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        near = difflib.get_close_matches(name, points, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise OperatorError(
            f"{name}: found neither `module:attribute` nor an entry point of the group {ENTRY_POINT_GROUP}{hint}"
        )
    return points[name].load()
