"""Covariates: features of every item, known before it is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.statistics.martingale import UNLIMITED

_MAX_VALUES = 64
_MIN_ITEMS = 8
"""Fewest items of a stratum whose share is given; smaller ones are used up early, which costs later bets."""
_MAX_IN_SMALL = 0.25
"""Maximum share of items in strata with fewer, above which a condition is ignored."""


def one_hot_strata(strata: Sequence[Mapping[str, str]], max_values: int = _MAX_VALUES) -> FloatArray:
    """Return columns that indicate each item's conditions, and combinations of conditions.

    A name with more than `max_values` values (a file name, a speaker) predicts nothing from few items and is excluded;
    so are combinations if there are too many.

    Args:
        strata: conditions by name, for each of N items.
        max_values: maximum number of values of a name.

    Returns:
        (N, columns) of 0 and 1; no column if nothing distinguishes items.
    """
    names = sorted({name for conditions in strata for name in conditions})
    columns = [[conditions.get(name, "") for conditions in strata] for name in names]
    informative = [column for column in columns if 1 < len(set(column)) <= min(max_values, len(strata) // 2)]
    blocks = [_one_hot(column) for column in informative]
    combined = ["\0".join(values) for values in zip(*informative, strict=True)]
    if len(informative) > 1 and len(set(combined)) <= min(max_values, len(strata) // 2):
        blocks.append(_one_hot(combined))
    return np.hstack(blocks) if blocks else np.zeros((len(strata), 0))


def request_strata(strata: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the stratum of each of N items, of which requests are assumed to have the shares that the items have.

    A stratum is a combination of conditions. While more than a quarter of the items are in strata with fewer than 8, or
    there are more than 64 strata, the name with the most values is ignored; then the two smallest strata are joined
    until all have 8 items.
    """
    names = sorted({name for conditions in strata for name in conditions})
    columns = {name: [conditions.get(name, "") for conditions in strata] for name in names}
    columns = {name: column for name, column in columns.items() if len(set(column)) <= _MAX_VALUES}
    while True:
        labels = ["\0".join(values) for values in zip(*columns.values(), strict=True)] or [""] * len(strata)
        counts = Counter(labels)
        in_small = sum(count for count in counts.values() if count < _MIN_ITEMS)
        if in_small <= _MAX_IN_SMALL * len(strata) and len(counts) <= _MAX_VALUES:
            break
        if not columns:
            break
        del columns[max(columns, key=lambda name: (len(set(columns[name])), name))]
    joined = {label: label for label in counts}
    while len(counts) > 1 and min(counts.values()) < _MIN_ITEMS:
        first, second = sorted(counts, key=lambda label: (counts[label], label))[:2]
        counts[second] += counts.pop(first)
        joined = {label: second if target == first else target for label, target in joined.items()}
    return tuple(joined[label] for label in labels)


def _one_hot(column: Sequence[str]) -> FloatArray:
    values = sorted(set(column))
    one_hot: FloatArray = (np.array(column)[:, None] == np.array(values)).astype(np.float64)
    return one_hot


@dataclass(frozen=True, eq=False)
class Covariates:
    """Covariates of every item, with each distinct row stored once: strata are few even if items are many."""

    rows: FloatArray
    """(kinds, columns) distinct rows."""
    kind: IntArray
    """(population,) index in `rows` of each item, in the order of the items."""

    @classmethod
    def of(cls, columns: FloatArray) -> Covariates:
        """Create covariates from (population, columns) values of magnitude about 1: strata, or a reference's scores.

        Without a column, results are the same as without covariates.

        Raises:
            ValueError: the shape is wrong, or a value is not finite.
        """
        if columns.ndim != 2:
            raise ValueError(f"covariates must have the shape (items, columns), got {columns.shape}")
        if not np.isfinite(columns).all():
            raise ValueError(f"covariates of item {int(np.argwhere(~np.isfinite(columns))[0][0])} are not finite")
        if columns.shape[1] == 0:
            return cls(np.zeros((1, 0)), np.zeros(len(columns), dtype=np.int64))
        rows, kind = np.unique(np.asarray(columns, dtype=np.float64), axis=0, return_inverse=True)
        return cls(rows, kind.reshape(-1).astype(np.int64))

    @classmethod
    def of_requests(cls, strata: Sequence[Mapping[str, str]]) -> Covariates:
        """Create the covariates of items that stand for requests: a kind for each of `request_strata`."""
        labels = request_strata(strata)
        return cls.of(_one_hot(labels) if len(set(labels)) > 1 else np.zeros((len(labels), 0)))

    def check(self, population: int) -> None:
        """Check that every item has covariates; any number of items may stand for an unlimited population.

        Raises:
            ValueError: the number of items differs.
        """
        if len(self.kind) != population and population < UNLIMITED:
            raise ValueError(f"found covariates of {len(self.kind)} items, expected all {population}")

    @property
    def shares(self) -> FloatArray:
        """(kinds,) share of each kind in the items."""
        return self.counts(0) / len(self.kind)

    def chances(self, begin: int, end: int) -> FloatArray:
        """Return (end - begin, kinds) the probability that an item is of each kind, given the items before it."""
        return self._chances[begin:end]

    def weights(self, begin: int, end: int) -> FloatArray:
        """Return (end - begin, kinds) the share of each kind over its chance to be next; 0 once it is used up."""
        return self._weights[begin:end]

    def own_weights(self, begin: int, end: int) -> FloatArray:
        """Return (end - begin,) the weight of each item's own kind."""
        return np.asarray(self.weights(begin, end)[np.arange(end - begin), self.kind[begin:end]])

    @cached_property
    def _chances(self) -> FloatArray:
        drawn = np.zeros((len(self.kind), len(self.rows)))
        drawn[np.arange(1, len(self.kind)), self.kind[:-1]] = 1.0
        remaining = self.counts(0) - np.cumsum(drawn, axis=0)
        return np.asarray(remaining / (len(self.kind) - np.arange(len(self.kind)))[:, None])

    @cached_property
    def _weights(self) -> FloatArray:
        return np.where(self._chances > 0, self.shares / np.maximum(self._chances, 1e-12), 0.0)

    def counts(self, begin: int) -> FloatArray:
        """Return (kinds,) the number of items of each kind from `begin` on."""
        return np.bincount(self.kind[begin:], minlength=len(self.rows)).astype(np.float64)
