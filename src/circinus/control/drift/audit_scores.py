"""Audited answers with their scores and items, and the expected agreement of configurations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circinus.arrays import FloatArray
from circinus.operators import Item
from circinus.operators.pickling import unpickle_value
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Configuration, MetricSpec

Agreements = Mapping[tuple[str, Configuration, Configuration], FloatArray]
"""(pipeline, configuration, reference) -> (n,) scores of the configuration's recorded outputs, with the reference's
outputs as ground truth."""

MAX_ITEMS = 256
MAX_BYTES = 128 * 2**20
"""Limits per pipeline; the oldest items are dropped."""


@dataclass(frozen=True)
class AuditScore:
    """Score of one audited answer, and its item."""

    query: str
    pipeline: str
    item_key: str
    configuration: str
    """Label of the configuration that answered."""
    score: float
    """Value of the pipeline's metric."""
    reference: Configuration | None
    """Configuration whose output replaced the ground truth; None for true ground truth."""
    time_s: float
    """Time of scoring; seconds since 1970."""
    value: bytes | None = None
    """Pickled value of the item; None in replay mode."""
    truth: Any = None
    """Ground truth of the item, or the reference's output."""

    @property
    def item(self) -> Item:
        """Item in the form that profiling takes."""
        return Item(self.item_key, None if self.value is None else unpickle_value(self.value), self.truth)


class RecentItems:
    """Most recent items of every pipeline, with distinct keys."""

    def __init__(self, *, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: dict[str, deque[AuditScore]] = {}

    def copy(self) -> RecentItems:
        result = RecentItems(max_items=self._max_items, max_bytes=self._max_bytes)
        result._items = {pipeline: deque(items) for pipeline, items in self._items.items()}
        return result

    def add(self, items: Iterable[AuditScore]) -> None:
        """Add items; an item replaces an earlier one with its key."""
        for item in items:
            recent = self._items.setdefault(item.pipeline, deque())
            retained = [other for other in recent if other.item_key != item.item_key]
            recent.clear()
            recent.extend((*retained, item))
            size = sum(len(other.value or b"") for other in recent)
            while len(recent) > self._max_items or (size > self._max_bytes and len(recent) > 1):
                size -= len(recent.popleft().value or b"")

    def since(self, pipeline: str, time_s: float) -> tuple[AuditScore, ...]:
        """Return the items of a pipeline since `time_s`, oldest first."""
        return tuple(item for item in self._items.get(pipeline, ()) if item.time_s >= time_s)


def most_accurate(profile: PipelineProfile, metric: MetricSpec, among: Sequence[Configuration] = ()) -> Configuration:
    """Return the configuration whose accuracy is best at its unfavourable confidence bound.

    All configurations that were profiled on enough items are considered, not only a query's ladder, because latency and
    cost do not limit audits.

    If one of `among` is usable, only these are considered.

    Raises:
        ValueError: the profile contains no configuration.
    """
    usable = [entry for entry in profile.usable or profile.configurations if not among or entry.configuration in among]
    candidates = usable or list(profile.usable or profile.configurations)
    if not candidates:
        raise ValueError(f"pipeline {profile.pipeline}: the profile contains no configuration")

    def worst(entry: ConfigurationProfile) -> float:
        return entry.accuracy.lower if metric.direction == "maximize" else -entry.accuracy.upper

    return max(candidates, key=worst).configuration
