"""Data set of a pipeline: items in a fixed order, with a fingerprint of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item
from circinus.operators.user_code import user_code
from circinus.profiling.dataset.item_order import measurement_order
from circinus.profiling.dataset.pickled_item import PickledItem
from circinus.profiling.settings import PROFILING
from circinus.specification import Pipeline


@dataclass(frozen=True)
class Dataset:
    """Items with the measurement order, which is the same for every configuration."""

    items: tuple[Item, ...]
    """Items in the order of the data set."""
    order: tuple[int, ...]
    """Indexes into `items`: a seeded permutation (`measurement_order`)."""
    held_out_items: int
    """Number of held-out items at the end of the order, which are never profiled."""
    seed: int
    """Random seed of the order."""
    fingerprint: str
    """SHA-256 over keys, values, ground truth and strata, which determine the order."""
    addresses: tuple[str, ...]
    """SHA-256 of key, value and ground truth of each item; independent of strata, so that measurements stay valid."""
    input_bytes: tuple[int, ...]
    """Serialized size of the value of each item."""

    @property
    def profiling_items(self) -> tuple[int, ...]:
        """Prefix of the order that may be profiled."""
        return self.order[: len(self.order) - self.held_out_items]

    def traffic_items(self, count: int | None = None) -> tuple[int, ...]:
        """Return the indexes of at most `count` items for generated traffic, last of the order first; None: all.

        These are held-out items; without held-out items, the ones that profiling reaches last.
        """
        held_out = self.order[::-1][: self.held_out_items or None]
        return held_out[:count]


def load_dataset(pipeline: Pipeline, module_paths: Sequence[Path] = (), *, seed: int = 0) -> Dataset:
    """Build the data set of `pipeline` in a process of its own, and order its items.

    The fingerprint covers pickled content: values must pickle to the same bytes in every process (a set of strings does
    not), otherwise stored measurements are never recognised.

    Args:
        pipeline: the pipeline.
        module_paths: folders of the data set's modules.
        seed: random seed of the order.

    Raises:
        OperatorError: the function of the data set cannot be found, fails, ends its process, or exceeds the time limit.
        ProfileError: the function returns a non-item, no item, two items with the same key, or an item that cannot be
            pickled.
    """
    location = f"data set {pipeline.dataset.uses} of pipeline {pipeline.name}"
    code, spec = user_code(module_paths), pipeline.dataset
    try:
        built = code.items(spec.uses, spec.arguments, PROFILING.operator_timeout_s)
    except (OperatorError, ProfileError) as error:
        if error.code.startswith("dataset."):
            error.location = location
        raise
    items = tuple(PickledItem(entry[0], value, truth, entry[1]) for entry, value, truth in built)
    content_hashes, fingerprint = [], hashlib.sha256()
    for (key, _, strata), value, truth in built:
        content_hashes.append(_digest(key.encode(), value, truth))
        fingerprint.update(f"{content_hashes[-1]}{strata}".encode())
    held_out = pipeline.dataset.held_out_items(len(items))
    order = measurement_order([item.strata for item in items], held_out, np.random.default_rng(seed))
    return Dataset(
        items=items,
        order=tuple(order.tolist()),
        held_out_items=held_out,
        seed=seed,
        fingerprint=fingerprint.hexdigest(),
        addresses=tuple(content_hashes),
        input_bytes=tuple(len(item.value) for item in built),
    )


def _digest(*parts: bytes) -> str:
    """Return the SHA-256 over parts, each preceded by its length so that parts cannot run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
