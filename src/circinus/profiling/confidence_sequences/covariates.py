"""What is known of every item before it is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from circinus.arrays import FloatArray, IntArray


def normalize_scores(scores: FloatArray, population: int, low: float, high: float) -> FloatArray:
    """Check scores and move [low, high] to [0, 1].

    Args:
        scores: (k, n) scores of the first n items in the order they were drawn, for each of k configurations.
        population: number of all items, at least n.
        low: least score that can occur.
        high: greatest score that can occur, greater than `low`.

    Raises:
        ValueError: a score outside [low, high] (its row and column are named), more scores than the population
            has, or a range that is empty.
    """
    if scores.ndim != 2:
        raise ValueError(f"found scores of shape {scores.shape}, expected (configurations, items)")
    if scores.shape[1] > population:
        raise ValueError(f"found {scores.shape[1]} scores, expected at most the population's {population}")
    if not low <= high:
        raise ValueError(f"found the range [{low}, {high}], expected the least score first")
    outside = ~((scores >= low) & (scores <= high))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        found = scores[row, column]
        raise ValueError(f"found score {found} of configuration {row}, item {column}, outside [{low}, {high}]")
    if low == high:
        return np.zeros_like(scores)
    unit: FloatArray = np.clip((scores - low) / (high - low), 0.0, 1.0)
    return unit


_MOST_COLUMNS = 64


def one_hot_strata(strata: Sequence[Mapping[str, str]], most: int = _MOST_COLUMNS) -> FloatArray:
    """Columns that say which condition an item has, and which combination of conditions.

    A name with more than `most` values (a file name, a speaker) predicts nothing within the few items one wants to
    get along with and is left out; so are the combinations, where there are too many.

    Args:
        strata: for each of N items, its conditions by name.
        most: values that a name may have.

    Returns:
        (N, columns) of 0 and 1; no column where nothing tells items apart.
    """
    names = sorted({name for conditions in strata for name in conditions})
    columns = [[conditions.get(name, "") for conditions in strata] for name in names]
    telling = [column for column in columns if 1 < len(set(column)) <= min(most, len(strata) // 2)]
    blocks = [_one_hot(column) for column in telling]
    combined = ["\0".join(values) for values in zip(*telling, strict=True)]
    if len(telling) > 1 and len(set(combined)) <= min(most, len(strata) // 2):
        blocks.append(_one_hot(combined))
    return np.hstack(blocks) if blocks else np.zeros((len(strata), 0))


def _one_hot(column: Sequence[str]) -> FloatArray:
    values = sorted(set(column))
    one_hot: FloatArray = (np.array(column)[:, None] == np.array(values)).astype(np.float64)
    return one_hot


@dataclass(frozen=True, eq=False)
class Covariates:
    """Numbers known of every item, each combination of them once: strata are few where items are many."""

    rows: FloatArray
    """(kinds, columns) the combinations that occur."""
    kind: IntArray
    """(population,) which of them each item has, in the order of the items."""

    @classmethod
    def of(cls, columns: FloatArray) -> Covariates:
        """Take covariates of all items, (population, columns), each of about the size 1: strata, a partner's scores.

        Without a column nothing is known, and all is as without covariates.

        Raises:
            ValueError: another shape, or a value that is not finite.
        """
        if columns.ndim != 2:
            raise ValueError(f"found covariates of shape {columns.shape}, expected (items, columns)")
        if not np.isfinite(columns).all():
            raise ValueError(f"found no finite covariate of item {int(np.argwhere(~np.isfinite(columns))[0][0])}")
        if columns.shape[1] == 0:
            return cls(np.zeros((1, 0)), np.zeros(len(columns), dtype=np.int64))
        rows, kind = np.unique(np.asarray(columns, dtype=np.float64), axis=0, return_inverse=True)
        return cls(rows, kind.reshape(-1).astype(np.int64))

    def check(self, population: int) -> None:
        """Check that they are of every item.

        Raises:
            ValueError: another number of items.
        """
        if len(self.kind) != population:
            raise ValueError(f"found covariates of {len(self.kind)} items, expected them of all {population}")

    def counts(self, begin: int) -> FloatArray:
        """(kinds,) items of each kind from `begin` on."""
        return np.bincount(self.kind[begin:], minlength=len(self.rows)).astype(np.float64)
