"""Events of an engine's controller, as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator

from circinus.control.state_store import ControlStateStore, Event

_POLLING_S = 0.5


def select_events(store: ControlStateStore, last: int, kind: str | None, *, follow: bool) -> Iterator[Event]:
    """Yield the last events of a state store and, if they are followed, each later event once, without end.

    Args:
        store: state store of a controller.
        last: number of past events.
        kind: kind of the events to yield; None: all.
        follow: whether to wait for new events.
    """
    number = store.newest()  # read first, so that events added during the loop follow it
    for event in store.last(last, kind):
        number = max(number, event.number)
        yield event
    while follow:
        for event in store.events(number):
            number = event.number
            if kind in (None, event.kind):
                yield event
        time.sleep(_POLLING_S)
