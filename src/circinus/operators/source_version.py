"""Version of user code: a hash of its source file."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
from pathlib import Path
from typing import Any

from circinus.errors import OperatorError
from circinus.operators.protocol import operator_of

MAX_FILE_BYTES = 64 * 2**20
"""Maximum size of a file that `file_version` reads."""


def source_version(target: Any) -> str:
    """Return the SHA-256 of the file that defines a class or function, or the class of another callable.

    Code of a notebook cell is hashed by its cell, and code without any text, as of `python -`, by its bytecode.
    Measurements of one version do not apply to another. The hash does not cover imported files: use
    `@operator(version=...)` for code that lies elsewhere.

    Raises:
        OperatorError: the source is unavailable.
    """
    target = _definition(target)
    exported = getattr(target, "__circinus_version__", None)
    if exported is not None:
        return str(exported)
    try:
        with open(_source_file(target), "rb") as source:
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


def versioned_file(target: Any, version: str) -> Path | None:
    """Return the source file whose hash is the version of a resolved object, so that it can be compared unimported.

    None if the version is declared, is that of a notebook cell or a file above `MAX_FILE_BYTES`, or is another one.
    """
    factory = operator_of(target)
    try:
        path = Path(_source_file(_definition(target if factory is None else factory.target)))
        return path if file_version(path) == version else None
    except (TypeError, OSError):
        return None


def file_version(path: Path) -> str:
    """Return the SHA-256 of a regular file; devices and pipes are not opened, and nothing is imported.

    Raises:
        OSError: the file is missing, not regular, larger than `MAX_FILE_BYTES`, or cannot be read.
    """
    from circinus.specification.source_files import read_regular

    return hashlib.sha256(read_regular(path, MAX_FILE_BYTES)).hexdigest()


def file_state(path: Path | str) -> tuple[int, int]:
    """Return (modification time in ns, size) of a file; zeros if it is missing, as while it is being replaced."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


def _definition(target: Any) -> Any:
    """Return the class or function that defines a callable."""
    while isinstance(target, functools.partial):
        target = target.func
    target = inspect.unwrap(target)
    is_instance = callable(target) and not inspect.isroutine(target) and not inspect.isclass(target)
    return type(target) if is_instance and not hasattr(target, "__circinus_version__") else target


def _source_file(definition: Any) -> str:
    return inspect.getsourcefile(definition) or inspect.getfile(definition)
