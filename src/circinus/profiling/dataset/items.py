"""Data set of a pipeline: items in a fixed order, with a fingerprint of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item, resolve
from circinus.operators.pickling import pickle_value
from circinus.profiling.dataset.item_order import measurement_order
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
    """Build the data set of `pipeline` and order its items.

    The fingerprint covers pickled content: values must pickle to the same bytes in every process (a set of strings does
    not), otherwise stored measurements are never recognised.

    Raises:
        OperatorError: the function of the data set cannot be found or fails.
        ProfileError: the function returns a non-item, no item, two items with the same key, or an item that cannot be
            pickled.
    """
    items = _build(pipeline, module_paths)
    _check(pipeline, items)
    content_hashes, sizes = [], []
    fingerprint = hashlib.sha256()
    for item in items:
        try:
            value, truth = pickle_value(item.value), pickle_value(item.truth)
        except Exception as error:  # a value's own methods may raise anything
            raise ProfileError(
                f"the value or ground truth cannot be pickled ({type(error).__name__}: {error})",
                code="dataset.unpicklable_item",
                location=f"{_location(pipeline)}: item {item.key}",
                hint="Return plain data or arrays.",
            ) from error
        content_hashes.append(_digest(item.key.encode(), value, truth))
        sizes.append(len(value))
        fingerprint.update(f"{content_hashes[-1]}{sorted(item.strata.items())}".encode())
    held_out = pipeline.dataset.held_out_items(len(items))
    order = measurement_order([item.strata for item in items], held_out, np.random.default_rng(seed))
    return Dataset(
        items=items,
        order=tuple(order.tolist()),
        held_out_items=held_out,
        seed=seed,
        fingerprint=fingerprint.hexdigest(),
        addresses=tuple(content_hashes),
        input_bytes=tuple(sizes),
    )


def _build(pipeline: Pipeline, module_paths: Sequence[Path]) -> tuple[Item, ...]:
    function = resolve(pipeline.dataset.uses, module_paths)
    try:
        items: Any = function(**pipeline.dataset.arguments)
        return tuple(items)
    except Exception as error:  # the user's function may raise anything
        raise OperatorError(
            f"the call with {dict(pipeline.dataset.arguments)} failed with {type(error).__name__}: {error}",
            code="dataset.failed",
            location=_location(pipeline),
        ) from error


def _check(pipeline: Pipeline, items: Sequence[Any]) -> None:
    location = _location(pipeline)
    if not items:
        raise ProfileError("the data set has no items", code="dataset.empty", location=location)
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not isinstance(item, Item):
            raise ProfileError(
                f"found {type(item).__name__} at index {index}, expected circinus.operators.Item",
                code="dataset.not_an_item",
                location=location,
            )
        if not isinstance(item.key, str) or not item.key:
            raise ProfileError(
                f"found the key {item.key!r} at index {index}, expected a non-empty string",
                code="dataset.invalid_key",
                location=location,
            )
        if item.key in seen:
            raise ProfileError(
                f"two items have the key {item.key}",
                code="dataset.duplicate_key",
                location=location,
                hint="Give each item its own key.",
            )
        seen.add(item.key)


def _digest(*parts: bytes) -> str:
    """Return the SHA-256 over parts, each preceded by its length so that parts cannot run into each other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _location(pipeline: Pipeline) -> str:
    return f"data set {pipeline.dataset.uses} of pipeline {pipeline.name}"
