"""Version of user code: a hash of its source file."""

from __future__ import annotations

import functools
import hashlib
import inspect
from typing import Any

from circinus.errors import OperatorError
from circinus.operators.protocol import operator_of


def source_version(target: Any) -> str:
    """Return the SHA-256 of the file that defines a class or function, or the class of another callable.

    Code of a notebook cell is hashed by its cell, and code without any text, as of `python -`, by its bytecode.
    Measurements of one version do not apply to another. The hash does not cover imported files: use
    `@operator(version=...)` for code that lies elsewhere.

    Raises:
        OperatorError: the source is unavailable.
    """
    while isinstance(target, functools.partial):
        target = target.func
    target = inspect.unwrap(target)
    exported = getattr(target, "__circinus_version__", None)
    if exported is not None:
        return str(exported)
    if callable(target) and not inspect.isroutine(target) and not inspect.isclass(target):
        target = type(target)
    try:
        path = inspect.getsourcefile(target) or inspect.getfile(target)
        with open(path, "rb") as source:
            return hashlib.sha256(source.read()).hexdigest()
    except (TypeError, OSError) as error:
        from circinus.specification.code_references import source_of

        cell_source = source_of(target) if inspect.isroutine(target) or inspect.isclass(target) else None
        if cell_source is not None:
            return hashlib.sha256(f"{target.__qualname__}\n{cell_source}".encode()).hexdigest()
        raise OperatorError(
            f"the version cannot be derived from the source: {error}",
            code="operator.no_source",
            location=repr(target),
            hint="Define it in a module, or declare its version with `@operator(version=...)`.",
        ) from None


def version_of(target: Any) -> str:
    """Return the version of a resolved object: that of an operator, or the hash of the source.

    Raises:
        OperatorError: the source is unavailable.
    """
    factory = operator_of(target)
    return source_version(target) if factory is None else factory.version
