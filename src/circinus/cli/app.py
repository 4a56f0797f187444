"""All verbs in the order a user meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from circinus import __version__
from circinus.cli.admit import admit
from circinus.cli.apply import apply
from circinus.cli.command import Command
from circinus.cli.destroy import destroy
from circinus.cli.events import events
from circinus.cli.explain import explain
from circinus.cli.init import init
from circinus.cli.load import load
from circinus.cli.plan import plan
from circinus.cli.profile import profile
from circinus.cli.render import render
from circinus.cli.schema import schema
from circinus.cli.serve import serve
from circinus.cli.simulate import simulate
from circinus.cli.status import status
from circinus.cli.validate import validate

app = typer.Typer(
    name="circinus",
    help="Chooses configuration, placement and allocation for all your ML pipelines together, so that the most "
    "SLOs hold at least cost; deploys what it chose and measures it.",
    no_args_is_help=True,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
for verb in (
    init,
    validate,
    profile,
    plan,
    admit,
    explain,
    simulate,
    apply,
    serve,
    events,
    load,
    status,
    destroy,
    schema,
):
    app.command(cls=Command)(verb)
app.add_typer(render, name="render")


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """The command itself."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
