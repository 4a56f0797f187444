"""Finding model files inside installed packages, and checking them before they are used.

The SHA-256 of each file is compared once in a process.
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
    """One file and what it must hash to."""

    name: str
    """Path that begins with the module in whose folder the file lies."""
    sha256: str


@dataclass(frozen=True)
class Model:
    """A model with the files it needs."""

    name: str
    description: str
    licence: str
    origin: str
    """Who made the weights."""
    package: str
    """Distribution that brings it."""
    version: str
    files: tuple[ModelFile, ...]


@cache
def model_path(model: Model) -> Path:
    """The one file of `model`, checked.

    Raises:
        OperatorError: the package is missing, or the file is not what it should be.
    """
    (file,) = model.files
    path = locate(model, file)
    check(model, file, path)
    return path


def locate(model: Model, file: ModelFile) -> Path:
    """Where an installed package keeps `file`.

    Raises:
        OperatorError: the package is not installed, or lacks the file.
    """
    module, _, rest = file.name.partition("/")
    spec = importlib.util.find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / rest if folders else None
    if path is None or not path.is_file():
        raise OperatorError(
            f"model {model.name}: found no file {file.name} in the installed packages, expected it in {model.package} "
            f"{model.version}; install the extra `examples`"
        )
    return path


def check(model: Model, file: ModelFile, path: Path) -> None:
    """Compare the hash of the file at `path`.

    Raises:
        OperatorError: it is another file than the one this example was written for.
    """
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != file.sha256:
        raise OperatorError(
            f"model {model.name}: {path} has SHA-256 {found}, expected {file.sha256}; "
            f"reinstall {model.package} {model.version}"
        )
