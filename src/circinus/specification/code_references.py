"""References to operators, metrics and data sets that are Python objects rather than `module:attribute` texts.

Replicas and later processes import code by reference. An object of a module on disk has one already. An object that was
typed into a notebook or a prompt is pickled by value into a generated module, named by the hash of its source.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from circinus.errors import OperatorError

CODE_FOLDER = Path(".circinus") / "code"
"""Folder of the generated modules, below the current folder."""

_folders: dict[str, Path] = {}
"""Reference -> folder that must be on the module search path."""


def reference_to(target: Any) -> str:
    """Return the `module:attribute` reference of an object, and remember the folder where it is imported from.

    Raises:
        OperatorError: the object has no name, or it cannot be pickled.

    Example:
        >>> from circinus.specification.code_references import reference_to
        >>> import json
        >>> reference_to(json.dumps)
        'json:dumps'
    """
    definition = _definition(target)
    name = getattr(definition, "__qualname__", "")
    module = sys.modules.get(getattr(definition, "__module__", ""))
    if not name or "<" in name or module is None:
        raise OperatorError(
            f"{target!r} cannot be imported by another process: it is a lambda or a local object",
            code="operator.no_reference",
            hint="Define it at the top level of a module or notebook.",
        )
    path = getattr(module, "__file__", None)
    if path is None:
        return _exported(target, name)
    module_name, folder = _importable(module, Path(path))
    reference = f"{module_name}:{name}"
    _folders[reference] = folder
    return reference


def folders_of(references: Iterable[str]) -> tuple[Path, ...]:
    """Return the folders that references made by `reference_to` are imported from, without repetition."""
    return tuple(dict.fromkeys(_folders[reference] for reference in references if reference in _folders))


def source_of(target: Any) -> str | None:
    """Return the text of the notebook cell or prompt that defines an object, or None if it is not at hand."""
    codes = [target] if inspect.isfunction(target) else [m for m in vars(target).values() if inspect.isfunction(m)]
    texts = ["".join(linecache.getlines(inspect.unwrap(code).__code__.co_filename)) for code in codes]
    return "\n".join(dict.fromkeys(texts)) if any(texts) else None


def _definition(target: Any) -> Any:
    """Return the decorated class or function of an operator, or the object itself."""
    return getattr(target, "target", target)


def _importable(module: ModuleType, path: Path) -> tuple[str, Path]:
    """Return the name by which another process imports a module, and the folder of its top-level package."""
    if module.__name__ == "__main__":
        return path.stem, path.resolve().parent
    depth = module.__name__.count(".") + (1 if path.name == "__init__.py" else 0)
    return module.__name__, path.resolve().parents[depth]


def _exported(target: Any, name: str) -> str:
    import cloudpickle

    source = source_of(_definition(target))
    try:
        data = cloudpickle.dumps(target)
    except Exception as error:  # pickling raises whatever the object's parts raise
        raise OperatorError(
            f"{name} cannot be pickled: {type(error).__name__}: {error}", code="operator.not_picklable"
        ) from error
    digest = hashlib.sha256(f"{name}\n{source}".encode() if source else data).hexdigest()
    folder = CODE_FOLDER.absolute()
    module_name = f"circinus_code_{digest[:16]}"
    _write(
        folder / f"{module_name}.py",
        f'"""{name}, pickled by value."""\n\nimport pickle\n\n'
        f"target = pickle.loads(\n    {data!r}\n)\n"
        + (f'target.__circinus_version__ = "{digest}"\n' if _definition(target) is target else ""),
    )
    reference = f"{module_name}:target"
    _folders[reference] = folder
    return reference


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
