"""`circinus init`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import Json
from circinus.cli.output import print_json
from circinus.errors import CircinusError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def init(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; created if missing.")] = Path(),
    json: Json = False,
) -> None:
    """Write a small working application: a pipeline, operators, infrastructure and queries."""
    contents = dict(_contents(files("circinus.cli") / "starter", Path()))
    present = [str(folder / path) for path in contents if (folder / path).exists()]
    if present:
        raise CircinusError(
            f"nothing was written, because files exist already: {', '.join(present)}",
            code="init.files_present",
            hint="Name another folder.",
        )
    _write_all({folder / path: content for path, content in contents.items()})
    if json:
        print_json("init", {"files": sorted(folder / path for path in contents)})
        return
    for path in sorted(contents):
        typer.echo(f"wrote {folder / path}")
    prefix = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    steps = "validate", "profile", "plan", "explain plan.json", "apply --mode replay"
    typer.echo(f"next: {prefix}{' && '.join(f'circinus {step}' for step in steps)}")


def _write_all(contents: Mapping[Path, str]) -> None:
    """Write all files or none: a failure removes what was written before it, and no file is overwritten."""
    with ExitStack() as undo:  # in the opposite order: files before their folders
        for path, content in contents.items():
            for parent in reversed(path.parents):
                if not parent.is_dir():
                    parent.mkdir()
                    undo.callback(parent.rmdir)
            with path.open("x", encoding="utf-8") as file:
                undo.callback(path.unlink)
                file.write(content)
        undo.pop_all()


def _contents(folder: Traversable, below: Path) -> list[tuple[Path, str]]:
    contents = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            contents += _contents(entry, below / entry.name)
        elif entry.is_file() and not entry.name.endswith(".pyc"):
            contents.append((below / entry.name, entry.read_text(encoding="utf-8")))
    return contents
