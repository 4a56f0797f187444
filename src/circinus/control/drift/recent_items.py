"""Recent items of live traffic, for re-profiling."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from circinus.operators import Item
from circinus.profiling.measurement.pickling import unpickle_value
from circinus.specification import Configuration

MAX_ITEMS = 256
MAX_BYTES = 128 * 2**20
"""Limits per pipeline; the oldest items are dropped."""


@dataclass(frozen=True)
class AuditedItem:
    """Audited item."""

    pipeline: str
    key: str
    value: bytes | None
    """Pickled value; None in replay mode."""
    truth: Any
    """Ground truth, or the reference's output."""
    reference: Configuration | None
    """Configuration whose output replaced the ground truth; None for true ground truth."""
    time_s: float
    """Time of the audit; seconds since 1970."""

    @property
    def item(self) -> Item:
        """Item in the form that profiling takes."""
        return Item(self.key, None if self.value is None else unpickle_value(self.value), self.truth)


class RecentItems:
    """Most recent items of every pipeline, with distinct keys."""

    def __init__(self, *, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: dict[str, deque[AuditedItem]] = {}

    def copy(self) -> RecentItems:
        """Return a copy."""
        result = RecentItems(max_items=self._max_items, max_bytes=self._max_bytes)
        result._items = {pipeline: deque(items) for pipeline, items in self._items.items()}
        return result

    def add(self, items: Iterable[AuditedItem]) -> None:
        """Add items; an item replaces an earlier one with its key."""
        for item in items:
            recent = self._items.setdefault(item.pipeline, deque())
            retained = [other for other in recent if other.key != item.key]
            recent.clear()
            recent.extend((*retained, item))
            size = sum(len(other.value or b"") for other in recent)
            while len(recent) > self._max_items or (size > self._max_bytes and len(recent) > 1):
                size -= len(recent.popleft().value or b"")

    def since(self, pipeline: str, time_s: float) -> tuple[AuditedItem, ...]:
        """Return the items of a pipeline since `time_s`, oldest first."""
        return tuple(item for item in self._items.get(pipeline, ()) if item.time_s >= time_s)
