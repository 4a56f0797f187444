"""Covariates: features of every item, known before it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray

_MAX_VALUES = 64


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

    def check(self, population: int) -> None:
        """Check that every item has covariates.

        Raises:
            ValueError: the number of items differs.
        """
        if len(self.kind) != population:
            raise ValueError(f"found covariates of {len(self.kind)} items, expected all {population}")

    def counts(self, begin: int) -> FloatArray:
        """Return (kinds,) the number of items of each kind from `begin` on."""
        return np.bincount(self.kind[begin:], minlength=len(self.rows)).astype(np.float64)
