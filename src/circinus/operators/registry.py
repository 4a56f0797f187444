"""Resolution of references to operators, metrics and data sets: `module:attribute` or entry point."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from circinus.errors import OperatorError
from circinus.operators.process_output import stdout_to_stderr
from circinus.operators.protocol import OperatorFactory, operator_of

ENTRY_POINT_GROUP = "circinus.operators"

_importing: ContextVar[str] = ContextVar("_importing", default="")
"""Module of operators that is being imported; empty if there is none."""


class NotGuardedError(OperatorError):
    """Module that calls the workspace while its operators are imported: no operator of it can be loaded."""


def resolve(reference: str, module_paths: Sequence[Path] = ()) -> Any:
    """Import the object that `reference` names.

    Args:
        reference: `module:attribute`, or the name of an entry point of the group `circinus.operators`.
        module_paths: folders to search before `sys.path`. They stay on `sys.path`, so that operators can import
            neighbouring modules later.

    Raises:
        OperatorError: the object does not exist, its import fails, or another folder's module with an equal name is
            already imported. The hint is a similar name, if there is one.
    """
    search_first(module_paths)
    if ":" not in reference:
        return _resolve_entry_point(reference)
    module_name, _, attribute = reference.partition(":")
    if not module_name or not attribute:
        problem = "the reference lacks a module or an attribute"
        raise _fault(reference, problem, code="operator.malformed_reference", hint="Write `module:attribute`.")
    resolved: Any = _import(module_name, reference, module_paths)
    for part in attribute.split("."):
        if not hasattr(resolved, part):
            hint = _similar_name_hint(part, dir(resolved))
            raise _fault(reference, f"{module_name} has no attribute {part}", code="operator.no_attribute", hint=hint)
        resolved = getattr(resolved, part)
    return resolved


def search_first(module_paths: Sequence[Path]) -> None:
    """Add folders to the beginning of `sys.path`, unless it has them."""
    for path in reversed(module_paths):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))


def refuse_during_import() -> None:
    """Refuse to work for a module while its operators are imported: the work would import the module again.

    Raises:
        NotGuardedError: a module that `resolve` imports calls the workspace at its top level.
    """
    if module_name := _importing.get():
        raise NotGuardedError(
            f"importing the operators of {module_name} runs its calls of the workspace again",
            code="script.not_guarded",
            location=f"module {module_name}",
            hint='Put the calls under `if __name__ == "__main__":`.',
        )


def resolve_operator(reference: str, module_paths: Sequence[Path] = ()) -> OperatorFactory:
    """Import the operator that `reference` names; see `resolve`.

    Raises:
        OperatorError: `resolve` fails, or the object is not decorated with `@operator`.
    """
    resolved = resolve(reference, module_paths)
    factory = operator_of(resolved)
    if factory is None:
        raise not_decorated(type(resolved).__name__, reference)
    return factory


def not_decorated(type_name: str, reference: str) -> OperatorError:
    """Return the error of an object that is no operator."""
    problem = f"an object of type {type_name} is no operator"
    return _fault(reference, problem, code="operator.not_decorated", hint="Decorate it with `@operator`.")


def _import(module_name: str, reference: str, module_paths: Sequence[Path]) -> ModuleType:
    _refuse_namesake(module_name.partition(".")[0], reference, module_paths)
    importlib.invalidate_caches()  # the file may be newer than the cached listing of its folder
    failed = f"importing {module_name} failed"
    importing = _importing.set(module_name)
    try:
        with stdout_to_stderr():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            problem = f"{failed}: the module {error.name} is not installed"
            hint = f"Install {error.name}."
            raise _fault(reference, problem, code="operator.missing_dependency", hint=hint) from error
        folders = ", ".join(str(path) for path in module_paths) or "the module search path"
        files = [p.stem for path in module_paths if path.is_dir() for p in path.iterdir()]
        problem = f"there is no module {error.name} in {folders}"
        hint = _similar_name_hint(error.name, files)
        raise _fault(reference, problem, code="operator.no_module", hint=hint) from error
    except NotGuardedError:
        raise
    except (Exception, SystemExit) as error:  # any error of the user's module
        problem = f"{failed} with {type(error).__name__}: {error}"
        raise _fault(reference, problem, code="operator.import_failed") from error
    finally:
        _importing.reset(importing)


def _refuse_namesake(package: str, reference: str, module_paths: Sequence[Path]) -> None:
    """Refuse a module of another folder, as Python would silently return the imported module with its name."""
    loaded = getattr(sys.modules.get(package), "__file__", None)
    if loaded is None:
        return
    for folder in module_paths:
        for candidate in (folder / package / "__init__.py", folder / f"{package}.py"):
            if candidate.is_file():
                if not candidate.samefile(loaded):
                    problem = f"{package} was already imported from {loaded}, but {candidate} has the same name"
                    raise _fault(reference, problem, code="operator.duplicate_module", hint="Rename one of them.")
                return


def _resolve_entry_point(name: str) -> Any:
    from importlib.metadata import entry_points  # slow to import and rarely used

    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        problem = f"the reference is neither `module:attribute` nor an entry point of the group {ENTRY_POINT_GROUP}"
        raise _fault(name, problem, code="operator.unknown_entry_point", hint=_similar_name_hint(name, points))
    try:
        with stdout_to_stderr():
            return points[name].load()
    except (Exception, SystemExit) as error:  # any error of the imported package
        problem = f"loading the entry point {points[name].value} failed with {type(error).__name__}: {error}"
        raise _fault(name, problem, code="operator.import_failed") from error


def _fault(reference: str, problem: str, *, code: str, hint: str = "") -> OperatorError:
    return OperatorError(problem, code=code, location=reference, hint=hint)


def _similar_name_hint(name: str, candidates: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(candidates), n=1)
    return f"Did you mean {matches[0]}?" if matches else ""
