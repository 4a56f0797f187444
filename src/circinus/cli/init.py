"""`circinus init`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circinus.cli.options import Json

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if missing.")] = Path(),
    json: Json = False,
) -> None:
    """Write a small working application to begin from: a pipeline, operators, infrastructure and queries."""
    from circinus.cli.output import print_json
    from circinus.errors import CircinusError

    contents = dict(_contents(files("circinus.cli") / "starter", Path()))
    present = [str(folder / path) for path in contents if (folder / path).exists()]
    if present:
        raise CircinusError(
            f"found {', '.join(present)} already there, expected a folder without them; nothing was written: "
            "name another folder",
            code="init.files_present",
        )
    _write_all({folder / path: content for path, content in contents.items()})
    if json:
        print_json("init", {"files": sorted(folder / path for path in contents)})
        return
    for path in sorted(contents):
        typer.echo(f"wrote {folder / path}")
    where = "" if folder == Path() else f"cd {folder} && "
    steps = "validate", "profile", "plan", "explain plan.json", "apply --mode replay"
    typer.echo(f"next: {where}{' && '.join(f'circinus {step}' for step in steps)}")


def _write_all(contents: Mapping[Path, str]) -> None:
    """Write all files or none: what a failure finds half done is removed, and nothing is ever overwritten."""
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
    found = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found += _contents(entry, below / entry.name)
        elif entry.is_file() and not entry.name.endswith(".pyc"):
            found.append((below / entry.name, entry.read_text(encoding="utf-8")))
    return found
