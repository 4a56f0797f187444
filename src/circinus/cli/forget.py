"""`circinus forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from circinus.cli.options import Json, Paths, Store

_PANEL = "Observations"


def forget(
    paths: Paths = [Path()],  # noqa: B006  (typer shows this default)
    pipeline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take back those of this pipeline.", rich_help_panel=_PANEL)
    ] = None,
    operator: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take back those of this operator.", rich_help_panel=_PANEL)
    ] = None,
    hardware_class: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take back those on this hardware class.", rich_help_panel=_PANEL)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Take back all.", rich_help_panel=_PANEL)] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the selected ones, and take none back.", rich_help_panel=_PANEL)
    ] = False,
    imported: Annotated[
        bool,
        typer.Option("--imported", help="Those of `profile --import` instead of learnt ones.", rich_help_panel=_PANEL),
    ] = False,
    store: Store = None,
    json: Json = False,
) -> None:
    """List the service times learnt from traffic or imported, or take them back.

    Plans that are made afterwards do not use what was taken back. Several options select what all of them
    name.
    """
    from circinus.api.profile_summary import imported_row
    from circinus.api.workspace import Workspace
    from circinus.cli.output import console, print_json
    from circinus.reporting.profile_table import imported_table

    workspace = Workspace(paths, store=store)
    selection = {"pipeline": pipeline, "operator": operator, "hardware_class": hardware_class}
    lists = dry_run or not (everything or any(selection.values()))
    if imported:
        times = workspace.imported(**selection) if lists else workspace.forget_imported(**selection)
        if json:
            print_json("forget", {"taken_back": not lists, "imported": [imported_row(time) for time in times]})
            return
        console().print(imported_table(times) if times else "no imported times")
        _print_hint(lists=lists, is_empty=not times)
        return
    learnt = workspace.learnt(**selection) if lists else workspace.forget(**selection, everything=everything)
    if json:
        print_json("forget", {"taken_back": not lists, **learnt.to_dict()})
        return
    learnt.print(console())
    _print_hint(lists=lists, is_empty=not learnt.observations)


def _print_hint(*, lists: bool, is_empty: bool) -> None:
    from circinus.cli.output import console

    text = "taken back: `circinus plan` plans without them"
    if lists:
        text = "take back with --all, --pipeline, --operator or --hardware-class"
    if not is_empty:
        console().print(text, style="dim", markup=False, highlight=False)
