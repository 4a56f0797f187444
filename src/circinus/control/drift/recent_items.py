"""Items that came lately, for measuring again on what is sent now."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from circinus.operators import Item
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.specification import Configuration

MOST_ITEMS = 256
MOST_BYTES = 128 * 2**20
"""Of one pipeline; beyond, the oldest are forgotten."""


@dataclass(frozen=True)
class AuditedItem:
    """One audited item."""

    pipeline: str
    key: str
    value: bytes | None
    """Packed; None in a replay."""
    truth: Any
    """Or what stood for it."""
    against: Configuration | None
    """Whose answer stood for it; None: it was the truth."""
    time_s: float
    """When it was audited; seconds since 1970."""

    @property
    def item(self) -> Item:
        """As profiling takes it."""
        return Item(self.key, None if self.value is None else unpickle_value(self.value), self.truth)


class RecentItems:
    """The last items of every pipeline, each key once."""

    def __init__(self, *, most_items: int = MOST_ITEMS, most_bytes: int = MOST_BYTES) -> None:
        """Nothing came yet."""
        self._most_items, self._most_bytes = most_items, most_bytes
        self._items: dict[str, deque[AuditedItem]] = {}

    def copy(self) -> RecentItems:
        """As they are now."""
        found = RecentItems(most_items=self._most_items, most_bytes=self._most_bytes)
        found._items = {pipeline: deque(items) for pipeline, items in self._items.items()}
        return found

    def add(self, items: Iterable[AuditedItem]) -> None:
        """More came."""
        for item in items:
            known = self._items.setdefault(item.pipeline, deque())
            kept = [one for one in known if one.key != item.key]
            known.clear()
            known.extend((*kept, item))
            size = sum(len(one.value or b"") for one in known)
            while len(known) > self._most_items or (size > self._most_bytes and len(known) > 1):
                size -= len(known.popleft().value or b"")

    def since(self, pipeline: str, time_s: float) -> tuple[AuditedItem, ...]:
        """Those of a pipeline that came at a time or later, oldest first."""
        return tuple(item for item in self._items.get(pipeline, ()) if item.time_s >= time_s)
