"""`circinus events`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from circinus.cli.options import Json, Records, RunDir
from circinus.serving.local import DEFAULT_RUN_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from circinus.control.state_store import ControlStateStore, Event

_PAUSE_S = 0.5
EventKind = Literal["began", "step", "replan", "applied", "rollback", "drift", "unwatched", "failed"]
"""`circinus.control.state_store.KINDS`, which loads later."""


def events(
    last: Annotated[int, typer.Option("--last", min=0, help="How many of those that were are shown.")] = 20,
    kind: Annotated[EventKind | None, typer.Option(help="Only those of one kind.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until interrupted.")] = False,
    state_file: Records = None,
    run_dir: RunDir = DEFAULT_RUN_FOLDER,
    json: Json = False,
) -> None:
    """Say what circinus serve did, and why: a line for each event, or a JSON document with --json."""
    from contextlib import closing

    from circinus.api.engine_options import state_file_of
    from circinus.control.state_store import ControlStateStore

    with closing(ControlStateStore.open_existing(state_file_of(state_file, run_dir))) as kept:
        for event in select_events(kept, last, kind, follow=follow):
            _say(event, json)


def select_events(records: ControlStateStore, last: int, kind: str | None, *, follow: bool) -> Iterator[Event]:
    """The last events, and where they are followed, all that come after: each once, without end.

    Args:
        records: of a controller.
        last: how many of those that were.
        kind: only one; None: all.
        follow: whether to go on.
    """
    import time

    number = records.newest()  # first: what comes while the last ones are told is none of them, and follows
    for event in records.last(last, kind):
        number = max(number, event.number)
        yield event
    while follow:
        for event in records.events(number):
            number = event.number
            if kind in (None, event.kind):
                yield event
        time.sleep(_PAUSE_S)


def _say(event: Event, json: bool) -> None:
    from dataclasses import asdict
    from json import dumps

    from circinus.reporting.control_table import event_line

    typer.echo(dumps(asdict(event)) if json else event_line(event, dated=True))
