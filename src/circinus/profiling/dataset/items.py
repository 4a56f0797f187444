"""The data set of a pipeline: its items in one fixed order, and a fingerprint of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from circinus.errors import OperatorError, ProfileError
from circinus.operators import Item, resolve
from circinus.profiling.dataset.item_features import item_features
from circinus.profiling.dataset.item_order import measurement_order
from circinus.profiling.dataset.stratification import cluster_strata
from circinus.profiling.measurement.pickling import pickle_value
from circinus.specification import Pipeline


@dataclass(frozen=True)
class Dataset:
    """Items in the order in which they are measured: the same for every configuration."""

    items: tuple[Item, ...]
    """In the order of the data set itself; with the strata that were found, where no item declares any."""
    order: tuple[int, ...]
    """Indexes into `items`: a seeded permutation (`measuring_order`)."""
    held_out_items: int
    """How many items at the end of the order are never profiled."""
    seed: int
    """What the order was drawn with."""
    fingerprint: str
    """SHA-256 over keys, values, truths and strata, declared or found: with other strata the order is another."""
    addresses: tuple[str, ...]
    """For each of `items` the SHA-256 over its key, value and truth: with other strata, measurements stay."""
    input_bytes: tuple[int, ...]
    """For each of `items` the size of its value as it is sent."""

    @property
    def profiling_items(self) -> tuple[int, ...]:
        """The beginning of the order that may be profiled."""
        return self.order[: len(self.order) - self.held_out_items]

    def traffic_items(self, count: int) -> tuple[int, ...]:
        """Indexes of at most `count` items that traffic may carry, last of the order first.

        These are held-out items; of a data set that holds out none, the items that profiling reaches last.
        """
        backwards = self.order[::-1]
        return backwards[: min(count, self.held_out_items or len(backwards))]


def load_dataset(pipeline: Pipeline, module_paths: Sequence[Path] = (), *, seed: int = 0) -> Dataset:
    """Build the data set of `pipeline` and put its items in order.

    Where no item declares strata they are found from features of the values (`DatasetSpec.features`).

    The fingerprint is over pickled content: values must pickle to the same bytes in every process (a set of
    strings does not), or nothing that was measured is ever recognised.

    Raises:
        OperatorError: the function or that of the features is not found or fails.
        ProfileError: it returns something else than items, no item, two items with the same key, or an item that
            cannot be pickled; or the features are not equally many finite numbers.
    """
    items = _build(pipeline, module_paths)
    _check(pipeline, items)
    items = _with_strata(pipeline, items, module_paths)
    addresses, sizes = [], []
    fingerprint = hashlib.sha256()
    for item in items:
        try:
            value, truth = pickle_value(item.value), pickle_value(item.truth)
        except Exception as error:  # pickle raises whatever a value's own methods raise
            raise ProfileError(
                f"{_where(pipeline)}: item {item.key}: found a value or truth that cannot be pickled "
                f"({type(error).__name__}: {error}); give plain data or arrays"
            ) from error
        addresses.append(_digest(item.key.encode(), value, truth))
        sizes.append(len(value))
        fingerprint.update(f"{addresses[-1]}{sorted(item.strata.items())}".encode())
    held_out = pipeline.dataset.held_out_items(len(items))
    order = measurement_order([item.strata for item in items], held_out, np.random.default_rng(seed))
    return Dataset(
        items=items,
        order=tuple(order.tolist()),
        held_out_items=held_out,
        seed=seed,
        fingerprint=fingerprint.hexdigest(),
        addresses=tuple(addresses),
        input_bytes=tuple(sizes),
    )


def _build(pipeline: Pipeline, module_paths: Sequence[Path]) -> tuple[Item, ...]:
    function = resolve(pipeline.dataset.uses, module_paths)
    try:
        found: Any = function(**pipeline.dataset.arguments)
        return tuple(found)
    except Exception as error:  # whatever the user's function raises
        raise OperatorError(
            f"{_where(pipeline)}: calling it with {dict(pipeline.dataset.arguments)} failed with "
            f"{type(error).__name__}: {error}"
        ) from error


def _with_strata(pipeline: Pipeline, items: tuple[Item, ...], module_paths: Sequence[Path]) -> tuple[Item, ...]:
    """The items with strata found for them, where none declares any."""
    if any(item.strata for item in items):
        return items
    features = item_features(items, pipeline.dataset.features, module_paths, _where(pipeline))
    # Whatever the seed of the order: strata belong to the data set, of which there may be several orders.
    strata = cluster_strata(features, np.random.default_rng(0))
    return tuple(replace(item, strata=found) for item, found in zip(items, strata, strict=True))


def _check(pipeline: Pipeline, items: Sequence[Any]) -> None:
    if not items:
        raise ProfileError(f"{_where(pipeline)}: found no item, expected at least one to measure on")
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not isinstance(item, Item):
            raise ProfileError(
                f"{_where(pipeline)}: found {type(item).__name__} at index {index}, expected circinus.operators.Item"
            )
        if not isinstance(item.key, str) or not item.key:
            raise ProfileError(f"{_where(pipeline)}: found the key {item.key!r} at index {index}, expected a text")
        if item.key in seen:
            raise ProfileError(f"{_where(pipeline)}: found two items with the key {item.key}; each needs its own")
        seen.add(item.key)


def _digest(*parts: bytes) -> str:
    """SHA-256 over parts, each preceded by its length so that none can run into the next."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _where(pipeline: Pipeline) -> str:
    return f"data set {pipeline.dataset.uses} of pipeline {pipeline.name}"
