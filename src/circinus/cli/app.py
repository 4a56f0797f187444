"""The application `circinus`."""

from __future__ import annotations

from typing import Annotated

import typer

from circinus import __version__
from circinus.cli.verb_group import VerbGroup

app = typer.Typer(
    name="circinus",
    cls=VerbGroup,
    help="Choose configuration, placement and allocation for all ML pipelines together, so that the most SLOs hold at "
    "the lowest cost; deploy the plan and measure it.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Print the version."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
