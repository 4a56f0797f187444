"""The identity of user code: a hash of the file that defines it."""

from __future__ import annotations

import functools
import hashlib
import inspect
from typing import Any

from circinus.errors import OperatorError
from circinus.operators.protocol import OperatorFactory


def source_version(target: Any) -> str:
    """SHA-256 of the file that defines a class or function (for a callable object: that of its class).

    What was measured of one version is not believed of another. Files that the defining one imports are not
    covered: `@operator(version=...)` is for code that lies elsewhere.

    Raises:
        OperatorError: there is no such file, as for what was typed at a prompt.
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

        typed = source_of(target) if inspect.isroutine(target) or inspect.isclass(target) else None
        if typed is not None:
            return hashlib.sha256(f"{target.__qualname__}\n{typed}".encode()).hexdigest()
        raise OperatorError(
            f"{target!r}: found no source file to tell its version by ({error}); "
            "define it in a module, or declare its version with @operator(version=...)",
            code="operator.no_source",
        ) from error


def version_of(target: Any) -> str:
    """The version of what a `uses` reference leads to: declared by an operator, else that of the source.

    Raises:
        OperatorError: as `source_version`.
    """
    return target.version if isinstance(target, OperatorFactory) else source_version(target)
