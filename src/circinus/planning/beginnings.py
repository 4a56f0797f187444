"""The distinct beginnings of configurations, so that what they share is searched once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """The configurations of a search as a tree: level t holds the distinct choices of the first t + 1 operators."""

    rows: IntArray
    """(configurations, producers), sorted."""
    of: tuple[IntArray, ...]
    """For each level (configurations,) the beginning that each configuration has."""
    first: tuple[IntArray, ...]
    """For each level (beginnings,) the first configuration that has it."""

    @classmethod
    def of_rows(cls, rows: IntArray) -> PrefixTree:
        """The tree of configurations given by sorted rows."""
        same = np.cumprod(rows[1:] == rows[:-1], axis=1).astype(np.bool_)
        starts = [np.concatenate([[True], ~same[:, producer]]) for producer in range(1, rows.shape[1])]
        return cls(
            rows,
            tuple(np.cumsum(start) - 1 for start in starts),
            tuple(np.flatnonzero(start) for start in starts),
        )

    def rows_at(self, level: int, producer: int) -> IntArray:
        """(beginnings,) the row of `producer` in each beginning of `level`."""
        return np.asarray(self.rows[self.first[level], producer])

    def children(self, level: int) -> tuple[IntArray, IntArray]:
        """For each beginning of the level before (level 0: for the root) its first child in `level`, and how many."""
        if level == 0:
            return np.zeros(1, dtype=np.int64), np.array([len(self.first[0])])
        parents = self.of[level - 1][self.first[level]]
        count = np.bincount(parents, minlength=len(self.first[level - 1]))
        return np.cumsum(count) - count, count
