"""Finding model files inside installed packages, and checking them before they are used.

The weights come from small packages, so the SHA-256 of each file is compared once in a process (0.1 s for 145 MB). A
model that is split over two packages is joined once into the user's cache, at once or not at all.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
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
    """Distributions that bring it."""
    version: str
    files: tuple[ModelFile, ...]
    """Where `joined` is set, the files whose name holds `.part` are its parts, in order."""
    joined: ModelFile | None = None


@cache
def model_folder(model: Model) -> Path:
    """The folder with the files of `model`, all of them checked.

    Raises:
        OperatorError: a package is missing, or a file is not what it should be.
    """
    paths = [locate(model, file) for file in model.files]
    if model.joined is not None:
        return _joined_folder(model, model.joined, paths)
    for file, path in zip(model.files, paths, strict=True):
        check(model, file, path)
    return paths[0].parent


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


def _joined_folder(model: Model, joined: ModelFile, paths: list[Path]) -> Path:
    cache_root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "circinus" / "models"
    folder = cache_root / f"{model.name}-{joined.sha256[:12]}"
    if not folder.exists():
        _join(model, joined, paths, folder)
    check(model, joined, folder / joined.name)
    for file, path in zip(model.files, paths, strict=True):
        if ".part" not in file.name:
            check(model, file, folder / path.name)
    return folder


def _join(model: Model, joined: ModelFile, paths: list[Path], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        with (unfinished / joined.name).open("wb") as whole:
            for file, path in zip(model.files, paths, strict=True):
                if ".part" in file.name:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, whole, 1 << 20)
                else:
                    shutil.copyfile(path, unfinished / path.name)
        check(model, joined, unfinished / joined.name)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
