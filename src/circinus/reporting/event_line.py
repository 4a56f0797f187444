"""What a controller did, a line each."""

from __future__ import annotations

from datetime import datetime

from circinus.control.records import Event


def event_line(event: Event, *, would: bool = False, dated: bool = False) -> str:
    """`14:03:05 step archive from rung 0 to 1: overloaded: ...`, in local time.

    Args:
        event: what happened.
        would: whether it only would have.
        dated: whether the day is told.
    """
    moment = datetime.fromtimestamp(event.time_s).strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")
    details = event.details
    change = f" from rung {details['from']} to {details['to']}" if "from" in details and "to" in details else ""
    return f"{moment} {'would ' if would else ''}{event.kind} {event.subject}{change}: {event.reason}"
