"""References to operators, metrics and data sets that are Python objects rather than `module:attribute` texts.

Replicas and later processes import code by reference. An object of a module on disk has one already. An object that was
typed into a notebook or a prompt is pickled by value into a generated module, named by the hash of its source.
"""

from __future__ import annotations

import hashlib
import inspect
import linecache
import sys
from collections.abc import Iterable
from pathlib import Path
from types import CellType, CodeType, ModuleType
from typing import Any

from circinus.errors import OperatorError
from circinus.specification.atomic_file import write_atomically

CODE_FOLDER = Path(".circinus") / "code"
"""Folder of the generated modules, below the current folder."""

_folders: dict[str, Path] = {}
"""Reference -> folder that must be on the module search path."""


def reference_to(target: Any) -> str:
    """Return the `module:attribute` reference of an object, and remember the folder where it is imported from.

    Raises:
        OperatorError: the object has no name, is built in, or cannot be pickled.

    Example:
        >>> from circinus.specification.code_references import reference_to
        >>> import json
        >>> reference_to(json.dumps)
        'json:dumps'
    """
    definition = _definition(target)
    if inspect.isbuiltin(definition):
        raise OperatorError(
            f"{target!r} is a built-in function",
            code="operator.built_in",
            hint="Wrap it in a function with the decorator `circinus.operator`.",
        )
    name = getattr(definition, "__qualname__", "")
    module = sys.modules.get(getattr(definition, "__module__", ""))
    if not name or "<" in name or module is None:
        raise OperatorError(
            f"{target!r} cannot be imported by another process: it is a lambda or a local object",
            code="operator.no_reference",
            hint="Define it at the top level of a module or notebook.",
        )
    path = _file(module)
    if path is None:
        return _exported(target, name)
    module_name, folder = _importable(module, path)
    reference = f"{module_name}:{name}"
    _folders[reference] = folder
    return reference


def folders_of(references: Iterable[str]) -> tuple[Path, ...]:
    """Return the folders that references made by `reference_to` are imported from, without repetition."""
    return tuple(dict.fromkeys(_folders[reference] for reference in references if reference in _folders))


def source_of(target: Any) -> str | None:
    """Return the text of the notebook cell that defines an object, or its bytecode if the text is not at hand.

    None if the object has neither.
    """
    if not inspect.isfunction(target) and not inspect.isclass(target):
        return None
    codes = [target] if inspect.isfunction(target) else [m for m in vars(target).values() if inspect.isfunction(m)]
    texts = ["".join(linecache.getlines(inspect.unwrap(code).__code__.co_filename)) for code in codes]
    return "\n".join(dict.fromkeys(texts)) if any(texts) else _bytecode(target, set())


_CONSTANTS = (bool, int, float, complex, str, bytes, type(None), type(...))
_UNSTABLE_MEMBERS = ("__dict__", "__weakref__", "__firstlineno__", "__circinus_operator__")


def _bytecode(value: Any, visited: set[int]) -> str:
    """Return a text of a function or class, equal in every process: bytecode, constants, and globals without a file."""
    if isinstance(value, _CONSTANTS):
        return repr(value)
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()}{value.co_names}{value.co_varnames}{_texts(value.co_consts, visited)}"
    name = getattr(value, "__qualname__", type(value).__qualname__)
    if id(value) in visited:
        return name
    nested = bool(visited)
    visited.add(id(value))
    if isinstance(value, dict):
        return _texts((part for pair in value.items() for part in pair), visited)
    if isinstance(value, list | tuple):
        return _texts(value, visited)
    if isinstance(value, set | frozenset):
        return str(sorted(_bytecode(part, visited) for part in value))
    value = _definition(value)
    for attribute in ("__func__", "fget"):  # of static and class methods, of properties
        value = getattr(value, attribute, value)
    if nested and _file(sys.modules.get(getattr(value, "__module__", ""))) is not None:
        return name
    if inspect.isfunction(value):
        used = [value.__globals__[n] for n in _global_names(value.__code__) if n in value.__globals__]
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, *used, *cells)
        return f"{name}{_texts(parts, visited)}"
    if inspect.isclass(value):
        members = [part for key, part in vars(value).items() if key not in _UNSTABLE_MEMBERS]
        return f"{name}{_texts((*value.__bases__, *members), visited)}"
    return name


def _texts(values: Iterable[Any], visited: set[int]) -> str:
    return f"({','.join([_bytecode(value, visited) for value in values])})"


def _global_names(code: CodeType) -> list[str]:
    nested = [part for part in code.co_consts if isinstance(part, CodeType)]
    return sorted({*code.co_names, *(name for part in nested for name in _global_names(part))})


def _definition(target: Any) -> Any:
    """Return the class or function of an operator that is an object of its own, or the object itself."""
    return target if inspect.isclass(target) else getattr(target, "target", target)


def _file(module: ModuleType | None) -> Path | None:
    """Return the file of a module, or None if it has none; that of `python -` is called `<stdin>`."""
    path = getattr(module, "__file__", None)
    return None if path is None or path.startswith("<") else Path(path)


def _importable(module: ModuleType, path: Path) -> tuple[str, Path]:
    """Return the name by which another process imports a module, and the folder of its top-level package."""
    name = module.__name__
    if name == "__main__":
        # `python -m pkg.tool` records the name pkg.tool in the spec; `python tool.py` has no spec.
        name = path.stem if module.__spec__ is None else module.__spec__.name
    depth = name.count(".") + (1 if path.name == "__init__.py" else 0)
    return name, path.resolve().parents[depth]


def _exported(target: Any, name: str) -> str:
    import cloudpickle

    definition = _definition(target)
    source = source_of(definition)
    try:
        data = cloudpickle.dumps(target)
    except Exception as error:  # pickling raises whatever the object's parts raise
        raise OperatorError(
            f"{name} cannot be pickled: {type(error).__name__}: {error}", code="operator.not_picklable"
        ) from error
    # The cell's text lacks what other cells define, such as a helper function; the bytecode contains it.
    text = f"{name}\n{source}\n{_bytecode(definition, set())}" if source else ""
    digest = hashlib.sha256(text.encode() or data).hexdigest()
    folder = CODE_FOLDER.absolute()
    module_name = f"circinus_code_{digest[:16]}"
    write_atomically(
        folder / f"{module_name}.py",
        f'"""{name}, pickled by value."""\n\nimport pickle\n\n'
        f"target = pickle.loads(\n    {data!r}\n)\n"
        + (f'target.__circinus_version__ = "{digest}"\n' if definition is target else ""),
    )
    reference = f"{module_name}:target"
    _folders[reference] = folder
    return reference
