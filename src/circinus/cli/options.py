"""Arguments and options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Paths = Annotated[list[Path], typer.Argument(help="YAML files, or folders of them.", show_default="the current folder")]
PlanFile = Annotated[Path, typer.Argument(help="A plan file, as `circinus plan` writes it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Store = Annotated[
    Path | None,
    typer.Option("--store", help="Profile store.", show_default=".circinus/profiles.sqlite beside the first file"),
]
RunDir = Annotated[Path, typer.Option("--run-dir", help="Folder of the running engine.", envvar="CIRCINUS_RUN_DIR")]
DEFAULT_PLAN = Path("plan.json")


def duration_option(text: str) -> float:
    """Seconds, from `90s`, `2min` or a plain number of seconds."""
    from circinus.spec.units import DURATION

    try:
        return float(text)
    except ValueError:
        try:
            return DURATION.parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


def price_option(text: str) -> float:
    """US dollars per hour, from `$0.01/h`, `$10/month` or a plain number of dollars per hour."""
    from circinus.spec.units import PRICE_PER_H

    try:
        return float(text)
    except ValueError:
        try:
            return PRICE_PER_H.parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error


def store_path(chosen: Path | None, paths: list[Path]) -> Path:
    """The profile store: the chosen one, or `.circinus/profiles.sqlite` beside the first specification file."""
    if chosen is not None:
        return chosen
    first = paths[0] if paths else Path()
    return (first if first.is_dir() else first.parent) / ".circinus" / "profiles.sqlite"
