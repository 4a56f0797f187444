"""Parts of split routes without a replica, whose requests take the other parts."""

from __future__ import annotations

from circinus.control.state_store import Event, EventKind
from circinus.serving import EngineStatus
from circinus.specification.formatting import format_share


class LostParts:
    """Parts that had no replica when their query was last reported."""

    def __init__(self) -> None:
        self._lost = frozenset[tuple[str, int, float]]()

    def poll(self, status: EngineStatus, time_s: float) -> list[Event]:
        """Return an event for each part that lost its last replica, or has one again."""
        parts = {
            (split.query, number, part.share): part
            for split in status.splits
            for number, part in enumerate(split.parts, start=1)
        }
        reported = {split.query for split in status.splits}  # others may be of a router that does not respond
        before, now = self._lost, {key for key, part in parts.items() if not part.available}
        self._lost = frozenset(now.union(key for key in before if key[0] not in reported))
        events = []
        for key in sorted(now ^ (before & parts.keys())):
            (query, number, _), part = key, parts[key]
            reason = (
                "has replicas again, and its requests"
                if part.available
                else "has no replica: its requests take the others"
            )
            details = {"part": number, "share": part.share, "available": part.available}
            events.append(
                Event(time_s, EventKind.REROUTE, query, f"part {number} ({format_share(part.share)}) {reason}", details)
            )
        return events
