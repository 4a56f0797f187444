"""Model files inside installed packages, verified before use.

The weights come from packages of small publishers, so the SHA-256 of each file is verified once per process (0.1 s for
145 MB). A model that is split over two packages is joined once, atomically, into the user's cache.
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
    """Distributions that contain the files."""
    version: str
    files: tuple[ModelFile, ...]
    """Files of the model. If `joined` is set, files with `.part` in their name are its parts, in order."""
    joined: ModelFile | None = None


@cache
def model_folder(model: Model) -> Path:
    """Return the folder with the verified files of `model`.

    Raises:
        OperatorError: a package is missing, or a file has another hash.
    """
    paths = [locate(model, file) for file in model.files]
    if model.joined is not None:
        return _joined_folder(model, model.joined, paths)
    for file, path in zip(model.files, paths, strict=True):
        check(model, file, path)
    return paths[0].parent


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
        with (unfinished / joined.name).open("wb") as target:
            for file, path in zip(model.files, paths, strict=True):
                if ".part" in file.name:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, target, 1 << 20)
                else:
                    shutil.copyfile(path, unfinished / path.name)
        check(model, joined, unfinished / joined.name)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process has just created it
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
