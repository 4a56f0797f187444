"""`circinus events`."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import typer

from circinus.cli.options import DEFAULT_ADDRESS, DEFAULT_RUN_FOLDER, Address, Json, Kind, RunDir, StateFile

_PANEL = "Events"
EventKind = Literal["began", "step", "replan", "applied", "rollback", "drift", "unwatched", "reroute", "failed"]
"""Values of `circinus.control.state_store.EventKind` that are stored; that module is imported later."""


def events(
    last: Annotated[
        int, typer.Option("--last", min=0, help="Number of past events to print.", rich_help_panel=_PANEL)
    ] = 20,
    kind: Annotated[
        EventKind | None,
        typer.Option(
            metavar="KIND", help=f"Only events of this kind: {', '.join(get_args(EventKind))}.", rich_help_panel=_PANEL
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Print new events until interrupted.", rich_help_panel=_PANEL),
    ] = False,
    engine: Kind = "local",
    address: Address = DEFAULT_ADDRESS,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    state_file: StateFile = None,
    json: Json = False,
) -> None:
    """Print the controller's events and their reasons, one per line.

    With --json each line is a JSON document.
    """
    from dataclasses import asdict

    from circinus.api.engine_handle import EngineHandle
    from circinus.cli.output import print_json
    from circinus.reporting.control_table import event_line

    handle = EngineHandle.of(engine, run_dir, address)
    for event in handle.events(last=last, kind=kind, follow=follow, state_file=state_file):
        if json:
            print_json("event", asdict(event), indent=None)
        else:
            typer.echo(event_line(event, dated=True))
