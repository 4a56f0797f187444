"""Model files inside installed packages, verified before use.

The SHA-256 of each file is verified once per process.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from circinus.errors import OperatorError


@dataclass(frozen=True)
class ModelFile:
    """Model file with its expected hash."""

    name: str
    """Path of the file, beginning with the installed module that contains it."""
    sha256: str


@dataclass(frozen=True)
class Model:
    """Model with its files."""

    name: str
    description: str
    licence: str
    origin: str
    """Authors of the weights."""
    package: str
    """Distribution that contains the files."""
    version: str
    files: tuple[ModelFile, ...]


@cache
def model_path(model: Model) -> Path:
    """Return the verified path of the only file of `model`.

    Raises:
        OperatorError: the package is missing, or the file has another hash.
    """
    (file,) = model.files
    path = locate(model, file)
    check(model, file, path)
    return path


def locate(model: Model, file: ModelFile) -> Path:
    """Return the path of `file` in its installed package.

    Raises:
        OperatorError: the package is not installed, or lacks the file.
    """
    module, _, relative_path = file.name.partition("/")
    spec = importlib.util.find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / relative_path if folders else None
    if path is None or not path.is_file():
        raise OperatorError(
            f"file {file.name} of package {model.package} {model.version} is not installed",
            location=f"model {model.name}",
            hint="Install the extra `examples`.",
        )
    return path


def check(model: Model, file: ModelFile, path: Path) -> None:
    """Verify the SHA-256 of the file at `path`.

    Raises:
        OperatorError: the hash differs from the expected one.
    """
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        raise OperatorError(
            f"{path} has SHA-256 {digest}, expected {file.sha256}",
            location=f"model {model.name}",
            hint=f"Reinstall {model.package} {model.version}.",
        )
