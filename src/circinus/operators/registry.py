"""Finding operators, metrics and data sets by `module:attribute` or by entry point."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from circinus.errors import OperatorError
from circinus.operators.protocol import OperatorFactory

ENTRY_POINT_GROUP = "circinus.operators"


def resolve(reference: str, module_paths: Sequence[Path] = ()) -> Any:
    """Import what `reference` names.

    Args:
        reference: `module:attribute`, or the name of an entry point of the group `circinus.operators`.
        module_paths: folders to look in before `sys.path`; they stay on `sys.path`, so that operators can import
            their neighbours later.

    Raises:
        OperatorError: nothing is found, the import fails, or a module of the same name was imported from another
            folder before; the message names a near one where there is one.
    """
    for path in reversed(module_paths):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    if ":" not in reference:
        return _resolve_entry_point(reference)
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        raise OperatorError(
            f"{reference}: expected `module:attribute` with something on both sides of the colon",
            code="operator.malformed_reference",
        )
    found: Any = _import(module_name, reference, module_paths)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise OperatorError(
                f"{reference}: {module_name} has no attribute {part}{_near(part, dir(found))}",
                code="operator.no_attribute",
            )
        found = getattr(found, part)
    return found


def resolve_operator(reference: str, module_paths: Sequence[Path] = ()) -> OperatorFactory:
    """Like `resolve`, for operators.

    Raises:
        OperatorError: also when what is found was not declared with `@operator`.
    """
    found = resolve(reference, module_paths)
    if not isinstance(found, OperatorFactory):
        raise OperatorError(
            f"{reference}: found {type(found).__name__}, expected what `@operator` makes; decorate it",
            code="operator.not_decorated",
        )
    return found


def _import(module_name: str, reference: str, module_paths: Sequence[Path]) -> ModuleType:
    _refuse_namesake(module_name.partition(".")[0], reference, module_paths)
    importlib.invalidate_caches()  # the file may have been written after its folder was first listed
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise OperatorError(
                f"{reference}: importing {module_name} failed: it needs the module {error.name}, "
                "which is not installed",
                code="operator.missing_dependency",
            ) from error
        folders = ", ".join(str(path) for path in module_paths) or "the module search path"
        files = [p.stem for path in module_paths if path.is_dir() for p in path.iterdir()]
        raise OperatorError(
            f"{reference}: found no module {error.name} in {folders}{_near(error.name, files)}",
            code="operator.no_module",
        ) from error
    except (Exception, SystemExit) as error:  # any error of the user's module
        raise OperatorError(
            f"{reference}: importing {module_name} failed with {type(error).__name__}: {error}",
            code="operator.import_failed",
        ) from error


def _refuse_namesake(package: str, reference: str, module_paths: Sequence[Path]) -> None:
    """Python keeps one module a name: a second folder's module would silently be the first folder's."""
    loaded = getattr(sys.modules.get(package), "__file__", None)
    if loaded is None:
        return
    for folder in module_paths:
        for candidate in (folder / package / "__init__.py", folder / f"{package}.py"):
            if candidate.is_file():
                if not candidate.samefile(loaded):
                    raise OperatorError(
                        f"{reference}: {package} was already imported from {loaded}, but {candidate} has the same "
                        "name; rename one of them",
                        code="operator.duplicate_module",
                    )
                return


def _resolve_entry_point(name: str) -> Any:
    from importlib.metadata import entry_points  # takes longer than all else here, and few need it

    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        raise OperatorError(
            f"{name}: found neither `module:attribute` nor an entry point of the group {ENTRY_POINT_GROUP}"
            f"{_near(name, points)}",
            code="operator.unknown_entry_point",
        )
    try:
        return points[name].load()
    except (Exception, SystemExit) as error:  # whatever the package raises while it is imported
        raise OperatorError(
            f"{name}: loading the entry point {points[name].value} failed with {type(error).__name__}: {error}",
            code="operator.import_failed",
        ) from error


def _near(name: str, present: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(present), n=1)
    return f"; did you mean {near[0]}?" if near else ""
