"""`circinus events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circinus.cli.options import Json, Records, RunDir
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    from circinus.control.records import Event

_PAUSE_S = 0.5
EventKind = Literal["began", "step", "replan", "applied", "rollback", "drift", "failed"]
"""`circinus.control.records.KINDS`, which loads later."""


def events(
    last: Annotated[int, typer.Option("--last", min=0, help="How many of those that were are shown.")] = 20,
    kind: Annotated[EventKind | None, typer.Option(help="Only those of one kind.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until interrupted.")] = False,
    records: Records = None,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Say what circinus serve did, and why: a line for each event, or a JSON document with --json."""
    import time
    from contextlib import closing

    from circinus.cli.options import records_file
    from circinus.control.records import ControlRecords

    with closing(ControlRecords.existing(records_file(records, run_dir))) as kept:
        number = 0
        for event in kept.last(last, kind):
            _say(event, json)
            number = event.number
        number = max(number, kept.newest())
        while follow:
            for event in kept.events(number):
                number = event.number
                if kind in (None, event.kind):
                    _say(event, json)
            time.sleep(_PAUSE_S)


def _say(event: Event, json: bool) -> None:
    from dataclasses import asdict
    from json import dumps

    from circinus.reporting.event_line import event_line

    typer.echo(dumps(asdict(event)) if json else event_line(event, dated=True))
