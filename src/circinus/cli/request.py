"""`circinus request`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.command import names_as_arguments
from circinus.cli.options import (
    DEFAULT_ADDRESS,
    DEFAULT_PLAN,
    DEFAULT_RUN_FOLDER,
    OUTPUT,
    Address,
    Json,
    Kind,
    RunDir,
    Trust,
    positive_duration_option,
    quantity,
)

_PANEL = "Request"


def request(
    query: Annotated[str, typer.Argument(help="Query of the applied plan.")],
    file: Annotated[
        str, typer.Argument(help="File with the input; `-` is standard input.", show_default="an item of the data set")
    ] = "",
    item: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help="Key of the item to send.",
            show_default="the first held-out item",
            rich_help_panel=_PANEL,
        ),
    ] = "",
    plan: Annotated[Path, typer.Option(help="Plan file that was applied.", rich_help_panel=_PANEL)] = DEFAULT_PLAN,
    timeout: Annotated[
        float, quantity(positive_duration_option, "Time to wait for the answer.", "1min", _PANEL)
    ] = 60.0,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    trust: Trust = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write the output to.", rich_help_panel=OUTPUT),
    ] = None,
    json: Json = False,
) -> None:
    """Send one request to the applied plan, and print its output.

    A file is text, bytes or JSON, as the items of the query's data set are.
    """
    from circinus.api.workspace import Workspace
    from circinus.cli.output import elapsed_time, print_json

    if file and item:
        raise typer.BadParameter("found a file and --item, expected one of them")
    workspace, applied = Workspace.open_plan(plan, engine=engine, run_dir=run_dir, address=address, trust=trust)
    data = None
    if file:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    with names_as_arguments(), elapsed_time("waiting for the answer"):
        report = workspace.attach(applied).request(query, data, item=item, timeout=timeout)
    if output is not None:
        output.write_bytes(report.output_bytes())
    if json:
        print_json("request", report.to_dict())
        return
    if output is None:
        _print(report.output_bytes(), is_text=not isinstance(report.response.output, bytes | bytearray))
    typer.echo(report.times, err=True)


def _print(output: bytes, *, is_text: bool) -> None:
    if is_text:
        typer.echo(output.decode())
    elif sys.stdout.isatty():
        typer.echo(f"{len(output)} bytes; write them with --output FILE")
    else:
        sys.stdout.buffer.write(output)
