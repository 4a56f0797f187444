"""What is known of every item before it is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from circinus.profiling.sequences.arrays import FloatArray, IntArray


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
