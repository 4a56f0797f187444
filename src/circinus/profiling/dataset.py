"""The data set of a pipeline: its items in one fixed order, and a fingerprint of their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circinus.operators import Item
from circinus.spec import Pipeline


@dataclass(frozen=True)
class Dataset:
    """Items in the order in which they are measured: the same for every configuration."""

    items: tuple[Item, ...]
    """In the order of the data set itself."""
    order: tuple[int, ...]
    """Indexes into `items`: a seeded permutation, every beginning of which is balanced over the strata."""
    fingerprint: str
    """SHA-256 over keys, values, truths and strata."""

    def first(self, count: int) -> tuple[Item, ...]:
        """The `count` items that are measured first."""
        return tuple(self.items[i] for i in self.order[:count])

    def held_out(self, count: int) -> tuple[Item, ...]:
        """The last `count` items of the order, last first: what a short measurement never sees."""
        return tuple(self.items[i] for i in reversed(self.order[max(0, len(self.order) - count) :]))


def load_dataset(pipeline: Pipeline, module_paths: Sequence[Path] = (), *, seed: int = 0) -> Dataset:
    """Build the data set of `pipeline` and put its items in order.

    Raises:
        OperatorError: the function is not found or fails.
        ProfileError: it returns something else than items, no item, or two items with the same key.
    """
    raise NotImplementedError
